"""Declarations against autograd, and the measure of a loss's pull against a loop over points."""

from __future__ import annotations

import functools
import inspect
import math
import textwrap

import pytest
import torch

from completion import losses
from completion.configuration import ConfigurationError, parse_config
from completion.losses import DECLARED, LOSSES, cd_l1, gradient_magnitude

DISTANCES = (0.005, 0.02, 0.05)


def reference(distance: float, side: int = 5, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """A lattice of spacing 1 and the same points moved by ``distance``, each its own way."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(side, dtype=torch.float64)
    target = torch.cartesian_prod(axis, axis, axis).expand(batch, -1, -1)
    way = torch.randn(target.shape, generator=generator, dtype=torch.float64)
    return target + distance * way / way.norm(dim=-1, keepdim=True), target


def test_every_loss_is_declared() -> None:
    assert list(DECLARED) == list(LOSSES)
    for name, declaration in DECLARED.items():
        assert declaration.reduction in ("mean", "sum")
        parameters = inspect.signature(LOSSES[name]).parameters
        assert set(declaration.schedulable) <= set(parameters)
        own = set(list(parameters)[2:]) - {"prediction_mask", "target_mask"}
        assert all(key in declaration.unit for key in own)
        # The closed form takes the loss's own parameters, with the loss's own defaults.
        scale = inspect.signature(declaration.scale).parameters
        for key in set(scale) - {"distance", "points"}:
            assert scale[key].default == parameters[key].default


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", DECLARED)
def test_the_declared_scale_is_what_autograd_finds(name: str, distance: float) -> None:
    prediction, target = reference(distance)
    # APML spreads a little of each point's mass over the others; all else is exact.
    tolerance = 0.02 if name == "apml" else 1e-5
    declared = DECLARED[name].scale(distance, prediction.shape[1])
    found = gradient_magnitude(LOSSES[name], prediction, target)
    assert found.tolist() == pytest.approx([declared, declared], rel=tolerance)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cd_asymmetric", {"weight": 2.0}),
        ("qal", {"epsilon": 0.03, "omega": 100.0, "lambda_attr": 0.5}),
        ("dcd", {"alpha": 40.0, "lam": 0.5}),
    ],
)
def test_the_declared_scale_follows_the_parameters(name: str, parameters: dict) -> None:
    prediction, target = reference(0.04)
    found = gradient_magnitude(functools.partial(LOSSES[name], **parameters), prediction, target)
    declared = DECLARED[name].scale(0.04, prediction.shape[1], **parameters)
    assert declared != pytest.approx(DECLARED[name].scale(0.04, prediction.shape[1]), rel=0.01)
    assert found.tolist() == pytest.approx([declared, declared], rel=1e-5)


@pytest.mark.parametrize("name", DECLARED)
def test_reduction_means_what_it_says(name: str) -> None:
    """Eight times the points: the pull of a sum grows with them, that of a mean does not."""
    few, many = (gradient_magnitude(LOSSES[name], *reference(0.02, side, batch=1)).item() for side in (4, 8))
    assert many / few == pytest.approx(8.0 if DECLARED[name].reduction == "sum" else 1.0, rel=0.05)


@pytest.mark.parametrize("name", DECLARED)
def test_equal_sizes_are_demanded_where_declared(name: str) -> None:
    prediction, target = reference(0.02, 3)
    if DECLARED[name].equal_sizes:
        with pytest.raises(ValueError, match=r"\(2, 20, 3\) and \(2, 27, 3\)"):
            LOSSES[name](prediction[:, :20], target)
    else:
        assert LOSSES[name](prediction[:, :20], target).isfinite().all()


def test_gradient_magnitude_equals_the_loop_and_leaves_no_trace() -> None:
    generator = torch.Generator().manual_seed(3)
    prediction, target = (torch.rand(3, n, 3, generator=generator, dtype=torch.float64) for n in (12, 17))
    prediction.requires_grad_()
    with torch.no_grad():
        found = gradient_magnitude(cd_l1, prediction, target)
    assert prediction.grad is None and not found.requires_grad
    for b in range(3):
        alone = prediction[b : b + 1].detach().requires_grad_()
        cd_l1(alone, target[b : b + 1]).backward()
        assert found[b].item() == pytest.approx(sum(float(row.norm()) for row in alone.grad[0]))


def test_gradient_magnitude_refuses_a_reduced_loss() -> None:
    with pytest.raises(ValueError, match="one value per sample"):
        gradient_magnitude(lambda p, t: cd_l1(p, t).mean(), torch.rand(2, 5, 3), torch.rand(2, 5, 3))


def test_a_loss_of_ones_own_is_added_as_the_package_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the docstring's own lines."""
    _, _, example = losses.__doc__.partition("of that signature, ::")
    module: dict = {}
    exec(textwrap.dedent(example.partition("and a training file")[0]), module)
    monkeypatch.setitem(LOSSES, "saturating", module["saturating"])  # taken out again afterwards
    prediction, target = reference(0.02)
    assert LOSSES["saturating"](prediction, target).tolist() == pytest.approx([1 - math.exp(-0.2)] * 2)
    assert gradient_magnitude(LOSSES["saturating"], prediction, target).tolist() == pytest.approx(
        [10 * math.exp(-0.2)] * 2
    )
    content = {"pairs": ["x.npz"], "steps": 1, "network": {"name": "pcn"}}
    part = {"name": "saturating", "parameters": {"scale": {"schedule": "linear", "from": 0.1, "to": 0.05}}}
    assert parse_config({**content, "loss": part}).loss.name == "saturating"
    with pytest.raises(ConfigurationError, match="unknown parameter 'scales'"):
        parse_config({**content, "loss": {"name": "saturating", "parameters": {"scales": 0.1}}})
