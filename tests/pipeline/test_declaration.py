from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import declaration
from pipeline.config import Experiment
from pipeline.run_folder import RunFolder


def _experiment(**more: object) -> Experiment:
    raw = {"format_version": 1, "name": "t", "dataset": {"root": "/data"}}
    arms = [{"name": name, "checkpoint": name} for name in ("pcn-cd", "pcn-qal")]
    return Experiment.model_validate({**raw, "arms": arms, **more})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_a_run_that_keeps_to_its_declaration_has_nothing_to_say(folder: RunFolder) -> None:
    declaration.record(_experiment(), folder)
    folder.summary.write_text("{}")
    declaration.record(_experiment(), folder)
    assert len(declaration.read(folder)) == 1
    assert declaration.changes(folder) == []


def test_before_results_a_declaration_may_change(folder: RunFolder) -> None:
    declaration.record(_experiment(), folder)
    declaration.record(_experiment(primary_metric="quality"), folder)
    assert [entry["declared"]["primary_metric"] for entry in declaration.read(folder)] == ["quality"]
    assert declaration.changes(folder) == []


def test_after_results_the_change_is_told_for_good(folder: RunFolder) -> None:
    declaration.record(_experiment(), folder)
    folder.summary.write_text("{}")
    declaration.record(_experiment(primary_metric="quality"), folder)
    (sentence,) = declaration.changes(folder)
    assert "the primary metric (from ap to quality)" in sentence and "the family of tests" in sentence
    declaration.record(_experiment(), folder)  # turning back does not wipe it out
    assert len(declaration.changes(folder)) == 2


def test_what_was_never_declared_before_results_says_so(folder: RunFolder) -> None:
    folder.summary.write_text("{}")
    declaration.record(_experiment(), folder)
    (sentence,) = declaration.changes(folder)
    assert "when results were already there" in sentence


def test_an_unreadable_file_is_as_none(folder: RunFolder) -> None:
    folder.declared.write_text("[1, 2")
    assert declaration.read(folder) == []
