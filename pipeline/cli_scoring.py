"""The command ``score-dump``: arguments in, one call, lines out."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

# Paragraphs, for typer keeps the line breaks of an epilog.
RULES = "\n\n".join(
    (
        "[bold]Bad input[/bold] never ends a run. A view whose file is missing, empty or unreadable counts as zero and "
        "is counted aloud; rows that are not finite are refused; what the referee (graspnetAPI) grades (widths clipped "
        "to 0-10 cm, depths below zero, left-handed or sheared rotations) is graded as the referee does; a kept grasp "
        "on which the referee would die (closing axis not of unit length) fails.",
        "A model that is missing is left out and the result marked incomplete; a textured.sdf that cannot be read is "
        "made anew from the mesh; one that does not fit its mesh is used, as the referee would, and reported.",
        "Exit status: 0 every view got a result; 1 some view got none (its truth is broken); 2 nothing can be scored.",
    )
)


class Told(SystemExit):
    """An end that has said why it came."""

    told = True


@app.command("score-dump", rich_help_panel="Main job", epilog=RULES)
def score_dump(
    dump: Annotated[
        Path, typer.Argument(metavar="DUMP", help="Folder of scene_SSSS/CAMERA/VVVV.npy; may be a part of a split.")
    ],
    dataset: Annotated[Path, typer.Option("--dataset", help="Dataset root: its scenes/ and models/ are read.")],
    camera: Annotated[str, typer.Option("--camera", help="realsense or kinect.")],
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="test, test_seen, test_similar, test_novel, train or all: every such scene of the dataset. "
            "Default: the scenes that both dump and dataset have.",
        ),
    ] = None,
    scenes: Annotated[str | None, typer.Option("--scenes", help="These instead, such as 0,5,100-129.")] = None,
    views: Annotated[
        str | None, typer.Option("--views", help="Views of every scene, such as 0,64 or 0-240:16; default: all.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes; 0 takes one a core.")] = 0,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder for files derived from models.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole result as JSON; all else goes to standard error.")
    ] = False,
    result: Annotated[Path | None, typer.Option("--result", help="Write that JSON there as well.")] = None,
    rows: Annotated[Path | None, typer.Option("--rows", help="Write a row per kept grasp there (Parquet).")] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another dump's --json or --result file: print the differences.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare results of different protocols nevertheless.")
    ] = False,
    scales: Annotated[
        bool,
        typer.Option("--scales", help="AP_S, AP_M, AP_L too: each width bin's grasps graded on their own (slower)."),
    ] = False,
    self_check: Annotated[
        bool, typer.Option("--self-check", help="Score sampled true grasps too: the ceiling this protocol leaves.")
    ] = False,
) -> None:
    """Score anybody's grasps (official dump layout): AP, AP0.4, AP0.8 in percent, with the protocol beside them."""
    from pipeline import dump_text
    from pipeline.artifacts import atomic_write, default_cache
    from pipeline.dump_result import read_result
    from pipeline.engines.local import default_workers
    from pipeline.score_dump import Request
    from pipeline.score_dump import score_dump as carry_out

    request = Request(
        dump=dump.resolve(),
        dataset=dataset.resolve(),
        camera=camera,
        cache=(cache or default_cache()).resolve(),
        split=split,
        scenes=number_list(scenes),
        views=number_list(views),
        scales=scales,
        self_check=self_check,
        workers=workers or default_workers(),
    )
    for path in (rows, result):
        if path is not None:
            check_writable(path)  # before an hour's scoring, not after it
    theirs = None if against is None else read_result(against)
    try:
        scored = carry_out(
            request,
            against=theirs,
            force=force,
            say=lambda line: print(line, file=sys.stderr if as_json else sys.stdout, flush=True),
        )
    except KeyboardInterrupt:
        print("grasp-utility: interrupted; no result is kept, parsed models stay in the cache", file=sys.stderr)
        raise Told(130) from None
    if rows is not None:
        dump_text.write_rows(rows, scored.scenes, camera)
    text = json.dumps(scored.result, indent=1, allow_nan=False)
    if result is not None:
        with atomic_write(result, "w") as stream:
            stream.write(text + "\n")
    if as_json:
        print(text)
    else:
        for line in dump_text.lines(scored.result):
            print(line)
        for name, path in (("result", result), ("rows", rows)):
            if path is not None:
                print(f"{name:10} {path}")
    if not scored.complete:
        raise typer.Exit(1)


def check_writable(path: Path) -> None:
    """Find out before any work whether a file can be written, making the folders above it.

    Raises:
        ValueError: naming the file.
    """
    if path.is_dir():
        raise ValueError(f"{path}: a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        why = error.strerror or error
        raise ValueError(f"{path}: cannot be written ({why}); choose another place") from None


def number_list(text: str | None) -> tuple[int, ...] | None:
    """Read ``0-9,100`` or ``0-240:16`` as numbers."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6})(?::(\d{1,6}))?)?", part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]) or match[3] == "0":
            raise ValueError(f"{text!r} is not a list of numbers such as 0-9,100 or 0-240:16")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
    return tuple(numbers)
