"""What a run folder holds, by arm, camera, scene and view; what is not there is named beside what there is.

Reads
    ``experiment.json``, ``observations/``, ``arms/<arm>/{clouds,dump,scores}/``. Whatever lies below ``arms/`` is an
    arm here: also one checkpoint of an arm that has several, and an arm that the experiment no longer names. The arms
    of a comparison of runs are read where its runs lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grasping.grasps import Grasps
from pipeline.artifacts import ArtifactError, check_version, read_stamp
from pipeline.cloud_files import ObjectClouds, Observation, load_clouds, load_observation
from pipeline.config import FORMAT_VERSION, ConfigError, Experiment, load_experiment
from pipeline.dump_result import ranges
from pipeline.run_folder import FAILURE, STAMP, RunFolder, located, unit_folder, view_file
from pipeline.score import GRASPS_FILE
from pipeline.scorers import PHYSICS
from pipeline.view_files import load_grasps, views_in


@dataclass(frozen=True)
class Place:
    """One view of a run."""

    camera: str
    scene: int
    view: int

    def __str__(self) -> str:
        return f"scene {self.scene}, view {self.view}, {self.camera}"

    def file(self, base: Path, suffix: str) -> Path:
        return view_file(unit_folder(base, self.scene, self.camera), self.view, suffix)


@dataclass(frozen=True, eq=False)
class ScoredGrasps:
    """The grasps of one view that were scored, best confidence first.

    Attributes:
        grasps: S of them, camera frame, metres; the width is the one that was graded (clipped to what the hand opens).
        rows: S rows of :data:`pipeline.grasp_rows.COLUMNS`, in the same order.
    """

    grasps: Grasps
    rows: pd.DataFrame

    def kept(self) -> ScoredGrasps:
        """Return those that the protocol's cut keeps (10 an object, 50 a view)."""
        chosen = self.rows["kept"].to_numpy(dtype=bool)
        return ScoredGrasps(self.grasps[chosen], self.rows[chosen].reset_index(drop=True))


@dataclass(frozen=True, eq=False)
class RunContents:
    """A run folder, opened by :func:`open_run`.

    Attributes:
        folder: its paths.
        experiment: what it was made by.
        content: the same as it stands in ``experiment.json``.
    """

    folder: RunFolder
    experiment: Experiment
    content: dict[str, Any]

    def arms(self) -> list[str]:
        """List the experiment's arms that have clouds, in its order; of several checkpoints each (``<arm>@0``)."""
        order = {arm.name: place for place, arm in enumerate(self.experiment.arms)}
        there = [name for name in self._folders() if name.partition("@")[0] in order]
        return sorted(there, key=lambda name: (order[name.partition("@")[0]], _place(name)))

    def completion_of(self, arm: str) -> str:
        """Say how an arm completes (``none``, ``truth``, ...); empty of one that the experiment does not name."""
        base = arm.partition("@")[0]
        return next((item.completion for item in self.experiment.arms if item.name == base), "")

    def arm(self, name: str) -> str:
        """Check an arm's name.

        Raises:
            ArtifactError: if no folder below ``arms/`` with clouds is called so.
        """
        there = self._folders()
        if name not in there:
            raise self._absent(f"no arm {name!r} with clouds", ", ".join(sorted(there)))
        return name

    def generator(self, name: str | None) -> str:
        """Check a generator's name; None: the experiment's first."""
        return self._named(name, [item.label for item in self.experiment.generators], "generator")

    def scorer(self, name: str | None) -> str:
        """Check a scorer's name; None: the experiment's first that grades by the protocol."""
        known = sorted(self.experiment.scorers, key=lambda scorer: scorer == PHYSICS)
        return self._named(name, known, "scorer")

    def place(self, scene: int, view: int, camera: str | None) -> Place:
        """Check a view's numbers; camera None: the experiment's first.

        Raises:
            ArtifactError: if it was not observed.
        """
        camera = self._named(camera, list(self.experiment.dataset.cameras), "camera")
        base = self.folder.observations
        scenes = _numbers(path.parent.name.removeprefix("scene_") for path in base.glob(f"scene_*/{camera}"))
        if scene not in scenes:
            raise self._absent(f"no scene {scene} of {camera}", ranges(scenes))
        views = views_in(unit_folder(base, scene, camera), ".npz")
        if view not in views:
            raise self._absent(f"no view {view} of scene {scene}", ranges(views))
        return Place(camera, scene, view)

    def observation(self, place: Place) -> Observation:
        """Read what was observed."""
        return load_observation(place.file(self.folder.observations, ".npz"))

    def clouds(self, arm: str, place: Place) -> ObjectClouds:
        """Read an arm's completed clouds."""
        return load_clouds(place.file(self.folder.clouds(self.arm(arm)), ".npz"))

    def grasps(self, arm: str, place: Place, generator: str, scorer: str) -> ScoredGrasps:
        """Read an arm's scored grasps.

        Raises:
            ArtifactError, GraspFileError: if they are not scored, or the dump is not the one that was.
        """
        dump = unit_folder(self.folder.dump(arm, generator), place.scene, place.camera)
        scores = unit_folder(self.folder.scores(arm, generator, scorer), place.scene, place.camera)
        made, used = read_stamp(dump / STAMP), read_stamp(scores / STAMP)
        if used is None:
            why = "failed" if (scores / FAILURE).exists() else "not scored"
            raise ArtifactError(f"{scores}: {why}; run `score`, or the whole experiment, and see problems.json")
        if made is None or used.made_from.get("dump") != made.fingerprint:
            raise ArtifactError(f"{scores}: made from another dump than now lies in the run; run the stages again")
        rows = pd.read_parquet(scores / GRASPS_FILE, filters=[("view", "==", place.view)])
        rows = rows.sort_values("rank", ignore_index=True)
        grasps = load_grasps(place.file(self.folder.dump(arm, generator), ".npy"))[rows["row"].to_numpy(np.int64)]
        return ScoredGrasps(replace(grasps, width=rows["width"].to_numpy(np.float64)), rows)

    def _folders(self) -> list[str]:
        if self.folder.sources:
            return [arm for arm in self.folder.sources if self.folder.clouds(arm).is_dir()]
        return [path.parent.name for path in (self.folder.root / "arms").glob("*/clouds") if path.is_dir()]

    def _named(self, name: str | None, known: list[str], what: str) -> str:
        if name is None:
            return known[0]
        if name not in known:
            raise self._absent(f"no {what} {name!r}", ", ".join(known))
        return name

    def _absent(self, what: str, there: str) -> ArtifactError:
        return ArtifactError(f"{self.folder.root}: has {what}; it has {there or 'none'}")


def open_run(path: Path) -> RunContents:
    """Open a run folder.

    Raises:
        ArtifactError: if it is none, or was made by a version whose experiment file this one does not read.
    """
    folder = RunFolder(path)
    written = folder.experiment_file
    try:
        content = json.loads(written.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(f"{path}: no run folder, for it has no {written.name}; give what `--out` named") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{written}: not readable as JSON ({error}); run the experiment again") from None
    check_version(written, content, FORMAT_VERSION)
    try:
        experiment = load_experiment(written)
    except ConfigError as error:
        raise ArtifactError(f"{error}; run the experiment again with this version") from None
    if folder.sources_file.exists():
        folder = located(folder, experiment)
    return RunContents(folder, experiment, content)


def _numbers(texts: Iterable[str]) -> list[int]:
    return sorted({int(text) for text in texts if text.isdigit()})


def _place(name: str) -> int:
    """Return the place of a checkpoint in its arm's list, so that ``arm@10`` comes after ``arm@9``; -1 without one."""
    place = name.partition("@")[2]
    return int(place) if place.isdigit() else -1
