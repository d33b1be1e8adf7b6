"""QAL, the quality-aware loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from completion.losses.precision import at_least_float32
from completion.losses.reduction import Mask, masked_mean
from completion.nearest import Neighbours, nearest_neighbours


def qal(
    prediction: Tensor,
    target: Tensor,
    *,
    epsilon: float = 0.001,
    omega: float = 10.0,
    lambda_attr: float = 1.0,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
) -> Tensor:
    """Quality-aware loss (arXiv 2511.17824): coverage-weighted distances plus an attraction to uncovered targets.

    With σ(d) = sigmoid(ω(ε − d)) and w(d) = 1 − (σ(d) − ½)::

        L_cov  = mean_a[w(d_a)·d_a] + mean_b[w(d_b)·d_b]
        L_attr = mean over all M target points of m(b)·σ(d_b)·d_b
        L      = L_cov + lambda_attr · L_attr

    m(b) is 1 for a target point that is the nearest target of no prediction (by assignment, no threshold); it carries
    no gradient, everything else does. The factor σ in L_attr is in the authors' code, not in their summary.

    Args:
        prediction: ``(B, N, 3)``.
        target: ``(B, M, 3)``.
        epsilon: margin ε, in the unit of the clouds.
        omega: steepness ω, per unit.
        lambda_attr: weight of the attraction.
        prediction_mask, target_mask: ``(B, N)`` and ``(B, M)`` bool, False where a point is padding.

    Returns:
        ``(B,)``.
    """
    near = nearest_neighbours(*at_least_float32(prediction, target), prediction_mask, target_mask)
    apart = uncovered(near, prediction_mask)
    if prediction_mask is None and target_mask is None:
        return _QAL.apply(near.dist_a, near.dist_b, apart, epsilon, omega, lambda_attr)
    return _formula(near.dist_a, near.dist_b, apart, epsilon, omega, lambda_attr, prediction_mask, target_mask)


def _formula(
    dist_a: Tensor,
    dist_b: Tensor,
    apart: Tensor,
    epsilon: float,
    omega: float,
    lambda_attr: float,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
) -> Tensor:
    """The loss ``(B,)`` of distances ``(B, N)`` and ``(B, M)``; ``apart (B, M)`` is m(b)."""
    sigma_a = torch.sigmoid(omega * (epsilon - dist_a))
    sigma_b = torch.sigmoid(omega * (epsilon - dist_b))
    coverage = masked_mean((1.5 - sigma_a) * dist_a, prediction_mask)
    coverage = coverage + masked_mean((1.5 - sigma_b) * dist_b, target_mask)
    attraction = masked_mean(apart * sigma_b * dist_b, target_mask)
    return coverage + lambda_attr * attraction


class _QAL(torch.autograd.Function):
    """:func:`_formula` without masks, its gradient by hand: a third of the passes over memory that autograd makes.

    Operations and their order are autograd's, so that value and gradient have the same bits as the formula's.
    """

    @staticmethod
    def forward(
        ctx: Any, dist_a: Tensor, dist_b: Tensor, apart: Tensor, epsilon: float, omega: float, lambda_attr: float
    ) -> Tensor:
        sigma_a = (epsilon - dist_a).mul_(omega).sigmoid_()
        sigma_b = (epsilon - dist_b).mul_(omega).sigmoid_()
        ctx.save_for_backward(dist_a, dist_b, apart, sigma_a, sigma_b)
        ctx.parameters = epsilon, omega, lambda_attr
        coverage = (1.5 - sigma_a).mul_(dist_a).mean(dim=1) + (1.5 - sigma_b).mul_(dist_b).mean(dim=1)
        return coverage + lambda_attr * (apart * sigma_b).mul_(dist_b).mean(dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dist_a, dist_b, apart, sigma_a, sigma_b = ctx.saved_tensors
        epsilon, omega, lambda_attr = ctx.parameters
        if torch.is_grad_enabled():  # create_graph: torch derives the formula, once and again
            value = _formula(dist_a, dist_b, apart, epsilon, omega, lambda_attr)
            return *torch.autograd.grad(value, (dist_a, dist_b), grads, create_graph=True), None, None, None, None
        grad = grads[0][:, None]
        # d of a mean, by (1.5 − σ)·d: the weight itself, and σ' = −ω·σ·(1 − σ) where d moves the weight.
        share_a = grad / dist_a.shape[1]
        slope_a = (dist_a * share_a).mul_(1 - sigma_a).mul_(sigma_a).mul_(omega)
        out_a = (1.5 - sigma_a).mul_(share_a).add_(slope_a)
        # The same of the target's side, and of m·σ·d.
        share_b, pull = grad / dist_b.shape[1], grad * lambda_attr / dist_b.shape[1]
        slope_b = (dist_b * share_b).sub_((dist_b * pull).mul_(apart)).mul_(1 - sigma_b).mul_(sigma_b).mul_(omega)
        out_b = (apart * sigma_b).mul_(pull).add_((1.5 - sigma_b).mul_(share_b)).add_(slope_b)
        return out_a, out_b, None, None, None, None


def uncovered(near: Neighbours, prediction_mask: Mask = None) -> Tensor:
    """``(B, M)``: 1 where a point of b is the nearest of no (unpadded) point of a, else 0; without gradient."""
    mask = torch.ones_like(near.dist_b, requires_grad=False)
    if prediction_mask is None:
        return mask.scatter_(1, near.index_a, 0.0)
    # Padded predictions point at target 0 without covering it.
    covered = torch.zeros_like(mask).scatter_add_(1, near.index_a, prediction_mask.to(mask.dtype))
    return (covered == 0).to(mask.dtype)
