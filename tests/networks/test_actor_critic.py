"""The actor-critic's head, core and network."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from noisynet import NoisyLSTMCell, hold, noisy_layers
from noisynet.layers import NoisyLinear
from noisynet.networks import (
    ActorCriticHead,
    ActorCriticNetwork,
    MLPTorso,
    NoiseSettings,
    RecurrentCore,
    build_actor_critic_network,
)

TIME, ROWS, SIZE = 5, 3, 4


def test_the_head_gives_logits_and_a_value_each_from_one_layer() -> None:
    head = ActorCriticHead(6, 3, nn.Linear)
    features = torch.randn(TIME, ROWS, 6)
    logits, value = head(features)
    torch.testing.assert_close(logits, features @ head.policy.weight.T + head.policy.bias)
    wanted = (features @ head.value.weight.T + head.value.bias).squeeze(-1)
    torch.testing.assert_close(value, wanted)
    noisy = ActorCriticHead(6, 3, partial(NoisyLinear, noise="independent"))
    assert sorted(noisy_layers(noisy)) == ["policy", "value"]


def test_the_head_computes_in_full_precision_under_autocast() -> None:
    head = ActorCriticHead(6, 3, nn.Linear)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, value = head(torch.randn(2, 6).bfloat16())
    assert logits.dtype == value.dtype == torch.float32


@pytest.mark.parametrize("cell", [nn.LSTMCell, NoisyLSTMCell])
def test_the_core_is_its_cell_step_by_step_and_forgets_where_an_episode_begins(
    cell: type[nn.LSTMCell],
) -> None:
    core = RecurrentCore(cell(SIZE, 6))
    if cell is NoisyLSTMCell:
        hold(core, rows=ROWS)
    features = torch.randn(TIME, ROWS, SIZE)
    first = torch.zeros(TIME, ROWS, dtype=torch.bool)
    first[2, 1] = True
    begin = (torch.randn(ROWS, 6), torch.randn(ROWS, 6))
    outputs, (hidden, memory) = core(features, first, begin)
    state = begin
    for t in range(TIME):
        if t == 2:
            state = tuple(one.clone() for one in state)
            for one in state:
                one[1] = 0
        state = core.cell(features[t], state)
        torch.testing.assert_close(outputs[t], state[0])
    torch.testing.assert_close((hidden, memory), tuple(state))
    # In one go, or in two with the state carried over: the same.
    early, state = core(features[:3], first[:3], begin)
    late, _ = core(features[3:], first[3:], state)
    torch.testing.assert_close(torch.cat([early, late]), outputs)
    assert all(not one.any() for one in core.initial_state(2))


def test_the_network_joins_its_parts_with_and_without_a_core() -> None:
    observation = torch.randn(TIME, ROWS, SIZE)
    first = torch.zeros(TIME, ROWS, dtype=torch.bool)
    torso, hidden = MLPTorso((SIZE,), [7]), nn.Linear(7, 6)
    head = ActorCriticHead(6, 2, nn.Linear)
    plain = ActorCriticNetwork(torso, hidden, None, head)
    assert plain.initial_state(ROWS) is None
    logits, value, state = plain(observation, first, None)
    assert state is None
    wanted = head(hidden(torso(observation)).relu())
    torch.testing.assert_close((logits, value), wanted)
    core = RecurrentCore(nn.LSTMCell(6, 6))
    recurrent = ActorCriticNetwork(torso, hidden, core, head)
    begin = recurrent.initial_state(ROWS)
    assert begin is not None
    logits, value, state = recurrent(observation, first, begin)
    outputs, after = core(hidden(torso(observation)).relu(), first, begin)
    torch.testing.assert_close((logits, value), head(outputs))
    torch.testing.assert_close(state, after)


@pytest.mark.parametrize(
    ("where", "noisy", "expected"),
    [
        ("last", ["head.policy", "head.value"], 136.22743280400755),
        ("head", ["head.policy", "head.value", "hidden"], 161.68327649106504),
        (
            "all",
            ["core.cell", "head.policy", "head.value", "hidden", "torso.layers.0"],
            193.72071401943685,
        ),
    ],
)
def test_the_noise_reaches_as_far_as_asked_and_initial_values_stay_what_they_were(
    where: Any, noisy: list[str], expected: float
) -> None:
    torch.manual_seed(3)
    network = build_actor_critic_network(
        (6,),
        3,
        torso_hidden=(8,),
        head_hidden=16,
        lstm_size=4,
        noise=NoiseSettings(sigma0=0.5, where=where),
    )
    assert sorted(noisy_layers(network)) == noisy
    total = sum(one.double().abs().sum().item() for one in network.state_dict().values())
    assert total == pytest.approx(expected, rel=1e-6)


def test_a_network_is_that_of_its_parts_drawn_in_their_order() -> None:
    torch.manual_seed(1)
    built = build_actor_critic_network((6,), 3, head_hidden=7, lstm_size=5)
    torch.manual_seed(1)
    hidden, cell = nn.Linear(6, 7), nn.LSTMCell(7, 5)
    expected = ActorCriticNetwork(
        MLPTorso((6,), ()), hidden, RecurrentCore(cell), ActorCriticHead(5, 3, nn.Linear)
    )
    assert built.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(built.state_dict()[name], value), name
    assert build_actor_critic_network((6,), 3).initial_state(2) is None
