"""Every list of published keys and shapes loads strictly into our network, and counts the same parameters.

A list is ``tests/completion/published/<family>-<network>.txt``: comment lines that name repository, commit and file it
was written down from and the number of parameters, then one ``name shape`` a line. Lists are written from reading the
published code, never from our networks.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from completion.networks import NETWORKS, Published

LISTS = sorted((Path(__file__).parents[1] / "published").glob("*.txt"))


def read_list(path: Path) -> tuple[dict[str, tuple[int, ...]], int, str]:
    """Shapes by name, the count of parameters, and all comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = "\n".join(line for line in lines if line.startswith("#"))
    count = re.search(r"parameters:\s*([\d_,]+)", comments)
    assert count is not None, f"{path.name} lacks a comment '# parameters: <number>'"
    shapes = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            name, _, shape = line.partition(" ")
            assert name not in shapes, f"{path.name} names {name} twice"
            shapes[name] = tuple(int(number) for number in re.findall(r"\d+", shape))
    return shapes, int(re.sub(r"[_,]", "", count[1])), comments


def published_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A state dict as the published code would save it; every value different, so that a copy can be told."""
    state, start = {}, 0
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(100_000)
            continue
        size = torch.Size(shape).numel()
        state[name] = torch.arange(start, start + size, dtype=torch.float64).reshape(shape)
        start += size
    return state


def entry(path: Path) -> tuple[type, Published]:
    family, _, name = path.stem.partition("-")
    network = NETWORKS[name]
    assert family in network.published, f"{name} publishes nothing for {family}"
    return network, network.published[family]


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_a_published_state_fits_and_counts_the_same(path: Path) -> None:
    shapes, count, comments = read_list(path)
    network, published = entry(path)
    repository, commit = published.source.split()[:2]
    assert repository in comments and commit.rstrip(",;:")[:7] in comments, "list and Published name another source"
    with torch.device("meta"):  # no time is spent on weights that are replaced
        net = network(**published.parameters)
    state = published_state(shapes)
    net.load_state_dict(published.rename(dict(state)), strict=True, assign=True)
    assert sum(value.numel() for value in net.parameters()) == count

    # Nothing was lost, doubled or made up on the way: every value is there once, in another order at most.
    loaded = [value.flatten() for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")]
    assert bool((torch.cat(loaded).long().bincount() == 1).all())


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_what_a_rename_does_not_know_it_keeps(path: Path) -> None:
    _, published = entry(path)
    stray = {"stray.weight": torch.zeros(3), "another.module.bias": torch.zeros(2)}
    shapes, _, _ = read_list(path)
    renamed = published.rename({**published_state(shapes), **stray})
    assert stray.keys() <= renamed.keys()
    assert published.rename(dict(stray)).keys() == stray.keys()


def test_every_published_network_has_its_list() -> None:
    wanted = {f"{family}-{name}" for name, network in NETWORKS.items() for family in network.published}
    assert wanted == {path.stem for path in LISTS}
