"""A run's grasps as others read them: one loose ``VVVV.npy`` a view, in the official dump layout.

Reads
    ``arms/<arm>/dump/<generator>/scene_SSSS/<camera>/``, packed (:mod:`pipeline.view_files`) or not.
Writes
    ``OUT/scene_SSSS/<camera>/VVVV.npy``, ``(N, 17)`` float64, the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import ArtifactError, read_stamp
from pipeline.run_contents import open_run
from pipeline.run_folder import STAMP
from pipeline.view_files import unpack


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        generator: whose grasps.
        cameras: of the units.
        units: scenes by cameras.
        views: files.
        unfinished: folders of units whose dump is not finished, left out; what has not begun has none.
    """

    generator: str
    cameras: tuple[str, ...]
    units: int
    views: int
    unfinished: tuple[Path, ...]


def export_dump(run: Path, arm: str, out: Path, generator: str | None = None) -> Exported:
    """Write one arm's dump.

    Args:
        run: a run folder.
        arm: one of its arms; of several checkpoints ``<arm>@<place>``.
        out: a folder that is not there yet, or is empty.
        generator: None: the run's first.

    Raises:
        ArtifactError: if the run has no such arm, generator or dump, or ``out`` cannot take it; names what there is.
    """
    contents = open_run(run)
    generator = contents.generator(generator)
    dump = contents.folder.dump(contents.arm(arm), generator)
    folders = sorted(path for path in dump.glob("scene_*/*") if path.is_dir())
    units = [folder for folder in folders if read_stamp(folder / STAMP) is not None]
    if not units:
        raise ArtifactError(f"{dump}: no finished unit; run `generate`, or the whole experiment")
    try:
        if any(out.iterdir()):
            raise ArtifactError(f"{out}: not empty; give another folder")
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise ArtifactError(f"{out}: a file; give another folder") from None
    views = sum(unpack(folder, out / folder.relative_to(dump)) for folder in units)
    cameras = tuple(sorted({folder.name for folder in units}))
    return Exported(generator, cameras, len(units), views, tuple(sorted(set(folders) - set(units))))
