"""TopNet: structural point cloud decoder (Tchapmi et al., CVPR 2019): a tree that grows from one code to the cloud.

Every node holds a short feature; a small network, shared within a level, makes a node's children from its feature and
the code of the whole cloud. The encoder is PCN's. Two lines of public code differ in details, all parameters here:
VRCNet's follows the authors (six levels, a wide first layer in each node network, batch norm in the tree but not at
its leaves), PoinTr's has eight levels without that layer and with batch norm everywhere. As in the encoder, the code's
share of a node network's first layer is computed once a cloud.

Batch norm at the root sees one row a cloud: training needs batches of two clouds or more, evaluation does not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from completion.networks._rename import columns, pointwise, renamed
from completion.networks.interface import Completion, CompletionNetwork, Published, StateDict
from completion.networks.pcn import PointEncoder, encoder_from_pointr, normalised

_CHILDREN = {2: (32, 64), 4: (4, 8, 8, 8), 6: (2, 4, 4, 4, 4, 4), 8: (2, 2, 2, 2, 2, 4, 4, 4)}


def children_of(output_points: int, levels: int) -> tuple[int, ...]:
    """The authors' trees: those of 2048 points by their levels; twice the points double the last smallest number.

    Raises:
        ValueError: no such tree.
    """
    doublings = round(math.log2(max(1, output_points) / 2048))
    if levels not in _CHILDREN or doublings < 0 or 2048 << doublings != output_points:
        raise ValueError(
            f"no tree of {levels} levels and {output_points} points: levels are {', '.join(map(str, _CHILDREN))} and "
            f"points 2048, 4096, 8192, …; or name the numbers of children"
        )
    tree = list(_CHILDREN[levels])
    for _ in range(doublings):
        last_smallest = max(i for i, count in enumerate(tree) if count == min(tree))
        tree[last_smallest] *= 2
    return tuple(tree)


def _from_pointr(state: StateDict) -> StateDict:
    levels = 2 + max((int(k.split(".")[1]) for k in state if k.startswith("feature_layers.")), default=-1) + 1
    names = {"root_layer.0": "root.0", "root_layer.1": "root_norms.0", "root_layer.3": "root.1"}
    names |= {"root_layer.4": "root_norms.1", "root_layer.6": "root.2"}
    for level in range(levels - 1):
        theirs = "leaf_layer" if level == levels - 2 else f"feature_layers.{level}"
        for i in range(4):
            names[f"{theirs}.{3 * i}"] = f"nodes.{level}.layers.{i}"
            names[f"{theirs}.{3 * i + 1}"] = f"nodes.{level}.norms.{i}"
    state = encoder_from_pointr(state, names)
    code = len(state["encoder.conv4.weight"]) if "encoder.conv4.weight" in state else 0
    for level in range(levels - 1):  # (code, node) there, (node, code) here
        state = columns(state, f"nodes.{level}.layers.0.weight", (code, -1), (1, 0))
    return state


def _from_mvp(state: StateDict) -> StateDict:
    names = {
        "encoder.conv1.model.conv1d_1": "encoder.conv1",
        "encoder.conv1.output_layer": "encoder.conv2",
        "encoder.conv2.model.conv1d_1": "encoder.conv3",
        "encoder.conv2.output_layer": "encoder.conv4",
        "decoder.mlp.output_layer": "root.2",
    }
    for i in range(2):
        names |= {f"decoder.mlp.model.fc_{i + 1}": f"root.{i}", f"decoder.mlp.model.bn_{i + 1}": f"root_norms.{i}"}
    for level in range(7):
        theirs, ours = f"decoder.mlp_conv_list.{level}.mlp_conv", f"nodes.{level}"
        names[f"{theirs}.output_layer"] = f"{ours}.layers.4"
        for i in range(4):
            names[f"{theirs}.model.conv1d_{i + 1}"] = f"{ours}.layers.{i}"
            names[f"{theirs}.model.bn_{i + 1}"] = f"{ours}.norms.{i}"
    return renamed(pointwise(state), names)


class TopNet(CompletionNetwork):
    """Tree decoder. Defaults are PoinTr's: eight levels, 6,039,169 parameters at 16,384 points.

    Args:
        output_points: 2048, 4096, 8192, 16384 (and further doublings), or the product of ``children``.
        levels: 2, 4, 6 or 8; the authors' tree of so many levels is taken.
        children: instead of that tree: how many children the root has, then each node of the next level, and so on.
        node_features: width of a node's feature.
        encoder_channels: widths of the encoder's four point-wise layers.
        root_channels: widths of the two hidden layers that make the first nodes from the code.
        node_divisors: hidden widths of the node networks, as divisors of their input width.
        encoder_norm: batch norm in the encoder.
        leaf_norm: batch norm in the last level's node network too.
    """

    tiny = {  # noqa: RUF012
        "output_points": 64,
        "children": (2, 4, 8),
        "node_features": 4,
        "encoder_channels": (8, 12, 16, 28),
        "root_channels": (16, 12),
    }
    published = {  # noqa: RUF012
        "mvp": Published(
            parameters={
                "output_points": 2048,
                "levels": 6,
                "node_divisors": (1, 2, 4, 8),
                "encoder_norm": False,
                "leaf_norm": False,
            },
            source="paul007pl/VRCNet cdd846f6, models/topnet.py; cfgs/topnet.yaml",
            input_points=2048,
            rename=_from_mvp,
        ),
        "pointr": Published(
            parameters={},
            source="yuxumin/PoinTr 265c8ff2, models/TopNet.py; cfgs/PCN_models/TopNet.yaml",
            input_points=2048,
            rename=_from_pointr,
        ),
    }

    def __init__(
        self,
        output_points: int = 16384,
        levels: int = 8,
        children: Sequence[int] | None = None,
        node_features: int = 8,
        encoder_channels: Sequence[int] = (128, 256, 512, 1024),
        root_channels: Sequence[int] = (256, 64),
        node_divisors: Sequence[int] = (2, 4, 8),
        encoder_norm: bool = True,
        leaf_norm: bool = True,
    ) -> None:
        super().__init__()
        tree = children_of(output_points, levels) if children is None else tuple(children)
        if len(tree) < 2 or math.prod(tree) != output_points:
            raise ValueError(
                f"children {tree} make {math.prod(tree)} points, not {output_points}; a tree has two levels"
            )
        self.output_points = output_points
        self.children_of_root, self.node_features = tree[0], node_features
        code = encoder_channels[-1]
        self.encoder = PointEncoder(encoder_channels, encoder_norm)
        widths = [code, *root_channels]
        self.root = nn.ModuleList(
            nn.Linear(i, o) for i, o in zip(widths, [*root_channels, node_features * tree[0]], strict=True)
        )
        self.root_norms = nn.ModuleList(nn.BatchNorm1d(width) for width in root_channels)
        last = len(tree) - 1
        self.nodes = nn.ModuleList(
            _NodeNetwork(
                node_features,
                code,
                3 if level == last else node_features,
                count,
                node_divisors,
                leaf_norm or level < last,
            )
            for level, count in enumerate(tree)
            if level > 0
        )

    def forward(self, partial: Tensor) -> Completion:
        """Complete ``partial (B, N, 3)``, network frame; the cloud lies within (-1, 1)³, being a tanh."""
        code = self.encoder(partial)  # (B, code)
        hidden = code
        for layer, norm in zip(self.root, self.root_norms, strict=False):
            hidden = F.relu(norm(layer(hidden)))
        hidden = torch.tanh(self.root[-1](hidden))
        tree = hidden.view(-1, self.node_features, self.children_of_root).transpose(1, 2)  # (B, first children, F)
        for node in self.nodes:
            tree = torch.tanh(node(tree, code))  # (B, nodes · children, F), at last (B, M, 3)
        return Completion((tree.contiguous(),))


class _NodeNetwork(nn.Module):
    """The children of every node of one level: ``(B, P, F)``, ``(B, code)`` -> ``(B, P · count, channels)``."""

    def __init__(
        self, node: int, code: int, channels: int, count: int, divisors: Sequence[int], batch_norm: bool
    ) -> None:
        super().__init__()
        self.count, self.channels = count, channels
        hidden = [(node + code) // divisor for divisor in divisors]
        widths = [node + code, *hidden, channels * count]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in hidden) if batch_norm else None

    def forward(self, nodes: Tensor, code: Tensor) -> Tensor:
        first, *others = self.layers
        assert isinstance(first, nn.Linear)
        of_node, of_code = first.weight.split([nodes.shape[2], code.shape[1]], dim=1)
        hidden = F.linear(nodes, of_node) + F.linear(code, of_code, first.bias)[:, None]  # (B, P, H)
        for i, layer in enumerate(others):
            hidden = layer(F.relu(normalised(self.norms[i] if self.norms is not None else None, hidden)))
        batch, parents, _ = hidden.shape
        family = hidden.view(batch, parents, self.channels, self.count)
        return family.permute(0, 3, 1, 2).reshape(batch, self.count * parents, self.channels)  # first children first
