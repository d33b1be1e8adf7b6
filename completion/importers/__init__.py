"""Public checkpoints into ours: ``import_checkpoint(file, family, network, out)``.

A file is read without unpickling (:mod:`.files`), its state dict is found and stripped of wrappers (:mod:`.families`),
renamed by what the network says of the family (``CompletionNetwork.published``), compared key by key and shape by
shape, and written as a checkpoint folder that declares what the network expects of its input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from completion import checkpoint
from completion.checkpoint import CheckpointError, caveats, mismatch, shortened
from completion.configuration import MERGES, Part, check_name
from completion.importers.families import FAMILIES, unwrap
from completion.importers.files import read_file, sha256
from completion.importers.likeness import Likeness, best_entry, infer_parameters, likenesses, published_entries
from completion.networks import NETWORKS, CompletionNetwork, Published
from completion.networks.interface import StateDict
from completion.normalize import NORMALISATIONS

__all__ = ["FAMILIES", "Imported", "import_checkpoint", "inspect_file"]

# Below this share of common names, naming a likeliest network would mislead.
_LIKELY = 0.5


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes:
        folder: the checkpoint.
        config: its ``config.json``.
        inferred: parameters that the shapes showed to differ from the published ones.
        caveats: see :func:`completion.checkpoint.caveats`; and what the importer had to take for granted.
    """

    folder: Path
    config: dict[str, Any]
    inferred: dict[str, Any]
    caveats: list[str]


def import_checkpoint(
    file: str | Path,
    family: str,
    network: str,
    out: str | Path,
    *,
    frame: str | None = None,
    normalisation: str | None = None,
    merge: str = "replace",
    input_points: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    averaged: bool = True,
) -> Imported:
    """Turn a public checkpoint file into a checkpoint folder.

    Args:
        file: torch file or safetensors.
        family: who saved it, a name in :data:`FAMILIES`.
        network: a name in ``NETWORKS``.
        out: the folder to write.
        frame: that the network expects; default: the family's.
        normalisation: that the network was trained with; default: the family's. Inference uses it with the
            observation in the place of the true shape; one that names ``partial`` says that training did so too.
        merge: how inference joins the prediction to the observation.
        input_points: default: what the published network was trained on.
        parameters: of the network, where they differ from the published ones and shapes do not tell.
        averaged: take averaged weights (EMA) where the file holds some.

    Raises:
        CheckpointError: a file that cannot be read, does not fit, or holds values that are not finite; or ``out`` is
            taken.
        ConfigurationError: unknown names or parameters.
    """
    file = Path(file)
    check_name(family, FAMILIES, "family")
    check_name(network, NETWORKS, "network")
    check_name(frame or FAMILIES[family].frame, checkpoint.FRAMES, "frame")
    check_name(normalisation or FAMILIES[family].normalisation, NORMALISATIONS, "normalisation")
    check_name(merge, MERGES, "merge")
    _check_free(Path(out))
    content = read_file(file)
    if not published_entries(family, network):
        held = [f"{name} ({', '.join(_families_of(name))})" for name in sorted(NETWORKS) if _families_of(name)]
        raise CheckpointError(
            f"{file}: no checkpoint of {network} in the family {family} is known; known: {', '.join(held)}"
            + _likeliest(content)
        )
    unwrapped = unwrap(content, FAMILIES[family], averaged)
    if unwrapped is None:
        where = " or ".join(FAMILIES[family].keys) or "the file itself"
        raise CheckpointError(
            f"{file}: no state dict where the family {family} keeps it ({where}); it holds {_content(content)}"
            + _likeliest(content)
        )
    best = best_entry(family, network, unwrapped.state)
    if best is None:
        raise CheckpointError(f"{file}: is no {network}: it holds {_content(unwrapped.state)}" + _likeliest(content))
    entry, state = best
    made, inferred = _fitted(file, content, entry, state, family, network, dict(parameters or {}))
    trained = normalisation or FAMILIES[family].normalisation
    config: dict[str, Any] = {
        "network": {"name": network, "parameters": {**entry.parameters, **(parameters or {}), **inferred}},
        "input_points": input_points or entry.input_points,
        "output_points": made.output_points,
        "unit": "m",
        "normalisation": trained.replace("oracle", "partial"),
        "frame": frame or FAMILIES[family].frame,
        "merge": merge,
        "loss": {"name": "unknown", "parameters": {}},
        "trained_normalisation": trained,
        "imported": {
            "file": file.name,
            "sha256": sha256(file),
            "family": family,
            "state_dict": unwrapped.key,
            "published": entry.source,
            "others": unwrapped.others,
        },
    }
    _try(file, made, config["input_points"])
    folder = checkpoint.save(out, made, config, _card(Path(out).name, config), torch.float32)
    hint = FAMILIES[family].hint
    taken = [hint] if hint and normalisation is None else []
    return Imported(folder, checkpoint.read_config(folder), inferred, [*caveats(config), *taken])


def _check_free(out: Path) -> None:
    """An import replaces nothing: a trained checkpoint cannot be had back, and what was measured on it would stay."""
    if out.is_dir() and any(out.iterdir()):
        raise CheckpointError(f"{out}: is not empty; name another folder with --out, or delete it first")
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: is a file; name a folder with --out")


def _fitted(
    file: Path,
    content: Any,
    entry: Published,
    state: StateDict,
    family: str,
    network: str,
    given: dict[str, Any],
) -> tuple[CompletionNetwork, dict[str, Any]]:
    """The network with the file's weights, and the parameters that its shapes showed."""
    checkpoint.build_network(Part(network, {**entry.parameters, **given}), str(file))  # names a wrong parameter
    parameters = infer_parameters(network, entry.parameters, given, state)
    made = checkpoint.build_network(Part(network, parameters), str(file))
    expected = made.state_dict()
    for name in expected.keys() - state.keys():
        if name.endswith("num_batches_tracked"):  # a counter that torch before 0.4.1 did not keep, and nobody reads
            state[name] = torch.zeros_like(expected[name])
    unlike = mismatch(expected, state)
    if unlike is not None:
        raise CheckpointError(
            f"{file}: does not fit {network} of family {family} ({entry.source}): {unlike}; "
            f"where it is that network in another size, give --parameter" + _likeliest(content)
        )
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"{file}: values that are not finite in {shortened(broken)}")
    made.load_state_dict({name: _plain(value) for name, value in state.items()})
    inferred = {name: value for name, value in parameters.items() if {**entry.parameters, **given}.get(name) != value}
    return made.eval(), inferred


def _plain(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def _try(file: Path, network: CompletionNetwork, points: int) -> None:
    cloud = torch.rand(1, points, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        fine = network(cloud).fine
    if not torch.isfinite(fine).all():
        raise CheckpointError(f"{file}: completes a cloud of {points} points with values that are not finite")


def inspect_file(path: str | Path) -> dict[str, Any]:
    """What a person wants to know of somebody's checkpoint file; JSON data.

    Raises:
        CheckpointError: as :func:`completion.importers.files.read_file`.
    """
    path = Path(path)
    content = read_file(path)
    ranked = likenesses(content)
    best = ranked[0] if ranked and ranked[0].names >= _LIKELY else None
    family = (
        best.family if best is not None else next((one for one in FAMILIES if unwrap(content, FAMILIES[one])), None)
    )
    unwrapped = None if family is None else unwrap(content, FAMILIES[family])
    facts: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
    if unwrapped is None:
        return {**facts, "likeliest": "no state dict found", "content": _content(content)}
    weights = [value for name, value in unwrapped.state.items() if not name.endswith("num_batches_tracked")]
    facts["likeliest"] = "none of the networks we know" if best is None else _described(best)
    if best is not None:
        chosen = f"--family {best.family} --network {best.network}"
        facts["import"] = f"grasp-utility checkpoint import {path} {chosen} --out FOLDER"
    facts |= {
        "state_dict": unwrapped.key or "the file itself",
        "tensors": len(unwrapped.state),
        "numbers": sum(value.numel() for value in weights),
        "stored_as": sorted({str(value.dtype).removeprefix("torch.") for value in unwrapped.state.values()}),
        "others": unwrapped.others,
        "ignored": list(unwrapped.ignored),
        "keys": {name: tuple(value.shape) for name, value in unwrapped.state.items()},
    }
    return facts


def _families_of(network: str) -> list[str]:
    return [family for family in FAMILIES if published_entries(family, network)]


def _described(one: Likeness) -> str:
    return (
        f"network {one.network} of family {one.family} ({100 * one.share:.0f} % of tensors agree in name and shape, "
        f"{100 * one.names:.0f} % in name)"
    )


def _likeliest(content: Any) -> str:
    """The end of a message about a file that does not fit."""
    ranked = likenesses(content)
    if not ranked or ranked[0].names < _LIKELY:
        return "; it resembles none of the networks we know"
    best = ranked[0]
    return f"; likeliest: {_described(best)}, --family {best.family} --network {best.network}"


def _content(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"{len(content)} entries: {shortened([str(key) for key in content])}"
    return f"a {type(content).__name__}"


def _card(name: str, config: Mapping[str, Any]) -> str:
    source = config["imported"]
    lines = [
        f"# {name}",
        "",
        f"Point-cloud completion network `{config['network']['name']}`, {config['input_points']} -> "
        f"{config['output_points']} points, trained elsewhere.",
        "",
        f"- imported from `{source['file']}` (sha256 {source['sha256'][:12]}), family `{source['family']}`, as "
        f"{source['published']} holds it",
        f"- clouds: metres, frame `{config['frame']}`, normalised by `{config['normalisation']}` (in training by "
        f"`{config['trained_normalisation']}`), merged by `{config['merge']}`",
        *(f"- note: {caveat}" for caveat in caveats(config)),
        "",
    ]
    return "\n".join(lines)
