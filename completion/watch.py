"""QAL's known failure signatures, looked for in what a run logs, and named with their remedy.

Each detector is a pure function of logged series (one value a log row) that returns a :class:`Finding` or None. The
thresholds are ours, stated below, and made to stay silent on healthy runs: no paper gives any. The remedies are those
of the QAL paper (arXiv 2511.17824).

**Flat regions** come from the truth alone: a true point is flat where the surface variation of its neighbourhood
(smallest eigenvalue of the covariance over the sum of all three; Pauly et al., 2002) is below ``FLAT_VARIATION``. A
prediction is spurious in a flat region where its nearest true point is flat and farther than τ.
"""

from __future__ import annotations

import inspect
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from completion.configuration import ConfigurationError, TrainingConfig
from completion.losses import qal
from completion.losses.schedules import resolve
from completion.metrics import NETWORK_THRESHOLD
from completion.nearest import nearest_neighbours
from completion.points import gather_points
from completion.schedules import share_of_run
from completion.training_log import LOG, read_log

# Gradient spikes: a row whose largest gradient exceeds SPIKE times the median of the SPIKE_ROWS rows before and of
# those after (a level that changes, as with fine_weight, is no spike), within the first EARLY of the run; SPIKES many.
SPIKE, SPIKE_ROWS, SPIKES, EARLY, SMALL_EPSILON = 10.0, 3, 2, 0.3, 1e-3
# Flat coverage: from FLAT_FROM of the run until now (half of the run or later), means over FLAT_ROWS of the rows at
# both ends gain less than FLAT_GAIN, and coverage is still below FULL; with lambda_attr of HIGH_LAMBDA or more.
FLAT_FROM, FLAT_ROWS, FLAT_GAIN, FULL, HIGH_LAMBDA = 0.1, 0.15, 0.02, 0.9, 1.0
# Rising spurious points in flat regions: in half of the run or later, the mean over the last RISE_ROWS of the rows from
# FLAT_FROM on is above the lowest such mean before by RISE and by the factor RISE_RATIO.
RISE_ROWS, RISE, RISE_RATIO = 0.2, 0.03, 1.25
# No gain over CD: over the last GAIN_ROWS of the rows, coverage is not GAIN higher and spurious not GAIN lower.
GAIN_ROWS, GAIN = 0.25, 0.005
FEWEST_ROWS = 8
# A ball of 1,024 points has a surface variation of 0.002 at 12 neighbours, a plane 0.
FLAT_VARIATION, FLAT_NEIGHBOURS, _FLAT_SAMPLES, _FLAT_POINTS = 0.001, 12, 4, 1024


class Finding(NamedTuple):
    """A failure signature that was seen: its name, and what was seen with its remedy."""

    name: str
    text: str


def gradient_spikes(shares: Sequence[float], gradients: Sequence[float], epsilon: float) -> Finding | None:
    """Gradient spikes early in a run with a small margin.

    Args:
        shares: share of the run done at each row, 0 to 1.
        gradients: largest gradient norm since the row before.
        epsilon: QAL's margin.
    """
    if epsilon >= SMALL_EPSILON:
        return None
    found = []
    for i in range(SPIKE_ROWS, len(gradients) - SPIKE_ROWS):
        before = statistics.median(gradients[i - SPIKE_ROWS : i])
        after = statistics.median(gradients[i + 1 : i + 1 + SPIKE_ROWS])
        if shares[i] <= EARLY and gradients[i] > SPIKE * max(before, after):
            found.append(gradients[i] / max(before, after))
    if len(found) < SPIKES:
        return None
    return Finding(
        "gradient_spikes",
        f"the gradient spiked {len(found)} times early in the run (up to {max(found):.0f} times its level) with "
        f"epsilon {epsilon:g}: raise epsilon (to {SMALL_EPSILON:g} or more) or lower omega",
    )


def flat_coverage(shares: Sequence[float], coverage: Sequence[float], lambda_attr: float) -> Finding | None:
    """Coverage that does not rise although uncovered points pull hard; arguments as in :func:`gradient_spikes`."""
    values = [value for share, value in zip(shares, coverage, strict=True) if share >= FLAT_FROM]
    if lambda_attr < HIGH_LAMBDA or len(values) < FEWEST_ROWS or shares[-1] < 0.5:
        return None
    rows = max(2, round(FLAT_ROWS * len(values)))
    first, last = statistics.fmean(values[:rows]), statistics.fmean(values[-rows:])
    if last - first >= FLAT_GAIN or last >= FULL:
        return None
    return Finding(
        "flat_coverage",
        f"coverage went from {first:.3f} to {last:.3f} only, despite lambda_attr {lambda_attr:g}: the network may lack "
        "capacity, or the missing parts are occluded so far that nothing tells where they are",
    )


def rising_flat_spurious(shares: Sequence[float], flat_spurious: Sequence[float]) -> Finding | None:
    """Spurious points that rise in flat regions.

    Args:
        shares: share of the run done at each row, 0 to 1.
        flat_spurious: share of predictions a row, see the module's docstring.
    """
    values = [value for share, value in zip(shares, flat_spurious, strict=True) if share >= FLAT_FROM]
    # Few clouds are looked at: in the first half, noise around a level that still falls looks like a rise.
    if len(values) < FEWEST_ROWS or shares[-1] < 0.5:
        return None
    rows = max(3, round(RISE_ROWS * len(values)))
    last = statistics.fmean(values[-rows:])
    earlier = len(values) - rows
    lowest = min((statistics.fmean(values[i : i + rows]) for i in range(earlier - rows + 1)), default=math.inf)
    if not (last > lowest + RISE and last > RISE_RATIO * lowest):
        return None
    return Finding(
        "rising_flat_spurious",
        f"spurious points in flat regions rose from {lowest:.3f} to {last:.3f} of all predictions: lower lambda_attr "
        "or raise epsilon",
    )


def no_gain_over_cd(
    coverage: Sequence[float], spurious: Sequence[float], cd_coverage: Sequence[float], cd_spurious: Sequence[float]
) -> Finding | None:
    """QAL's log beside a ``cd_l1`` run's, at the same steps: neither more coverage nor fewer spurious points."""
    if len(coverage) < FEWEST_ROWS:
        return None
    rows = max(2, round(GAIN_ROWS * len(coverage)))
    covered, cd_covered = statistics.fmean(coverage[-rows:]), statistics.fmean(cd_coverage[-rows:])
    wrong, cd_wrong = statistics.fmean(spurious[-rows:]), statistics.fmean(cd_spurious[-rows:])
    if covered - cd_covered >= GAIN or cd_wrong - wrong >= GAIN:
        return None
    return Finding(
        "no_gain_over_cd",
        f"coverage {covered:.3f} and spurious {wrong:.3f} against {cd_covered:.3f} and {cd_wrong:.3f} of the cd_l1 "
        "run: is the distance bidirectional (both d_a and d_b in the loss)? Compare on held-out pairs, over seeds",
    )


@torch.no_grad()
def flat_spurious(prediction: Tensor, truth: Tensor, threshold: float = NETWORK_THRESHOLD) -> float:
    """Share of predicted points that are farther than ``threshold`` from a truth that is flat where it is nearest.

    Args:
        prediction: ``(B, N, 3)``; the first 4 clouds are looked at.
        truth: ``(B, M, 3)``; of each its first 1,024 points.
        threshold: in the clouds' unit.
    """
    prediction, truth = prediction[:_FLAT_SAMPLES], truth[:_FLAT_SAMPLES, :_FLAT_POINTS]
    near = nearest_neighbours(prediction.contiguous(), truth.contiguous())
    there = flat_points(truth).gather(1, near.index_a)
    return (there & (near.dist_a > threshold)).float().mean().item()


def flat_points(truth: Tensor, neighbours: int = FLAT_NEIGHBOURS) -> Tensor:
    """``(B, M)`` bool: which points of ``truth (B, M, 3)`` lie in a flat neighbourhood of that many points."""
    count = min(neighbours, truth.shape[1])
    index = torch.cdist(truth, truth).topk(count, dim=2, largest=False).indices  # (B, M, k), itself included
    around = gather_points(truth, index.flatten(1, 2)).unflatten(1, index.shape[1:])  # (B, M, k, 3)
    centred = around - around.mean(dim=2, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh(centred.transpose(2, 3) @ centred)  # (B, M, 3) ascending
    return eigenvalues[..., 0] < FLAT_VARIATION * eigenvalues.sum(dim=-1)


class Watch:
    """The detectors that fit a run's loss, asked at every log row.

    Raises:
        ConfigurationError: ``compare_with`` names a folder without a log.
    """

    def __init__(self, config: TrainingConfig, out: Path) -> None:
        self._config, self._out = config, out
        if config.compare_with and not (Path(config.compare_with) / LOG).exists():
            raise ConfigurationError(f"compare_with: {config.compare_with} holds no {LOG}; name the folder of a run")
        self.watches = config.loss.name == "qal"

    def look(self, rows: Sequence[Mapping[str, float]], last: bool) -> list[Finding]:
        """What shows in the log so far; the comparison with CD only at the run's end."""
        if not self.watches or not rows:
            return []
        share = share_of_run(self._config, min(int(rows[-1]["step"]), self._config.steps) - 1)
        defaults = {name: one.default for name, one in inspect.signature(qal).parameters.items()}
        now = {**defaults, **resolve(self._config.loss.parameters, share)}
        shares = [row["step"] / self._config.steps for row in rows]
        findings = [
            gradient_spikes(shares, [row.get("largest_gradient", 0.0) for row in rows], now["epsilon"]),
            flat_coverage(shares, [row["coverage"] for row in rows], now["lambda_attr"]),
            rising_flat_spurious(
                [share for share, row in zip(shares, rows, strict=True) if "flat_spurious" in row],
                [row["flat_spurious"] for row in rows if "flat_spurious" in row],
            ),
            self._beside_cd(rows) if last else None,
        ]
        return [finding for finding in findings if finding is not None]

    def _beside_cd(self, rows: Sequence[Mapping[str, float]]) -> Finding | None:
        folder = self._config.compare_with or cd_sibling(self._out, self._config)
        if folder is None:
            return None
        theirs = {row["step"]: row for row in read_log(Path(folder) / LOG)}
        both = [(row, theirs[row["step"]]) for row in rows if row["step"] in theirs]
        return no_gain_over_cd(
            [ours["coverage"] for ours, _ in both],
            [ours["spurious"] for ours, _ in both],
            [other["coverage"] for _, other in both],
            [other["spurious"] for _, other in both],
        )


def cd_sibling(out: Path, config: TrainingConfig) -> Path | None:
    """A finished run beside ``out`` that was trained with ``cd_l1`` and otherwise alike; the first by name."""
    for path in sorted(out.resolve().parent.glob("*/config.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            training: dict[str, Any] = content["training"]
            alike = all(
                training[key] == getattr(config, key) for key in ("seed", "steps", "batch_size", "learning_rate")
            )
            if alike and content["loss"]["name"] == "cd_l1" and training["network"]["name"] == config.network.name:
                return path.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
