"""Arms of several checkpoints, from the file to the folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import ConfigError, Experiment, load_experiment


def _load(folder: Path, arms: list[Any], **more: Any) -> Experiment:
    raw = {"format_version": 1, "name": "t", "dataset": {"root": "data"}, "arms": arms, **more}
    (folder / "t.yaml").write_text(yaml.safe_dump(raw))
    return load_experiment(folder / "t.yaml")


def test_members_are_arms_of_one_checkpoint_each(tmp_path: Path) -> None:
    arm = {"name": "qal", "checkpoints": ["runs/seed0", "pcn-qal"], "merge": "append"}
    experiment = _load(tmp_path, ["partial", arm])
    assert [member.name for member in experiment.members()] == ["partial", "qal@0", "qal@1"]
    first, second = experiment.members()[1:]
    assert first.checkpoint == str(tmp_path / "runs" / "seed0")  # relative to the file, as `checkpoint` is
    assert second.checkpoint == "pcn-qal"  # a shipped one
    assert all(member.merge == "append" and member.checkpoints is None for member in (first, second))


def test_an_arm_of_one_checkpoint_is_written_down_as_before(tmp_path: Path) -> None:
    experiment = _load(tmp_path, ["partial", "pcn-cd"])
    assert "checkpoints" not in experiment.model_dump()["arms"][1]
    assert [member.name for member in experiment.members()] == ["partial", "pcn-cd"]


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"name": "x", "checkpoints": ["a"]}, "one goes under `checkpoint`"),
        ({"name": "x", "checkpoints": ["a", "a"]}, "names one twice"),
        ({"name": "x", "checkpoints": ["a", "b"], "checkpoint": "c"}, "not both"),
        ({"name": "x", "checkpoints": ["a", "b"], "completion": "none"}, "goes with `completion: checkpoint`"),
        ({"name": "x@0", "checkpoint": "a"}, "letters, digits"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arm: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _load(tmp_path, ["partial", arm])


def test_a_family_of_undeclared_comparisons_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of the comparisons"):
        _load(tmp_path, ["partial", "pcn-cd"], statistics={"family": {"comparisons": [["partial", "pcn-cd"]]}})


def test_the_question_is_about_checkpoints_where_there_are_two(tmp_path: Path) -> None:
    experiment = _load(tmp_path, ["partial", "pcn-cd", "pcn-qal", "oracle"])
    assert experiment.questioned() == (("pcn-qal", "pcn-cd"),)
    assert _load(tmp_path, ["partial", "pcn-cd", "oracle"]).questioned() == (("pcn-cd", "partial"),)
    assert _load(tmp_path, ["partial", "oracle"]).questioned() == (("oracle", "partial"),)
