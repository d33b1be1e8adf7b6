"""Results of ``score-dump``: from scored views to means, a JSON that carries its protocol, and lines for people.

A mean is over a scene's views, then over scenes. Every view that was asked for is in it: one without a file, with an
empty or unreadable file, or without a result counts as zero.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grasping import protocol
from grasping.prepared import PreparedObject
from pipeline.artifacts import fingerprint as short_hash
from pipeline.datasets.graspnet import SPLITS
from pipeline.dump_scene import (
    AP_KEYS,
    NO_RESULT,
    REASONS,
    ROW,
    VIEW_STATES,
    WIDTH_BINS,
    SceneScore,
    width_bin,
)

FORMAT_VERSION = 1
RULES = 1
"""Raised when a rule for bad input changes."""
NO_SPLIT = "other"
HOLDS_AT = (0.4, 0.8)

WIDTH_DEFINITION = (
    "the kept grasps whose clipped opening lies in the bin, as a list of their own: same 50 ranks, "
    "those that the bin does not fill count as failures"
)
SCALE_DEFINITION = (
    "the dump's grasps of the bin alone through the whole protocol, the best 5 an object, 20 ranks: "
    "AP_S, AP_M, AP_L of Ma and Huang (CoRL 2022)"
)


class ResultError(ValueError):
    """A result that cannot be read or compared; the message names it and the remedy."""


def split_of(scene: int) -> str:
    """Name a scene's split by its number; ``other`` beyond GraspNet-1Billion's 190."""
    return next((name for name, numbers in SPLITS.items() if scene in numbers), NO_SPLIT)


def fingerprint(
    camera: str, views: Mapping[int, Sequence[int]], objects: Iterable[PreparedObject], poses: Iterable[str] | None
) -> dict[str, Any]:
    """Everything a result depends on besides the dump: protocol, camera, views, true models and poses.

    Args:
        camera: its name.
        views: scene -> views that were asked for.
        objects: the models of those scenes.
        poses: hashes of all views' poses in order; None where they are not known yet.
    """
    by_views: dict[str, list[int]] = {}
    for scene in sorted(views):
        by_views.setdefault(ranges(views[scene]), []).append(scene)
    return {
        **protocol.fingerprint(),
        "rules": RULES,
        "camera": camera,
        "views": {ranges(scenes): text for text, scenes in by_views.items()},
        "models": {f"{item.object_id:03d}": item.content for item in objects},
        "poses": None if poses is None else short_hash(list(poses)),
    }


def summarize(scores: Sequence[SceneScore], *, scales: bool) -> dict[str, Any]:
    """Turn scored scenes into means and counts.

    Args:
        scores: what became of each scene's views; a scene may come in several parts.
        scales: whether the bins were also graded on their own.
    """
    scenes: dict[int, list[SceneScore]] = {}
    for score in scores:
        scenes.setdefault(score.scene, []).append(score)
    ap = {scene: np.concatenate([part.ap for part in parts]) for scene, parts in sorted(scenes.items())}
    states = {scene: Counter(state for part in parts for state in part.states) for scene, parts in scenes.items()}
    rows = np.concatenate([np.zeros(0, ROW), *(part.rows for part in scores)])
    reasons = Counter({name: int(np.count_nonzero(rows["reason"] == k)) for k, name in enumerate(REASONS)})
    by_split: dict[str, Any] = {}
    for split in sorted({split_of(scene) for scene in scenes}, key=[*SPLITS, NO_SPLIT].index):
        members = [scene for scene in scenes if split_of(scene) == split]
        by_split[split] = {
            **_mean({scene: ap[scene] for scene in members}),
            "scenes": len(members),
            "views": sum(len(ap[scene]) for scene in members),
        }
    total = sum(states.values(), Counter[str]())
    result: dict[str, Any] = {
        **_mean(ap),
        "scenes": len(scenes),
        "views": sum(map(len, ap.values())),
        "view_states": {name: total[name] for name in VIEW_STATES},
        "generated": sum(score.generated for score in scores),
        "refused": dict(sum((Counter(score.refused) for score in scores), Counter[str]())),
        "kept": len(rows),
        "reasons": {name: reasons[name] for name in REASONS},
        "by_split": by_split,
        "by_scene": {
            f"{scene:04d}": {**_mean({scene: ap[scene]}), "views": len(ap[scene])} for scene in sorted(scenes)
        },
        "by_width": _by_width(scenes, rows),
        "width_definition": WIDTH_DEFINITION,
    }
    if scales:
        result["by_scale"] = {
            name: _mean({s: np.concatenate([p.scale_ap[:, k] for p in parts]) for s, parts in scenes.items()})
            for k, name in enumerate(WIDTH_BINS)
        }
        result["scale_definition"] = SCALE_DEFINITION
    return result


def _mean(ap: Mapping[int, NDArray]) -> dict[str, float]:
    """Mean over each scene's views, then over scenes, ``(V, 3)`` each."""
    value = np.mean([views.mean(axis=0) for views in ap.values()], axis=0) if ap else np.zeros(len(AP_KEYS))
    return dict(zip(AP_KEYS, map(float, value), strict=True))


def _by_width(scenes: Mapping[int, list[SceneScore]], rows: NDArray[np.void]) -> dict[str, Any]:
    bins = width_bin(rows["width"])
    out: dict[str, Any] = {}
    for k, (name, (low, high)) in enumerate(WIDTH_BINS.items()):
        friction = rows["min_friction"][bins == k]
        out[name] = {
            **_mean({s: np.concatenate([p.width_ap[:, k] for p in parts]) for s, parts in scenes.items()}),
            "from_m": low,
            "below_m": high if np.isfinite(high) else None,
            "kept": len(friction),
            **{f"holds_{mu}": float((friction <= mu).mean()) if len(friction) else None for mu in HOLDS_AT},
        }
    return out


def lost(scene: int, views: Sequence[int], reason: str) -> SceneScore:
    """Stand in for views that got no result: zeros, and the reason."""
    count = len(views)
    return SceneScore(
        scene=scene,
        views=tuple(views),
        states=(NO_RESULT,) * count,
        ap=np.zeros((count, 3)),
        width_ap=np.zeros((count, 3, 3)),
        scale_ap=np.zeros((count, 3, 3)),
        rows=np.zeros(0, ROW),
        generated=0,
        refused={},
        problems=tuple((view, reason) for view in views[:1]),
        poses=("",) * count,
        seconds=0.0,
    )


def read_result(path: Path) -> dict[str, Any]:
    """Read a result that ``score-dump --json`` or ``--result`` wrote.

    Raises:
        ResultError: if it is none.
    """
    try:
        result = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ResultError(f"{path}: not a readable result ({why}); give what score-dump --result wrote") from None
    good = isinstance(result, dict) and result.get("format_version") == FORMAT_VERSION
    if not good or not isinstance(result.get("fingerprint"), dict) or not isinstance(result.get("by_scene"), dict):
        raise ResultError(
            f"{path}: no result of score-dump with format_version {FORMAT_VERSION}; give what --result wrote, or score "
            "that dump again"
        )
    return result


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Say in which keys two fingerprints differ, each ``key: theirs -> ours``; what is not known yet is left out.

    The choice of views comes first, and where that differs nothing is said of what follows from it: other poses, and
    models that only one of the two met.
    """
    out = []
    if ours.get("views") != theirs.get("views"):
        out.append(f"views: {_views(theirs)} -> {_views(ours)}")
    a, b = ({key: value for key, value in _flat(one).items() if not key.startswith("views.")} for one in (ours, theirs))
    for key in sorted(set(a) | set(b), key=lambda key: (key == "poses" or key.startswith("models."), key)):
        follows = key == "poses" or (key.startswith("models.") and (key not in a or key not in b))
        unknown = key == "poses" and None in (a.get(key), b.get(key))
        if _said(a, key) != _said(b, key) and not unknown and not (out and out[0].startswith("views") and follows):
            out.append(f"{key}: {_said(b, key)} -> {_said(a, key)}")
    return out


def _views(fingerprint: Mapping[str, Any]) -> str:
    views = fingerprint.get("views")
    if not isinstance(views, dict):
        return "absent"
    return " and ".join(f"{numbers} of scenes {scenes}" for scenes, numbers in views.items())


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        out.update(_flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return out


def _said(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "absent"


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Ours minus theirs, in points: the whole, by split, by width bin, and in how many scenes which is better."""

    def minus(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, float]:
        return {key: a[key] - b[key] for key in AP_KEYS}

    out: dict[str, Any] = minus(ours, theirs)
    for part in ("by_split", "by_width"):
        a, b = ours[part], theirs.get(part, {})
        out[part] = {name: minus(a[name], b[name]) for name in a if name in b}
    shared = sorted(set(ours["by_scene"]) & set(theirs["by_scene"]))
    change = [ours["by_scene"][scene]["ap"] - theirs["by_scene"][scene]["ap"] for scene in shared]
    out["scenes"] = {
        "shared": len(shared),
        "better": sum(c > 0 for c in change),
        "worse": sum(c < 0 for c in change),
        "mean": float(np.mean(change)) if change else None,
        "standard_error": float(np.std(change, ddof=1) / len(change) ** 0.5) if len(change) > 1 else None,
    }
    return out


def counted(count: int, noun: str) -> str:
    """Say a number of things: ``1 view``, ``2 views``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def ranges(numbers: Sequence[int]) -> str:
    """Say a list of numbers as the options take it: ``0-3,7``; with a constant step ``0-240:16``."""
    n = sorted(set(numbers))
    if len(n) > 2 and (step := n[1] - n[0]) > 1 and all(b - a == step for a, b in pairwise(n)):
        return f"{n[0]}-{n[-1]}:{step}"
    parts: list[list[int]] = []
    for number in n:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts) or "none"
