"""Losses as a drop-in: pull the vertices of a sphere mesh onto a shape, once with the Chamfer distance, once with QAL.

    python scripts/example_fit_sphere.py [SHAPE.npy]      (N, 3) points in any unit; a mug made by code if left out

Needs torch and `completion.losses` alone. Prints, per loss, the share of the shape within 0.03 of its diagonal of a
vertex (coverage), and of vertices farther than that from the shape (spurious).
"""

import argparse

import numpy as np
import torch

from completion.losses import LOSSES


def sphere(rings: int = 24, sectors: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices (V, 3) and edges (E, 2) of a grid on a sphere of radius 0.5."""
    theta, phi = torch.meshgrid(
        torch.linspace(0.05, torch.pi - 0.05, rings), torch.arange(sectors) * 2 * torch.pi / sectors, indexing="ij"
    )
    vertices = 0.5 * torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=-1)
    number = torch.arange(rings * sectors).view(rings, sectors)
    around = torch.stack([number, number.roll(1, dims=1)], dim=-1).view(-1, 2)
    along = torch.stack([number[1:], number[:-1]], dim=-1).view(-1, 2)
    return vertices.view(-1, 3), torch.cat([around, along])


def mug(count: int = 2048) -> torch.Tensor:
    """Points (N, 3) on a cylinder's wall and on its handle, half a ring."""
    turn, height = torch.rand(2, count, generator=torch.Generator().manual_seed(0)) * 2 * torch.pi
    wall = torch.stack([0.4 * turn.cos(), 0.4 * turn.sin(), height / 2 / torch.pi - 0.5], dim=1)
    radius = 0.3 + 0.05 * height.cos()
    handle = torch.stack([0.4 + radius * (turn / 2).sin(), 0.05 * height.sin(), radius * (turn / 2).cos()], dim=1)
    return torch.cat([wall[: count * 3 // 4], handle[count * 3 // 4 :]])


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("shape", nargs="?", help=".npy file of points (N, 3)")
parser.add_argument("--steps", type=int, default=100)
arguments = parser.parse_args()
target = torch.from_numpy(np.load(arguments.shape).astype(np.float32)) if arguments.shape else mug()
low, high = target.amin(0), target.amax(0)
target = (target - (low + high) / 2) / (high - low).norm()
vertices, edges = sphere()
for name in ("cd_l1", "qal"):
    moved = vertices.clone().requires_grad_()
    optimiser = torch.optim.Adam([moved], lr=0.01)
    for _ in range(arguments.steps):
        optimiser.zero_grad()
        stretch = (moved[edges[:, 0]] - moved[edges[:, 1]]).square().sum(dim=1).mean()
        (LOSSES[name](moved[None], target[None]).mean() + 2 * stretch).backward()
        optimiser.step()
    table = torch.cdist(moved.detach(), target)
    coverage, spurious = (table.amin(0) <= 0.03).float().mean(), (table.amin(1) > 0.03).float().mean()
    print(f"{name:6} coverage {coverage:.3f} spurious {spurious:.3f}")
