"""QAL's gradient, written out by hand, has the bits of what autograd makes of its formula; and its derivative."""

from __future__ import annotations

import pytest
import torch

from completion.losses import qal
from completion.losses.qal import _QAL, _formula


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parameters", [(0.001, 10.0, 1.0), (0.01, 100.0, 0.5), (0.0, 1.0, 0.0)])
def test_value_and_gradient_have_the_formulas_bits(dtype: torch.dtype, parameters: tuple[float, float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    dist_a, dist_b = (torch.rand(3, k, generator=generator, dtype=dtype) for k in (70, 1000))
    dist_a[:, 0] = 0
    apart = (torch.rand(3, 1000, generator=generator) < 0.4).to(dtype)
    weight = torch.rand(3, generator=generator, dtype=dtype)
    dist_a.requires_grad_(), dist_b.requires_grad_()
    ours, formula = _QAL.apply(dist_a, dist_b, apart, *parameters), _formula(dist_a, dist_b, apart, *parameters)
    assert torch.equal(ours, formula)
    by_hand, by_autograd = (torch.autograd.grad((v * weight).sum(), (dist_a, dist_b)) for v in (ours, formula))
    assert torch.equal(by_hand[0], by_autograd[0]) and torch.equal(by_hand[1], by_autograd[1])


def test_second_derivative() -> None:
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.rand(2, k, 3, generator=generator, dtype=torch.float64).requires_grad_() for k in (5, 4))
    assert torch.autograd.gradgradcheck(qal, (a, b))
