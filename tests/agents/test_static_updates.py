"""Updates from buffers that stay: those of `QLearning.update`, bit for bit, without a look."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from noisynet import held, noisy_layers
from noisynet.agents import LossNotFinite, QLearning, StaticUpdates
from noisynet.assemble.agents import step_size
from noisynet.replay import Batch

from .small_agents import SHAPE, built, make_agent, make_batch, settings

FIRST = np.zeros(8, bool)


def assert_same_state(one: QLearning, other: QLearning) -> None:
    arrays, plain = one.state()
    others, other_plain = other.state()
    assert plain == other_plain
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, others[name]), name


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"noise_kind": "independent"},
        {"noise_in": "all", "draw_per_environment": False},
        {"redraw": "step"},
        {"redraw": "episode"},
        {"double": False, "dueling": False, "loss": "squared"},
        {"exploration": "epsilon"},
        {"exploration": "both"},
        {"atoms": 11, "value_min": -3.0, "value_max": 3.0},
        {"quantiles": 4, "target_quantiles": 5, "acting_quantiles": 3, "dueling": True},
        {"munchausen": 0.9, "entropy_temperature": 0.03},
        {"quantiles": 4, "munchausen": 0.9, "entropy_temperature": 0.03},
        {"optimizer": "rmsprop"},
        {"optimizer": "rmsprop", "rmsprop_centred": False, "max_gradient_norm": None},
        {"max_gradient_norm": 0.01},
        {"final_learning_rate": 0.0, "warmup_steps": 150, "steps": 200},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_they_are_the_plain_updates_bit_for_bit(overrides: dict[str, Any], weighted: bool) -> None:
    chosen = settings(**overrides)
    plain, static = built(chosen), built(chosen)
    size = step_size(chosen)
    updates = StaticUpdates(static, size(0))
    losses: list[float] = []
    observation = np.random.Generator(np.random.PCG64(3)).normal(size=(8, *SHAPE))
    first = FIRST.copy()
    for number in range(9):
        first[number % 8] = number % 2
        actions = [
            agent.act(observation.astype(np.float32), 10**6, first) for agent in (plain, static)
        ]
        assert np.array_equal(*actions)
        learned = plain.update(make_batch(number, weighted), size(4 * number))
        updates.update(make_batch(number, weighted), size(4 * number))
        losses.append(learned.loss)
        assert np.array_equal(learned.errors, updates.errors())
        if number == 4:
            for agent in (plain, static):
                agent.copy_to_target()
            assert updates.losses() == losses
    assert updates.losses() == losses[5:]
    assert updates.losses() == []
    assert_same_state(plain, static)


def test_more_updates_than_are_kept_lose_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisynet.agents.device_updates._KEPT", 4)
    plain, static = make_agent(), StaticUpdates(make_agent())
    losses = [plain.update(make_batch(number)).loss for number in range(11)]
    for number in range(11):
        static.update(make_batch(number))
    assert static.losses() == losses


def test_a_restored_agent_goes_on_as_the_plain_one() -> None:
    origin = make_agent()
    for number in range(3):
        origin.update(make_batch(number))
    arrays, plain_state = origin.state()
    plain, static = make_agent(), make_agent()
    for agent in (plain, static):
        agent.restore(arrays, plain_state)
    updates = StaticUpdates(static)
    for number in range(3, 6):
        plain.update(make_batch(number))
        updates.update(make_batch(number))
    assert_same_state(plain, static)


def test_an_agent_that_is_restored_afterwards_is_refused() -> None:
    agent = make_agent()
    updates = StaticUpdates(agent)
    updates.update(make_batch(0))
    arrays, plain_state = agent.state()
    agent.restore(arrays, plain_state)
    with pytest.raises(RuntimeError, match="restored after its StaticUpdates were made"):
        updates.update(make_batch(1))
    StaticUpdates(agent).update(make_batch(1))
    assert agent.updates == 2


# What a graph needs


class Watch(TorchDispatchMode):
    """Note what would make the host wait for a device, or depend on what lies there."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in self.WAITS:
            self.waited.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"noise_kind": "independent"},
        {"atoms": 11},
        {"exploration": "epsilon"},
        {"double": False},
        {"quantiles": 4},
        {"quantiles": 4, "munchausen": 0.9, "entropy_temperature": 0.03},
    ],
    ids=str,
)
def test_an_update_never_waits_for_the_device(overrides: dict[str, Any]) -> None:
    static = StaticUpdates(make_agent(**overrides))
    static.update(make_batch(0))
    with Watch() as watch:
        static.update(make_batch(1))
    assert watch.calls > 20
    assert watch.waited == []
    # The watch sees it where it happens: a plain update looks at its loss and its norm.
    with Watch() as watch:
        make_agent(**overrides).update(make_batch(1))
    assert watch.waited.count("_local_scalar_dense") >= 2


def test_everything_that_is_read_and_written_stays_where_it_is() -> None:
    agent = make_agent()
    static = StaticUpdates(agent)
    static.update(make_batch(0))

    def places() -> list[int]:
        noise = [layer.noise_state.held for layer in noisy_layers(agent.online).values()]
        states = [value for state in agent.optimizer.state.values() for value in state.values()]
        kept = [getattr(static._batch, field.name) for field in fields(Batch)]
        batch = [value for value in kept if isinstance(value, torch.Tensor)]
        own = static._record, static._errors
        every = [*agent.online.parameters(), *noise, *states, *batch, *own]
        return [one.data_ptr() for one in every if one is not None]

    before, drawn = places(), held(agent.online)
    for number in range(1, 4):
        static.update(make_batch(number))
        static.losses()
        agent.copy_to_target()
    assert places() == before
    after = held(agent.online)
    assert drawn is not None
    assert after is not None
    assert not any(torch.equal(*pair) for pair in zip(drawn.flats, after.flats, strict=True))


def test_tensors_that_lie_there_already_are_used_where_they_lie() -> None:
    plain, static = make_agent(), make_agent()
    updates = StaticUpdates(static)
    there = make_batch(0).to("cpu")
    for seed in range(3):
        fresh = make_batch(seed)
        for name in ("observation_tm1", "action_tm1", "return_t", "discount_t", "observation_t"):
            getattr(there, name).copy_(torch.from_numpy(getattr(fresh, name)))
        updates.update(there)
        plain.update(fresh)
    assert_same_state(plain, static)


def test_a_batch_of_another_size_is_refused() -> None:
    static = StaticUpdates(make_agent())
    static.update(make_batch(0))
    with pytest.raises(ValueError, match=r"got shape \(17, 4\), expected \(16, 4\)"):
        static.update(make_batch(1, size=17))
    with pytest.raises(ValueError, match=r"weights: got shape \(16,\), expected None"):
        static.update(make_batch(1, weighted=True))


# A loss that is no number


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_is_told_later_and_nothing_is_learned_from_it(
    optimizer: str, value: float
) -> None:
    plain, static = make_agent(optimizer=optimizer), make_agent(optimizer=optimizer)
    updates = StaticUpdates(static)
    for number in range(2):
        plain.update(make_batch(number))
        updates.update(make_batch(number))
    broken = make_batch(2)
    broken.return_t[3] = value
    with pytest.raises(LossNotFinite) as expected:
        plain.update(broken)
    updates.update(broken)
    for number in range(3, 6):
        updates.update(make_batch(number))
    with pytest.raises(LossNotFinite) as caught:
        updates.losses()
    assert str(caught.value) == str(expected.value)
    assert static.updates == plain.updates == 2
    for one, other in zip(plain.online.parameters(), static.online.parameters(), strict=True):
        assert torch.equal(one, other)
    if optimizer == "adam":
        for parameter, other in zip(
            plain.online.parameters(), static.online.parameters(), strict=True
        ):
            theirs = static.optimizer.state[other]
            for name, kept in plain.optimizer.state[parameter].items():
                assert torch.equal(kept, theirs[name]), name
    # It is told once: the state can then be kept, and who goes on learns again.
    assert len(updates.losses()) == 2
    before = [one.clone() for one in static.online.parameters()]
    updates.update(make_batch(6))
    assert static.updates == 3
    assert not any(
        torch.equal(*pair) for pair in zip(before, static.online.parameters(), strict=True)
    )


def test_errors_that_are_no_numbers_are_never_told_as_such() -> None:
    """A prioritised replay would refuse them, and would not say why."""
    updates = StaticUpdates(make_agent())
    broken = make_batch(0)
    broken.return_t[3] = np.nan
    updates.update(broken)
    with pytest.raises(LossNotFinite, match="the loss became nan at update 1"):
        updates.errors()


def test_a_gradient_that_is_no_number_is_named_as_such() -> None:
    plain, static = make_agent(loss="squared"), make_agent(loss="squared")
    updates = StaticUpdates(static)
    batch = make_batch(0)
    batch.observation_tm1[:] = 1e-3
    batch.return_t[:] = 1e18
    batch.observation_tm1[0] = 1e25
    messages = []
    for act in (lambda: plain.update(batch), lambda: (updates.update(batch), updates.losses())):
        with pytest.raises(LossNotFinite) as caught:
            act()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_the_first_step_size_is_the_optimizer_s_unless_it_is_given() -> None:
    plain, static = make_agent(), make_agent()
    updates = StaticUpdates(static)
    for number, size in enumerate((None, 3e-4, None, 1e-2)):
        plain.update(make_batch(number), size)
        updates.update(make_batch(number), size)
        wanted = plain.optimizer.param_groups[0]["lr"]
        assert float(static.optimizer.param_groups[0]["lr"]) == wanted
    assert_same_state(plain, static)
    assert float(StaticUpdates(make_agent(), 5e-5)._step_size) == 5e-5
