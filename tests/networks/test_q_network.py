"""Heads and Q-networks: the dueling equation, noise, precision, and networks built by hand."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from noisynet import hold, noisy_layers
from noisynet.layers import NoisyLinear
from noisynet.networks import (
    DistributionalHead,
    DuelingHead,
    MLPTorso,
    NoiseSettings,
    QHead,
    QNetwork,
    Stream,
    build_q_network,
)


def test_the_dueling_head_adds_value_and_centred_advantage() -> None:
    head = DuelingHead(partial(Stream, 5, 7), 3)
    features = torch.randn(4, 5)
    q = head(features)
    assert torch.allclose(q.mean(-1, keepdim=True), head.value(features), atol=1e-6)
    assert torch.allclose(
        q - q.mean(-1, keepdim=True),
        head.advantage(features) - head.advantage(features).mean(-1, keepdim=True),
        atol=1e-6,
    )


@pytest.mark.parametrize("head", [QHead, DuelingHead])
def test_a_held_draw_per_row_reaches_the_layers_of_a_head(head: type[QHead | DuelingHead]) -> None:
    network = QNetwork(
        MLPTorso((6,), (8,)),
        head(partial(Stream, 8, 7, linear=NoisyLinear), 3),
    )
    hold(network, rows=4)
    values = network(torch.ones(4, 6))
    assert values.shape == (4, 3)
    assert len({tuple(row.tolist()) for row in values}) == 4
    # Time before environments: row i keeps draw i at every time.
    over_time = network(torch.ones(5, 4, 6))
    assert torch.allclose(over_time, values.expand(5, 4, 3), atol=1e-6)
    assert all(name.startswith("head.") for name in noisy_layers(network))


@pytest.mark.parametrize("head", [QHead, DuelingHead])
def test_q_values_keep_full_precision_under_autocast(head: type[QHead | DuelingHead]) -> None:
    network = QNetwork(MLPTorso((6,), (8,)), head(partial(Stream, 8, 7, linear=NoisyLinear), 3))
    hold(network)
    observation = torch.randn(64, 6)
    exact = network(observation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(observation)
    assert rough.dtype == torch.float32
    # Values that bfloat16 cannot hold: the last layer did not round to 8 bits.
    assert not torch.equal(rough, rough.bfloat16().float())
    assert torch.allclose(rough, exact, atol=0.03)


def total(network: nn.Module) -> float:
    """Return the sum of the absolute values of all that is saved of a network."""
    return sum(one.double().abs().sum().item() for one in network.state_dict().values())


@pytest.mark.parametrize(
    ("where", "noisy", "expected"),
    [
        (None, [], 71.09119095513597),
        ("last", ["head.advantage.2", "head.value.2"], 74.49119100579992),
        (
            "head",
            ["head.advantage.0", "head.advantage.2", "head.value.0", "head.value.2"],
            94.85586724290624,
        ),
        (
            "all",
            [
                "head.advantage.0",
                "head.advantage.2",
                "head.value.0",
                "head.value.2",
                "torso.layers.0",
            ],
            99.42824826249853,
        ),
    ],
)
def test_the_noise_reaches_as_far_as_asked_and_initial_values_stay_what_they_were(
    where: Any, noisy: list[str], expected: float
) -> None:
    torch.manual_seed(3)
    network = build_q_network(
        (6,),
        3,
        torso_hidden=(8,),
        head_hidden=16,
        dueling=True,
        noise=None if where is None else NoiseSettings(sigma0=0.2, where=where),
    )
    assert sorted(noisy_layers(network)) == noisy
    assert total(network) == pytest.approx(expected, rel=1e-6)


def test_a_network_is_that_of_its_parts_drawn_in_their_order() -> None:
    noise = NoiseSettings(kind="independent", sigma0=0.1)
    support = torch.linspace(-2, 2, 5)
    torch.manual_seed(1)
    built = build_q_network(
        (6,), 3, torso_hidden=(8,), head_hidden=7, dueling=True, support=support, noise=noise
    )
    torch.manual_seed(1)
    linear = partial(NoisyLinear, noise="independent", sigma0=0.1)
    torso = MLPTorso((6,), (8,))
    expected = QNetwork(
        torso,
        DistributionalHead(partial(Stream, 8, 7, linear=linear), 3, support=support, dueling=True),
    )
    assert built.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(built.state_dict()[name], value), name
    assert built.logits(torch.zeros(2, 6)).shape == (2, 3, 5)


def test_what_a_network_is_made_of_goes_by_its_arguments() -> None:
    plain = build_q_network((4, 10, 10), 3)
    assert isinstance(plain.head, QHead)
    assert plain.torso.features == 1024
    assert plain(torch.zeros(2, 4, 10, 10, dtype=torch.uint8)).shape == (2, 3)
    assert isinstance(build_q_network((4,), 2, dueling=True).head, DuelingHead)
    frames = build_q_network((4, 84, 84), 2, torso="dqn2013", standardise_frames=True)
    assert "torso.frame_mean" in frames.state_dict()
    # A torso without layers has none to be noisy.
    bare = build_q_network((4,), 2, noise=NoiseSettings(where="all"))
    assert sorted(noisy_layers(bare)) == ["head.q.0", "head.q.2"]
    with pytest.raises(ValueError, match="where: got 'torso', expected one of last, head, all"):
        NoiseSettings(where="torso")  # type: ignore[arg-type]
