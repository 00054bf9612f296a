"""Torsos and heads: shapes, the dueling equation, preparation of frames."""

from functools import partial

import pytest
import torch
from torch import nn

from noisynet import hold, noisy_layers
from noisynet.layers import NoisyLinear
from noisynet.networks import DuelingHead, MLPTorso, NatureTorso, QHead, QNetwork, make_torso


def test_the_nature_torso_gives_3136_features_and_takes_any_leading_dimensions() -> None:
    torso = NatureTorso((4, 84, 84))
    frames = torch.randint(0, 256, (2, 3, 4, 84, 84), dtype=torch.uint8)
    features = torso(frames)
    assert torso.features == 3136
    assert features.shape == (2, 3, 3136)
    assert torch.allclose(features[1, 2], torso(frames[1, 2]), atol=1e-5)


def test_frames_become_numbers_from_0_to_1_and_are_left_as_they_were() -> None:
    torso = NatureTorso((2, 40, 44))
    frames = torch.randint(0, 256, (3, 2, 40, 44), dtype=torch.uint8)
    before = frames.clone()
    prepared = torso.prepare(frames)
    assert torch.allclose(prepared, frames.float() / 255)
    assert torch.equal(frames, before)
    # Prepared once, or by forward: the same.
    assert torch.equal(torso(frames), torso(prepared))


def test_the_dueling_head_adds_value_and_centred_advantage() -> None:
    head = DuelingHead(features=5, hidden=7, actions=3, linear=nn.Linear)
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
        head(features=8, hidden=7, actions=3, linear=partial(NoisyLinear, noise="factorised")),
    )
    hold(network, rows=4)
    values = network(torch.ones(4, 6))
    assert values.shape == (4, 3)
    assert len({tuple(row.tolist()) for row in values}) == 4
    # Time before environments: row i keeps draw i at every time.
    over_time = network(torch.ones(5, 4, 6))
    assert torch.allclose(over_time, values.expand(5, 4, 3), atol=1e-6)
    assert all(name.startswith("head.") for name in noisy_layers(network))


def test_auto_goes_by_the_shape_of_the_observation() -> None:
    assert isinstance(make_torso("auto", (4, 84, 84), ()), NatureTorso)
    torso = make_torso("auto", (6,), (32, 16))
    assert isinstance(torso, MLPTorso)
    assert torso.features == 16
    assert make_torso("mlp", (6,), ()).features == 6


def test_observations_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(4, 84, 84, 3\), expected \(stack, height, width\)"):
        NatureTorso((4, 84, 84, 3))
    with pytest.raises(ValueError, match="at least 36 pixels"):
        NatureTorso((4, 20, 84))
    with pytest.raises(ValueError, match=r"\(4, 84, 84\), expected \(size,\)"):
        MLPTorso((4, 84, 84), ())


@pytest.mark.parametrize("head", [QHead, DuelingHead])
def test_q_values_keep_full_precision_under_autocast(head: type[QHead | DuelingHead]) -> None:
    network = QNetwork(MLPTorso((6,), (8,)), head(8, 7, 3, linear=NoisyLinear))
    hold(network)
    observation = torch.randn(64, 6)
    exact = network(observation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(observation)
    assert rough.dtype == torch.float32
    # Values that bfloat16 cannot hold: the last layer did not round to 8 bits.
    assert not torch.equal(rough, rough.bfloat16().float())
    assert torch.allclose(rough, exact, atol=0.03)
