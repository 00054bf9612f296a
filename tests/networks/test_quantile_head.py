"""The head of implicit quantiles: its equation, its noise, and the mean that it acts by."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import noisynet
from noisynet import hold, noisy_layers
from noisynet.layers import NoisyLinear
from noisynet.networks import NoiseSettings, QNetwork, QuantileHead, Stream, build_q_network

ACTIONS, FEATURES, HIDDEN = 3, 5, 7


def make_network(where: str = "head", *, dueling: bool = True, quantiles: int = 4) -> QNetwork:
    torch.manual_seed(0)
    return build_q_network(
        (FEATURES,),
        ACTIONS,
        head_hidden=HIDDEN,
        dueling=dueling,
        quantiles=quantiles,
        cosines=6,
        noise=NoiseSettings(where=where),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_quantiles_are_those_of_the_equation(dueling: bool, layer_norm: bool) -> None:
    """Against one row, one quantile and one sum after the other, in float64."""
    torch.manual_seed(0)
    head = QuantileHead(
        partial(Stream, FEATURES, HIDDEN, layer_norm=layer_norm),
        ACTIONS,
        FEATURES,
        dueling=dueling,
        cosines=6,
    )
    weights = {name: value.double().numpy() for name, value in head.state_dict().items()}
    features, tau = torch.randn(2, FEATURES), torch.rand(4, 2)

    def stream(name: str, x: np.ndarray) -> np.ndarray:
        hidden = weights[f"{name}.0.weight"] @ x + weights[f"{name}.0.bias"]
        if layer_norm:
            hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5)
        last = "3" if layer_norm else "2"
        return (
            weights[f"{name}.{last}.weight"] @ np.maximum(hidden, 0)
            + weights[f"{name}.{last}.bias"]
        )

    wanted = np.zeros((4, 2, ACTIONS))
    for row in range(2):
        for number in range(4):
            cosines = [np.cos(np.pi * i * float(tau[number, row])) for i in range(6)]
            phi = np.maximum(weights["embedding.weight"] @ cosines + weights["embedding.bias"], 0)
            x = features[row].double().numpy() * phi
            advantage = stream("advantage", x)
            wanted[number, row] = advantage
            if dueling:
                wanted[number, row] += stream("value", x) - advantage.mean()
    found = head.quantiles(features, tau).detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_q_is_the_mean_over_evenly_spaced_quantiles_and_repeats() -> None:
    network = make_network(quantiles=4)
    hold(network)
    observation = torch.randn(2, FEATURES)
    tau = torch.tensor([0.125, 0.375, 0.625, 0.875]).unsqueeze(-1).expand(4, 2)
    wanted = network.quantiles(observation, tau).mean(0)
    torch.testing.assert_close(network(observation), wanted)
    assert torch.equal(network(observation), network(observation))


def test_a_quantile_moves_with_its_fraction() -> None:
    network = make_network()
    hold(network)
    observation = torch.randn(1, FEATURES)
    low, high = network.quantiles(observation, torch.tensor([[0.1], [0.9]]))
    assert (low != high).all()


# Noise


@pytest.mark.parametrize("where", ["last", "head", "all"])
def test_the_noise_reaches_as_far_as_asked(where: str) -> None:
    last = {"head.advantage.2", "head.value.2"}
    wanted = {
        "last": last,
        "head": last | {"head.advantage.0", "head.value.0"},
        "all": last | {"head.advantage.0", "head.value.0", "head.embedding"},
    }
    assert set(noisy_layers(make_network(where))) == wanted[where]


@pytest.mark.parametrize("where", ["last", "head", "all"])
def test_all_quantiles_of_a_batch_have_one_draw(where: str) -> None:
    """Fresh noise, and one fraction many times: a draw for each quantile would tell them apart."""
    network = make_network(where)
    observation = torch.randn(2, FEATURES)
    same = torch.full((50, 2), 0.3)
    one, other = (network.quantiles(observation, same) for _ in range(2))
    for found in (one, other):
        torch.testing.assert_close(found, found[:1].expand_as(found))
    assert not torch.isclose(one[0], other[0]).any()
    # Held rows: alike over the quantiles, and different over the rows.
    hold(network, rows=2)
    rows = network.quantiles(observation[:1].expand(2, -1), same)
    torch.testing.assert_close(rows, rows[:1].expand_as(rows))
    assert not torch.isclose(rows[0, 0], rows[0, 1]).any()


@pytest.mark.parametrize("where", ["last", "head", "all"])
def test_each_row_keeps_its_draw_over_all_quantiles(where: str) -> None:
    network = make_network(where)
    drawn = noisynet.draw(network, rows=3)
    observation, tau = torch.randn(3, FEATURES), torch.rand(4, 3)
    with noisynet.using(network, drawn):
        together, mean = network.quantiles(observation, tau), network(observation)
    for row in range(3):
        with noisynet.using(network, drawn[row]):
            alone = network.quantiles(observation[row : row + 1], tau[:, row : row + 1])
            torch.testing.assert_close(together[:, row], alone[:, 0])
            torch.testing.assert_close(mean[row], network(observation[row : row + 1])[0])
    # Time before rows, as for every head.
    with noisynet.using(network, drawn):
        over_time = network(observation.expand(2, 3, -1))
    torch.testing.assert_close(over_time, mean.expand(2, -1, -1))


# What is asked for


def test_fractions_of_other_rows_are_refused() -> None:
    network = make_network()
    with pytest.raises(ValueError, match=r"tau: got shape \(4, 3\), expected \(K, 2\)"):
        network.quantiles(torch.randn(2, FEATURES), torch.rand(4, 3))
    with pytest.raises(ValueError, match=r"tau: got shape \(4,\), expected \(K, 2\)"):
        network.quantiles(torch.randn(2, FEATURES), torch.rand(4))


def test_atoms_beside_quantiles_are_refused() -> None:
    with pytest.raises(ValueError, match="quantiles: got 8 beside 51 atoms, expected 0"):
        build_q_network((4,), 2, support=torch.linspace(-1, 1, 51), quantiles=8)


def test_quantiles_keep_full_precision_under_autocast() -> None:
    network = make_network()
    hold(network)
    observation, tau = torch.randn(64, FEATURES), torch.rand(4, 64)
    exact = network.quantiles(observation, tau)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network.quantiles(observation, tau)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, rough.bfloat16().float())
    assert torch.allclose(rough, exact, atol=0.05)


def test_the_embedding_of_a_plain_network_is_plain() -> None:
    network = build_q_network((4,), 2, quantiles=8)
    assert noisy_layers(network) == {}
    assert isinstance(network.head, QuantileHead)
    assert isinstance(network.head.embedding, nn.Linear)
    assert not isinstance(network.head.embedding, NoisyLinear)
    # Neither the midpoints nor the frequencies are learned or saved.
    assert {name.split(".")[1] for name in network.state_dict()} == {"embedding", "advantage"}
