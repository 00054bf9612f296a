"""Torsos and networks of a user's own, as the agents take them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import noisynet
from noisynet.networks import MakeNetwork, NoiseSettings, OwnTorso, build_q_network, make_torso
from noisynet.networks.own_network import make_own_network


class Picture(nn.Module):
    """A convolution and two linear layers, for images."""

    def __init__(self, shape: tuple[int, ...], outputs: int = 5) -> None:
        super().__init__()
        self.see = nn.Conv2d(shape[0], 4, 3)
        self.hidden = nn.LazyLinear(6)
        self.out = nn.Linear(6, outputs)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.ndim == 4
        return self.out(self.hidden(self.see(image).relu().flatten(1)).relu())


def test_a_torso_takes_any_leading_dimensions_and_bytes_as_brightness() -> None:
    torso = make_torso(Picture, (3, 36, 36))
    assert isinstance(torso, OwnTorso)
    assert torso.features == 5
    image = torch.randint(0, 256, (2, 7, 3, 36, 36), dtype=torch.uint8)
    assert torso(image).shape == (2, 7, 5)
    assert torch.equal(torso(image), torso(image / 255))
    assert torch.equal(torso.prepare(torch.full((1,), 255, dtype=torch.uint8)), torch.ones(1))
    network = build_q_network((3, 36, 36), 2, torso=Picture, head_hidden=8)
    assert network(image).shape == (2, 7, 2)


def test_the_bytes_of_small_images_stay_as_they_are_in_every_torso() -> None:
    symbols = torch.randint(0, 2, (5, 4, 10, 10), dtype=torch.uint8)
    for torso in (
        make_torso(lambda _: nn.Flatten(), (4, 10, 10)),
        make_torso("minatar", (4, 10, 10)),
    ):
        assert torch.equal(torso.prepare(symbols), symbols.float())


def test_what_gives_no_features_is_refused() -> None:
    message = (
        r"Identity: got \(2, 3, 8, 8\) for observations \(2, 3, 8, 8\), expected \(2, features"
    )
    with pytest.raises(ValueError, match=message):
        make_torso(lambda _: nn.Identity(), (3, 8, 8))
    with pytest.raises(ValueError, match=r"GRU: got tuple for observations \(2, 5\), expected"):
        make_torso(lambda _: nn.GRU(5, 4), (5,))


def test_a_torso_of_one_s_own_is_not_standardised() -> None:
    with pytest.raises(ValueError, match="standardise_frames: got true, expected false: a torso"):
        make_torso(Picture, (3, 8, 8), standardise_frames=True)


@pytest.mark.parametrize(("where", "noisy"), [
    ("last", ["torso.body.out"]),
    ("head", ["torso.body.hidden", "torso.body.out"]),
    ("all", ["torso.body.see", "torso.body.hidden", "torso.body.out"]),
])  # fmt: skip
def test_layers_of_a_whole_network_become_noisy(where: Any, noisy: list[str]) -> None:
    noise = NoiseSettings(where=where, kind="independent", sigma0=0.02)
    network = make_own_network(Picture, (3, 8, 8), 4, noise)
    layers = noisynet.noisy_layers(network)
    assert list(layers) == noisy
    assert float(layers["torso.body.out"].weight_sigma.detach().mean()) == pytest.approx(0.02)
    assert network.output_layers() == [network.torso.body.out]
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 4)


def test_a_whole_network_without_noise_or_with_its_own_stays_as_it_is() -> None:
    assert noisynet.noisy_layers(make_own_network(Picture, (3, 8, 8), 4)) == {}
    own: MakeNetwork = lambda _, actions: nn.Sequential(  # noqa: E731
        nn.Linear(6, 8), nn.ReLU(), noisynet.NoisyLinear(8, actions, sigma0=0.1)
    )
    network = make_own_network(own, (6,), 4, NoiseSettings(sigma0=0.4))
    assert list(noisynet.noisy_layers(network)) == ["torso.body.2"]


def test_a_whole_network_that_cannot_be_noisy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Flatten: has no nn.Linear to make noisy"):
        make_own_network(lambda *_: nn.Flatten(), (4,), 4, NoiseSettings())
