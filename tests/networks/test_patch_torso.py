"""Convolutions whose filters are as wide as their strides, as products over patches."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from noisynet.layers import NoisyConv2d, hold, mean_weights, noisify
from noisynet.networks import FramesTorso, make_torso

SHAPE = (3, 40, 47)


def torso_of(
    name: str, *, layer_norm: bool, standardised: bool = True, stack: int = SHAPE[0]
) -> FramesTorso:
    torch.manual_seed(0)
    shape = (stack, *SHAPE[1:])
    torso = make_torso(name, shape, standardise_frames=standardised, layer_norm=layer_norm)
    assert isinstance(torso, FramesTorso)
    if standardised:
        torso.measure_frames(torch.randint(0, 256, (50, 1, *SHAPE[1:]), dtype=torch.uint8))
    return torso


def slow(torso: FramesTorso, frames: torch.Tensor, *, layer_norm: bool) -> torch.Tensor:
    """Return the features of frames (B, *SHAPE), convolution by convolution, in float64."""
    images = frames.double() / 255
    if torso.standardised:
        images = (images - torso.frame_mean.double()) / torso.frame_deviation.double()
        images = images.clamp(-5, 5)
    layers = [one for one in torso.convolutions if isinstance(one, nn.Conv2d)]
    for number, layer in enumerate(layers):
        size = layer.kernel_size[0]
        weight, bias = layer.weight.detach().double(), layer.bias
        assert bias is not None
        images = functional.conv2d(images, weight, bias.detach().double(), stride=size)
        # What no later filter reaches is left out.
        for later in layers[number + 1 :]:
            reached = [
                one // later.kernel_size[0] * later.kernel_size[0] for one in images.shape[2:]
            ]
            images = images[:, :, : reached[0], : reached[1]]
        if layer_norm:
            images = (images - images.mean((1, 2, 3), keepdim=True)) / (
                images.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5
            ).sqrt()
        images = images.relu()
    return images.flatten(1)


@pytest.mark.parametrize("name", ["data-efficient", "patches"])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("stack", [3, 4])  # four bytes are moved as one number
def test_the_products_are_the_convolutions(
    name: str, layer_norm: bool, standardised: bool, stack: int
) -> None:
    torso = torso_of(name, layer_norm=layer_norm, standardised=standardised, stack=stack)
    frames = torch.randint(0, 256, (5, stack, *SHAPE[1:]), dtype=torch.uint8)
    expected = slow(torso, frames, layer_norm=layer_norm)
    assert torso.features == expected.shape[1]
    assert torch.allclose(torso(frames).double(), expected, atol=2e-5)
    leading = torso(frames.expand(2, *frames.shape))
    assert leading.shape == (2, 5, torso.features)
    assert torch.allclose(leading[1], torso(frames), atol=1e-5)


@pytest.mark.parametrize("name", ["data-efficient", "patches"])
@pytest.mark.parametrize("stack", [3, 4])
def test_frames_prepared_as_patches_or_as_images_are_the_same_frames(name: str, stack: int) -> None:
    torso = torso_of(name, layer_norm=True, stack=stack)
    frames = torch.randint(0, 256, (4, stack, *SHAPE[1:]), dtype=torch.uint8)
    patches = torso.prepare(frames)
    assert patches.dim() == 3
    images = FramesTorso.prepare(torso, frames)
    assert images.shape == frames.shape
    assert torch.allclose(torso(patches), torso(frames), atol=1e-5)
    assert torch.allclose(torso(images), torso(frames), atol=1e-5)
    assert torch.equal(torso.prepare(patches), patches)


def test_gradients_are_those_of_the_convolutions() -> None:
    torso = torso_of("data-efficient", layer_norm=True)
    by_itself = torso_of("data-efficient", layer_norm=True)
    noisify(by_itself, where=lambda *_: True, noise="independent")  # computes by convolutions
    frames = torch.randint(0, 256, (4, *SHAPE), dtype=torch.uint8)
    direction = torch.randn(4, torso.features)
    (torso(frames) * direction).sum().backward()
    with mean_weights(by_itself):
        (by_itself(frames) * direction).sum().backward()
    means = dict(by_itself.named_parameters())
    for parameter, value in torso.named_parameters():
        expected = means[parameter].grad
        assert value.grad is not None
        assert expected is not None
        assert torch.allclose(value.grad, expected, rtol=1e-4, atol=1e-4), parameter


def test_under_noise_each_row_has_its_own_convolutions() -> None:
    torso = torso_of("patches", layer_norm=True)
    noisify(torso, where=lambda *_: True, sigma0=0.5)
    assert any(isinstance(one, NoisyConv2d) for one in torso.convolutions)
    hold(torso, rows=3)
    frames = torch.randint(0, 256, (1, *SHAPE), dtype=torch.uint8).expand(3, *SHAPE)
    features = torso(frames)
    assert not torch.allclose(features[0], features[1])
    with mean_weights(torso):
        still = torso(frames)
    assert torch.allclose(still[0], still[2])


@pytest.mark.parametrize("name", ["nature", "dqn2013", "minatar", "mlp"])
def test_layer_norm_gives_every_layer_mean_zero_and_deviation_one(name: str) -> None:
    shape = (9,) if name == "mlp" else (4, 10, 10) if name == "minatar" else (4, 84, 84)
    torso = make_torso(name, shape, (16, 12), layer_norm=True)
    seen: list[torch.Tensor] = []
    for module in torso.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.register_forward_hook(lambda _, __, output: seen.append(output.flatten(1)))
    observation = torch.rand(2, *shape) if name == "mlp" else torch.randint(0, 255, (2, *shape))
    torso(observation if name == "mlp" else observation.to(torch.uint8))
    assert len(seen) == {"nature": 3, "dqn2013": 2, "minatar": 1, "mlp": 2}[name]
    for output in seen:
        assert torch.allclose(output.mean(1), torch.zeros(2), atol=1e-5)
        assert torch.allclose(output.std(1, unbiased=False), torch.ones(2), atol=1e-2)
