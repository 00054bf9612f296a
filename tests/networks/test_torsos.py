"""Torsos: their layers, how frames are prepared, and which one a shape gets."""

import pytest
import torch
from torch import nn

from noisynet.networks import FramesTorso, MinAtarTorso, MLPTorso, NatureTorso, make_torso


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


def test_the_minatar_torso_is_one_convolution_of_sixteen_filters() -> None:
    torso = MinAtarTorso((4, 10, 10))
    assert torso.features == 1024
    assert sum(parameter.numel() for parameter in torso.parameters()) == 16 * (4 * 9 + 1)
    images = torch.randint(0, 2, (2, 3, 4, 10, 10), dtype=torch.uint8)
    features = torso(images)
    assert features.shape == (2, 3, 1024)
    convolution = torso.convolutions[0]
    assert isinstance(convolution, nn.Conv2d)
    expected = torch.zeros(16, 8, 8)
    for row in range(8):
        for column in range(8):
            patch = images[1, 2, :, row : row + 3, column : column + 3].float()
            expected[:, row, column] = (convolution.weight * patch).sum((1, 2, 3))
    expected = (expected + convolution.bias[:, None, None]).relu()
    assert torch.allclose(features[1, 2], expected.flatten(), atol=1e-5)


def test_small_images_are_taken_as_they_are() -> None:
    """The points of a small image are symbols: 1 stays 1, and is not 1/255."""
    torso = MinAtarTorso((2, 7, 5))
    images = torch.randint(0, 11, (3, 2, 7, 5), dtype=torch.uint8)
    before = images.clone()
    prepared = torso.prepare(images)
    assert torch.equal(prepared, images.float())
    assert torch.equal(images, before)
    for same in (prepared, torso.prepare(prepared), images, images.long(), images.float()):
        assert torch.equal(torso(same), torso(images))
    assert torso(images).shape == (3, torso.features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torso.prepare(images).dtype == torch.bfloat16
        assert torch.allclose(torso(images).float(), torso(prepared).float(), atol=0.1)


def test_float_images_reach_the_nature_torso_as_they_are_by_both_ways() -> None:
    torso = NatureTorso((3, 40, 44))
    images = torch.rand(2, 3, 40, 44)
    assert torch.equal(torso.prepare(images), images)
    assert torch.equal(torso(images), torso(torso.prepare(images)))
    frames = (images * 255).to(torch.uint8)
    assert torch.allclose(torso(frames), torso(frames.float() / 255), atol=1e-6)


@pytest.mark.parametrize(("shape", "kind"), [
    ((4, 10, 10), MinAtarTorso), ((10, 10, 10), MinAtarTorso), ((4, 35, 84), MinAtarTorso),
    ((4, 36, 36), NatureTorso), ((3, 96, 96), NatureTorso), ((100,), MLPTorso),
])  # fmt: skip
def test_auto_goes_by_the_size_of_the_image(shape: tuple[int, ...], kind: type) -> None:
    assert type(make_torso("auto", shape, ())) is kind


def test_minatar_by_name_and_shapes_that_do_not_fit() -> None:
    assert isinstance(make_torso("minatar", (4, 84, 84), ()), MinAtarTorso)
    for shape in ((8,), (4, 2, 10), (10, 10)):
        with pytest.raises(ValueError, match=r"minatar torso: got .*, expected \(channels, height"):
            make_torso("minatar", shape, ())


@pytest.mark.parametrize(("kind", "filters", "sizes", "strides", "points", "smallest"), [
    ("dqn2013", (16, 32), (8, 4), (4, 2), 9 * 9, 20),  # arXiv 1312.5602, §4.1
    ("data-efficient", (32, 64), (5, 5), (5, 5), 3 * 3, 25),  # arXiv 1906.05243
])  # fmt: skip
def test_a_torso_of_two_convolutions_is_its_papers(
    kind: str,
    filters: tuple[int, int],
    sizes: tuple[int, int],
    strides: tuple[int, int],
    points: int,
    smallest: int,
) -> None:
    torso = make_torso(kind, (4, 84, 84), ())
    assert isinstance(torso, FramesTorso)
    assert torso.features == filters[1] * points
    wanted = filters[0] * (4 * sizes[0] ** 2 + 1) + filters[1] * (filters[0] * sizes[1] ** 2 + 1)
    assert sum(parameter.numel() for parameter in torso.parameters()) == wanted
    frames = torch.randint(0, 256, (2, 3, 4, 84, 84), dtype=torch.uint8)
    expected = frames[1].float() / 255
    layers = [layer for layer in torso.convolutions if isinstance(layer, nn.Conv2d)]
    for layer, stride in zip(layers, strides, strict=True):
        expected = nn.functional.conv2d(expected, layer.weight, layer.bias, stride).relu()
    assert torch.allclose(torso(frames)[1], expected.flatten(1), atol=1e-5)
    assert make_torso(kind, (1, smallest, smallest), ()).features == filters[1]
    with pytest.raises(ValueError, match=rf"{kind} torso: .* at least {smallest} pixels each way"):
        make_torso(kind, (4, smallest - 1, 84), ())


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


def test_a_torso_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torso: got 'natur', expected one of auto, mlp, minatar"):
        make_torso("natur", (4, 84, 84))
