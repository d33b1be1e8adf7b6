"""What ``score-dump`` says of a result: lines for people, and the table of kept grasps."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import atomic_write
from pipeline.dump_result import counted, split_of
from pipeline.dump_scene import (
    AP_KEYS,
    EMPTY,
    MISSING,
    NO_RESULT,
    REASONS,
    ROW,
    UNREADABLE,
    WIDTH_BINS,
    SceneScore,
    width_bin,
)

MOST_PROBLEMS = 10
WIDTH = 98
_HEAD = "".join(f"{title:>8}" for title in ("AP", "AP0.4", "AP0.8"))
_BINS = {"S": "S < 4 cm", "M": "M 4-7 cm", "L": "L >= 7 cm"}


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Say a result, the whole first, at most 100 columns."""
    yield ""
    yield f"{'percent':<16}{_HEAD}{'scenes':>9}{'views':>9}"
    yield f"{'all':<16}{_ap(result)}{result['scenes']:>9}{result['views']:>9}"
    for name, part in result["by_split"].items():
        yield f"{name:<16}{_ap(part)}{part['scenes']:>9}{part['views']:>9}"
    yield ""
    yield f"{'width':<16}{_HEAD}{'kept':>9}{'hold at µ 0.4':>15}{'at 0.8':>9}"
    for name, part in result["by_width"].items():
        holds = (f"{100 * part[key]:.1f} %" if part[key] is not None else "-" for key in ("holds_0.4", "holds_0.8"))
        yield f"{_BINS[name]:<16}{_ap(part)}{part['kept']:>9}{next(holds):>15}{next(holds):>9}"
    yield from _wrapped(result["width_definition"])
    if "by_scale" in result:
        for name, part in result["by_scale"].items():
            yield f"{'AP_' + name:<16}{_ap(part)}"
        yield from _wrapped(result["scale_definition"])
    yield ""
    kept = max(result["kept"], 1)
    reasons = ", ".join(f"{name} {100 * count / kept:.1f} %" for name, count in result["reasons"].items() if count)
    yield f"grasps     {result['generated']} in the dump, {result['kept']} kept by the protocol's cut"
    if reasons:
        yield f"           {reasons}"
    if result["refused"]:
        yield "refused    " + ", ".join(f"{count} {name}" for name, count in result["refused"].items())
    states = result["view_states"]
    zero = [f"{states[name]} {name}" for name in (MISSING, EMPTY, UNREADABLE, NO_RESULT) if states[name]]
    if zero:
        yield f"zeros      {', '.join(zero)}, of {counted(result['views'], 'view')}: all count as zero"
    yield from _protocol(result["fingerprint"])
    yield f"           fingerprint {result['fingerprint_short']}; whole in the JSON"
    seconds = result["seconds"]
    yield f"time       {seconds['whole']:.1f} s, {counted(seconds['workers'], 'worker')}"
    if not result["complete"]:
        yield "INCOMPLETE a model or a view of the truth is missing: this is no AP to cite (see problems)"
    yield from _problems(result["problems"])
    if "ceiling" in result:
        yield from _ceiling(result["ceiling"])
    if "against" in result:
        yield from _against(result["against"])


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _ap(part: Mapping[str, Any], sign: str = "") -> str:
    return "".join(f"{part[key]:>{sign}8.2f}" for key in AP_KEYS)


def _protocol(f: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"protocol   {f['protocol']} v{f['version']}: suppression {100 * f['suppression_translation']:g} cm "
        f"{np.degrees(f['suppression_angle']):g}°, best {f['grasps_per_object']} an object and "
        f"{f['grasps_per_view']} a view,"
    )
    yield (
        f"           widths to {100 * f['maximum_width']:g} cm, µ {min(f['frictions']):g}-{max(f['frictions']):g}, "
        f"models at {1000 * f['model_voxel']:g} mm, empty below {f['minimum_inside']} points"
    )


def _problems(problems: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not problems:
        return
    yield f"problems   {len(problems)}" + (" (all in the JSON)" if len(problems) > MOST_PROBLEMS else "")
    for problem in problems[:MOST_PROBLEMS]:
        where = "" if problem["scene"] is None else f"scene {problem['scene']:04d} "
        where += "" if problem["view"] is None else f"view {problem['view']:04d} "
        yield from _wrapped(where + problem["reason"])


def _ceiling(ceiling: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{'self-check':<16}{_HEAD}"
    yield f"{'true grasps':<16}{_ap(ceiling)}"
    yield f"{'object':<16}{'places':>8}{'hold 0.2':>10}{'0.4':>8}{'0.8':>8}   (in a view, of 10)"
    for name, part in ceiling["by_object"].items():
        holds = "".join(f"{part[key]:>{width}.1f}" for key, width in (("0.2", 10), ("0.4", 8), ("0.8", 8)))
        yield f"{name:<16}{part['places']:>8.1f}{holds}"
    for text in ceiling["failed"]:
        yield from _wrapped(f"left out: {text}")
    for sentence in ceiling["meaning"]:
        yield from _wrapped(sentence)


def _against(difference: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{'minus theirs':<16}{_HEAD}     ({difference['dump']})"
    yield f"{'all':<16}{_ap(difference, '+')}"
    for name, part in difference["by_split"].items():
        yield f"{name:<16}{_ap(part, '+')}"
    for name, part in difference["by_width"].items():
        yield f"{_BINS[name]:<16}{_ap(part, '+')}"
    scenes = difference["scenes"]
    if scenes["shared"]:
        error = "" if scenes["standard_error"] is None else f" ± {scenes['standard_error']:.2f} (standard error)"
        yield (
            f"scenes     {scenes['better']} better, {scenes['worse']} worse of {scenes['shared']}; "
            f"paired mean {scenes['mean']:+.2f}{error}"
        )
    if difference["fingerprints_differ"]:
        yield "FORCED     the protocols differ, so this compares nothing (theirs -> ours):"
        for text in difference["fingerprints_differ"]:
            yield from _wrapped(text)


def write_rows(path: Path, scores: Sequence[SceneScore], camera: str) -> None:
    """Write a row per kept grasp as Parquet.

    Columns: split, scene, camera, view, row (of the dump file), rank (by confidence among the view's kept, from 0),
    object, confidence, width (clipped, m), width_bin, min_friction (+inf: fails), collided, empty, reason.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            *((name, pa.dictionary(pa.int8(), pa.string())) for name in ("split", "camera", "width_bin", "reason")),
            *(("scene", pa.int16()), ("view", pa.int16()), ("row", pa.int32()), ("rank", pa.int16())),
            *(("object", pa.int32()), ("confidence", pa.float64()), ("width", pa.float64())),
            *(("min_friction", pa.float64()), ("collided", pa.bool_()), ("empty", pa.bool_())),
        ]
    )

    def named(numbers: Any, names: Sequence[str]) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(np.asarray(numbers, np.int8)), pa.array(list(names)))

    with atomic_write(path) as stream, pq.ParquetWriter(stream, schema) as writer:
        for score in scores:
            rows, count = score.rows, len(score.rows)
            columns: dict[str, Any] = {name: pa.array(rows[name]) for name in ROW.names or () if name != "reason"}
            columns["scene"] = pa.array(np.full(count, score.scene, np.int16))
            columns["split"] = named(np.zeros(count), [split_of(score.scene)])
            columns["camera"] = named(np.zeros(count), [camera])
            columns["width_bin"] = named(width_bin(rows["width"]), list(WIDTH_BINS))
            columns["reason"] = named(rows["reason"], REASONS)
            writer.write_table(pa.table({name: columns[name] for name in schema.names}, schema=schema))
