"""The card of a checkpoint that was not evaluated yet; :mod:`completion.evaluate` writes the full one."""

from __future__ import annotations

import json
from typing import Any


def training_card(name: str, config: dict[str, Any]) -> str:
    """Markdown on what a checkpoint is and how it was trained, from its ``config.json``."""
    lines = [
        f"# {name}",
        "",
        f"Point-cloud completion network `{config['network']['name']}`, {config['input_points']} -> "
        f"{config['output_points']} points, trained with `{config['loss']['name']}`.",
        "",
        f"- network parameters: `{json.dumps(config['network'].get('parameters', {}))}`",
        f"- loss parameters: `{json.dumps(config['loss'].get('parameters', {}))}` (defaults where empty)",
        f"- clouds: metres, frame `{config['frame']}`, normalised from the `{config['normalisation']}` cloud, "
        f"merged by `{config['merge']}`",
    ]
    training = config.get("training")
    if training is None:
        return "\n".join([*lines, "- trained elsewhere: data, seed and schedule are not recorded", ""])
    coarse = "the same loss" if training["coarse_loss"] == "same" else f"`{training['coarse_loss']}`"
    lines += [
        f"- the coarse stage is trained with {coarse} against the full truth",
        f"- data: {_data(training)}, augmented by `{json.dumps(training['augmentation'])}`",
        f"- seed {training['seed']}, {training['steps']} steps of {training['batch_size']} samples, Adam, peak rate "
        f"{training['learning_rate']:g}, {_schedule(training)}; gradient norm cut at {training['clip_norm']:g}",
    ]
    if training.get("init"):
        lines.append(f"- begun with the weights of `{training['init']['name']}` ({training['init']['sha256'][:12]})")
    if training.get("ema"):
        lines.append(f"- weights: exponential moving average, decay {training['ema']:g}")
    if training.get("precision", "float32") != "float32":
        lines.append(f"- trained in `{training['precision']}` (losses and weights in float32)")
    if training.get("gradient_factors"):
        factors = ", ".join(f"{name} {value:.4g}" for name, value in training["gradient_factors"].items())
        lines.append(f"- losses scaled to the gradient magnitude of `cd_l1` on the first batch: {factors}")
    notes = training.get("notes", [])
    if notes:
        lines += ["", "## Warned of while it trained", ""]
        lines += [f"- step {step}, `{name}`: {text}" for step, name, text in notes]
    return "\n".join([*lines, ""])


def _data(training: dict[str, Any]) -> str:
    described = ", ".join(
        f"{one.get('file') or one.get('name') or 'unnamed'}"
        + (f" (sha256 {one['sha256'][:12]})" if "sha256" in one else "")
        for one in training["pairs"]
    )
    chosen = [f"{key} {', '.join(map(str, training[key]))} alone" for key in ("objects", "scenes") if training.get(key)]
    return ", ".join([described, *chosen])


def _schedule(training: dict[str, Any]) -> str:
    schedule = training.get("schedule", {"name": "cosine"})
    if schedule["name"] != "step":
        return str(schedule["name"])
    return f"times {schedule['gamma']:g} every {schedule['every']} {schedule['unit']}"
