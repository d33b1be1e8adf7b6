"""Schedules of loss parameters: values by hand, ends exact, and every refusal with its reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completion.losses import DECLARED
from completion.losses.schedules import check, resolve


def test_values_by_hand() -> None:
    parameters = {
        "epsilon": {"schedule": "linear", "from": 0.01, "to": 0.001},
        "lambda_attr": {"schedule": "cosine", "from": 0.0, "to": 2.0},
        "omega": {"schedule": "constant", "from": 10},
        "other": 3,
        "flag": True,
    }
    at_quarter = resolve(parameters, 0.25)
    assert at_quarter["epsilon"] == pytest.approx(0.00775)
    assert at_quarter["lambda_attr"] == pytest.approx(1 - math.sqrt(0.5))
    assert at_quarter["omega"] == 10 and at_quarter["other"] == 3 and at_quarter["flag"] is True
    assert resolve(parameters, 0.5)["lambda_attr"] == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["linear", "cosine"]),
    start=st.floats(-1e6, 1e6),
    stop=st.floats(-1e6, 1e6),
    share=st.floats(0, 1),
)
def test_ends_are_exact_and_values_lie_between(kind: str, start: float, stop: float, share: float) -> None:
    parameters = {"x": {"schedule": kind, "from": start, "to": stop}}
    assert resolve(parameters, 0.0)["x"] == start and resolve(parameters, 1.0)["x"] == stop
    slack = 1e-9 * (abs(start) + abs(stop))
    assert min(start, stop) - slack <= resolve(parameters, share)["x"] <= max(start, stop) + slack


def test_plain_parameters_pass_untouched() -> None:
    parameters = {"epsilon": 0.002, "rounds": 50}
    assert resolve(parameters, 0.3) == parameters and resolve(parameters, 0.3) is not parameters
    check(parameters, "qal")


@pytest.mark.parametrize("share", [-0.01, 1.01, math.nan])
def test_a_share_outside_the_run_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share of the run"):
        resolve({}, share)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"schedule": "linear", "from": 1.0}, "'to' must be a finite number, got None"),
        ({"schedule": "linear", "to": 1.0}, "'from' must be a finite number"),
        ({"schedule": "step", "from": 1.0, "to": 2.0}, "unknown schedule 'step'"),
        ({"from": 1.0, "to": 2.0}, "unknown schedule None"),
        ({"schedule": "linear", "from": "1e-3", "to": 1.0}, "write 1.0e-3"),
        ({"schedule": "linear", "from": True, "to": 1.0}, "finite number, got True"),
        ({"schedule": "linear", "from": math.inf, "to": 1.0}, "finite number"),
        ({"schedule": "linear", "from": 0.0, "to": 1.0, "until": 3}, "unknown key 'until'"),
        ({"schedule": "constant", "from": 0.0, "to": 1.0}, "does not change"),
    ],
)
def test_bad_schedules_are_refused(value: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check({"epsilon": value}, "qal")
    assert str(caught.value).startswith("epsilon")


def test_only_declared_parameters_follow_a_schedule() -> None:
    line = {"schedule": "linear", "from": 0.0, "to": 1.0}
    assert {"epsilon", "lambda_attr"} <= set(DECLARED["qal"].schedulable)
    check({"epsilon": line, "lambda_attr": line}, "qal")
    with pytest.raises(ValueError, match=r"prediction_mask of qal cannot .*only epsilon, omega, lambda_attr can"):
        check({"prediction_mask": line}, "qal")
    with pytest.raises(ValueError, match="none of its parameters can"):
        check({"weight": line}, "cd_l1")
    check({"anything": line}, "a loss of the user's own")
