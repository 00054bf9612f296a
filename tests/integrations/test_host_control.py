"""What the control of all hosts is made of: what was seen, when it moves, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import nn

import noisynet
from noisynet.control import Linear, scale
from noisynet.integrations.control import HostControl, RecentObservations
from noisynet.integrations.spaces import check_space
from noisynet.layers.outputs import outputs_of_model


def network() -> nn.Module:
    torch.manual_seed(2)
    return noisynet.noisify(nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)))


def begun(net: nn.Module, schedule: Any = None, **options: Any) -> HostControl:
    control = HostControl(schedule, **options)

    def outputs(observations: Any, generator: torch.Generator) -> Any:
        return outputs_of_model(net, observations, draws=control.draws, generator=generator)

    control.begin((net,), outputs)
    return control


def test_the_last_rows_are_kept_as_copies() -> None:
    seen = RecentObservations(5)
    memory = torch.zeros(2, 1)
    for number in range(4):
        memory.fill_(number)
        seen.add(memory)
        assert len(seen) == min(2 * number + 2, 6)
    assert seen.last().flatten().tolist() == [1, 2, 2, 3, 3]
    parts = RecentObservations(3)
    for number in range(3):
        parts.add({"a": torch.full((2, 1), number), "b": (torch.full((2,), number), None)})
    last = parts.last()
    assert last["a"].flatten().tolist() == last["b"][0].tolist() == [1, 2, 2]


def test_a_schedule_sets_the_scale_from_the_first_step_on() -> None:
    net = network()
    control = begun(net, Linear(1.0, 0.2, until=100))
    assert scale(net) == 1.0
    assert control.move_by(50, RecentObservations(4)) == {"noise/scale": pytest.approx(0.6)}
    assert scale(net) == control.scale == pytest.approx(0.6)
    assert "linear schedule, 1 to 0.2" in noisynet.doctor(net)["control"].message


def test_a_target_moves_when_it_is_due_and_something_was_seen() -> None:
    net, seen = network(), RecentObservations(32)
    control = begun(net, effective_epsilon=0.05, every=10)
    assert control.move_by(20, seen) == {}
    seen.add(torch.randn(32, 5))
    moved = [control.move_by(step, seen) for step in (20, 25, 29, 30, 41)]
    assert [bool(one) for one in moved] == [True, False, False, True, True]
    assert moved[-1]["noise/scale"] == scale(net) != 1
    assert 0 <= moved[-1]["noise/measured"] <= 1
    assert noisynet.doctor(net)["control"].message.startswith("target, effective ε 0.05: the scale")


def test_a_host_that_counts_anew_is_followed() -> None:
    seen = RecentObservations(32)
    seen.add(torch.randn(32, 5))
    control = begun(network(), effective_epsilon=0.05, every=10)
    assert control.move_by(100, seen)
    # Another run of the host: its first step, and where the next measurement is due.
    assert [bool(control.move_by(step, seen)) for step in (1, 10, 11)] == [False, False, True]


def test_a_state_goes_on() -> None:
    torch.manual_seed(0)
    seen = RecentObservations(32)
    seen.add(torch.randn(32, 5))
    whole = begun(network(), effective_epsilon=0.2, every=10)
    scales = [whole.move_by(step, seen)["noise/scale"] for step in range(10, 70, 10)]
    half = begun(network(), effective_epsilon=0.2, every=10)
    for step in (10, 20, 30):
        half.move_by(step, seen)
    other = begun(network(), effective_epsilon=0.2, every=10)
    other.load_state_dict(half.state_dict())
    assert other.move_by(35, seen) == {}
    assert [other.move_by(step, seen)["noise/scale"] for step in (40, 50, 60)] == scales[3:]
    scheduled = begun(network(), Linear(1, 0.1, until=10))
    scheduled.load_state_dict({"scale": 0.3, "measurements": 0, "moved_at": 0})
    assert scheduled.scale == 0.3


def test_what_is_refused() -> None:
    for options in ({}, {"schedule": Linear(1, 0.1, 10), "effective_epsilon": 0.1}):
        with pytest.raises(ValueError, match="NoiseControl: expected one of schedule"):
            HostControl(**options)
    slip: Any = 0.05
    with pytest.raises(TypeError, match=r"schedule: got 0\.05, expected .* effective_epsilon="):
        HostControl(slip)
    for wrong in (0.0, 1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"effective_epsilon: got .*, expected a"):
            HostControl(effective_epsilon=wrong)
    for name in ("every", "observations"):
        with pytest.raises(ValueError, match=f"NoiseControl: {name}: got 0, expected a whole"):
            HostControl(effective_epsilon=0.1, **{name: 0})
    with pytest.raises(ValueError, match="draws: got 0, expected a whole number of at least 1"):
        HostControl(effective_epsilon=0.1, draws=0)
    with pytest.raises(ValueError, match="got Linear, which has no noisy layer"):
        HostControl(effective_epsilon=0.1).begin((nn.Linear(2, 2),), lambda *_: None)
    control = begun(network(), lambda step: math.nan if step else 1.0)
    with pytest.raises(ValueError, match="scale: got nan, expected a finite number of at least 0"):
        control.move_by(1, RecentObservations(1))


@pytest.mark.parametrize(
    ("discrete", "options", "expected"),
    [
        (True, {"effective_epsilon": 0.1}, None),
        (
            True,
            {"action_deviation": 0.2},
            "action deviation 0.2 for Some actions, expected effecti",
        ),
        (False, {"action_deviation": 0.2}, None),
        (False, {"effective_epsilon": 0.1}, "effective ε 0.1 for Some actions, expected action_de"),
        (None, {"effective_epsilon": 0.1}, "effective ε 0.1 for Some actions, expected a schedule"),
        (
            None,
            {"action_deviation": 0.2},
            "action deviation 0.2 for Some actions, expected a sched",
        ),
        (None, {"schedule": Linear(1, 0.1, 10)}, None),
    ],
)
def test_a_goal_fits_the_actions(
    discrete: bool | None, options: dict[str, Any], expected: str | None
) -> None:
    control = HostControl(**options)
    if expected is None:
        control.check_actions("Some", discrete=discrete)
        return
    with pytest.raises(TypeError, match=f"^NoiseControl: got {expected}"):
        control.check_actions("Some", discrete=discrete)


@pytest.mark.parametrize(
    ("actions", "fitting"),
    [
        (spaces.Discrete(3), "effective_epsilon"),
        (spaces.Box(-1, 1, (2,)), "action_deviation"),
        (spaces.MultiDiscrete([2, 3]), None),
    ],
)
def test_a_goal_fits_the_space(actions: Any, fitting: str | None) -> None:
    for option in ("effective_epsilon", "action_deviation"):
        options: dict[str, Any] = {option: 0.1}
        control = HostControl(**options)
        if option == fitting:
            check_space(control, actions)
            continue
        expected = f"for {type(actions).__name__} actions, expected {fitting or 'a schedule'}"
        with pytest.raises(TypeError, match=expected):
            check_space(control, actions)
