"""Which scenes and views an experiment uses."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import ConfigError, Experiment
from pipeline.datasets.graspnet import GraspNetDataset


@dataclass(frozen=True)
class SceneUnit:
    """The views of one scene that one camera took."""

    scene: int
    camera: str
    split: str
    views: tuple[int, ...]

    @property
    def label(self) -> str:
        return f"scene_{self.scene:04d}/{self.camera}"


def select(experiment: Experiment) -> list[SceneUnit]:
    """Return the units that the experiment's dataset section names, ordered by camera and scene.

    Raises:
        ConfigError: if it selects nothing, or a scene or view that the dataset does not hold.
    """
    section = experiment.dataset
    units: list[SceneUnit] = []
    for camera in section.cameras:
        dataset = GraspNetDataset(section.root, camera)
        present = dataset.scene_ids()
        scenes = list(section.scenes) if section.scenes is not None else present
        missing = sorted(set(scenes) - set(present))
        if missing:
            raise ConfigError(
                f"{section.root}: no scene {missing[0]} for camera {camera!r}; it holds {_ranges(present)}"
            )
        for name in section.splits or ():
            if not dataset.scene_ids(name):
                raise ConfigError(
                    f"{section.root}: no scene of split {name!r} for {camera!r}; fetch it, or drop the split"
                )
        for scene in scenes:
            split = dataset.split_of(scene)
            if section.splits is not None and split not in section.splits:
                continue
            held = dataset.view_ids(scene)
            views = tuple(held) if section.views == "all" else tuple(sorted(set(section.views)))
            absent = sorted(set(views) - set(held))
            if absent:
                raise ConfigError(f"{section.root}: scene {scene} has no view {absent[0]}; it has {_ranges(held)}")
            units.append(SceneUnit(scene, camera, split, views))
    if not units:
        raise ConfigError(f"{section.root}: no scene of the splits {list(section.splits or ())}; check `dataset:`")
    return units


def _ranges(numbers: list[int]) -> str:
    """Say a sorted list of numbers as ranges: ``0-3, 7``."""
    if not numbers:
        return "none"
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
