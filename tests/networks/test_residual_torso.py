"""IMPALA's torso: its layers, width and pooling, and spectral norm that learning alone moves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from noisynet.networks import ImpalaSettings, ImpalaTorso, build_q_network, make_torso

SHAPE = (2, 48, 44)


def frames(count: int = 2, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def make(**options: float) -> ImpalaTorso:
    torch.manual_seed(0)
    return ImpalaTorso(SHAPE, ImpalaSettings(**options))  # type: ignore[arg-type]


def normed(torso: ImpalaTorso) -> list[nn.Module]:
    return [one for one in torso.modules() if parametrize.is_parametrized(one)]


def estimates(torso: ImpalaTorso) -> list[Tensor]:
    return [one.clone() for name, one in torso.named_buffers() if name.endswith(("_u", "_v"))]


def test_it_has_its_papers_features_and_parameters() -> None:
    torso = make_torso("impala", (4, 84, 84))
    assert torso.features == 32 * 6 * 6
    wanted, before = 0, 4
    for filters in (16, 32, 32):
        wanted += filters * (9 * before + 1) + 4 * filters * (9 * filters + 1)
        before = filters
    assert sum(one.numel() for one in torso.parameters()) == wanted
    assert make_torso("impala", (4, 84, 84), impala=ImpalaSettings(width=2)).features == 2304
    # Without the pooling, the last block's picture: 84, 42, 21, 11.
    assert make_torso("impala", (4, 84, 84), impala=ImpalaSettings(pooling=0)).features == 32 * 121


def slow(torso: ImpalaTorso, images: Tensor) -> Tensor:
    """Apply the layers one after the other, and look for each largest pixel."""
    state = torso.state_dict()

    def convolved(name: str, x: Tensor) -> Tensor:
        weight = state[f"convolutions.{name}.weight"]
        return functional.conv2d(x, weight, state[f"convolutions.{name}.bias"], padding=1)

    x = images
    for block in range(3):
        x = convolved(str(4 * block), x)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for unit in (4 * block + 2, 4 * block + 3):
            inner = convolved(f"{unit}.1", x.relu())
            x = x + convolved(f"{unit}.3", inner.relu())
    height, width = x.shape[-2:]
    pooled = torch.zeros(*x.shape[:2], 6, 6)
    for row in range(6):
        top, bottom = row * height // 6, -(-(row + 1) * height // 6)
        for column in range(6):
            left, right = column * width // 6, -(-(column + 1) * width // 6)
            pooled[..., row, column] = x[..., top:bottom, left:right].amax((-1, -2))
    return pooled.relu().flatten(1)


def test_its_features_are_those_of_its_layers() -> None:
    torso, seen = make(width=0.5), frames()
    with torch.no_grad():
        torch.testing.assert_close(
            torso(seen), slow(torso, seen.float() / 255), atol=1e-5, rtol=1e-4
        )
        # Any leading dimensions, and prepared frames.
        torch.testing.assert_close(torso(torso.prepare(seen)), torso(seen))
        torch.testing.assert_close(torso(seen[None])[0], torso(seen))


def test_spectral_norm_brings_the_largest_singular_value_to_1() -> None:
    torso = make(width=0.25, spectral_norm=True)
    layers = normed(torso)
    # The residual convolutions, and no others.
    assert len(layers) == 12
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original.mul_(7)  # type: ignore[union-attr]
    for _ in range(60):
        torso(frames(1))
    with torch.no_grad():
        for layer in layers:
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)  # type: ignore[operator]
            assert float(largest) == pytest.approx(1, abs=0.02)


def test_what_records_no_gradient_leaves_the_estimates_alone() -> None:
    torso = make(width=0.5, spectral_norm=True)
    before = estimates(torso)
    assert len(before) == 24
    for quiet in (torch.no_grad, torch.inference_mode):
        with quiet():
            torso.train()(frames())
            torso.eval()(frames())
    assert all(map(torch.equal, before, estimates(torso)))
    # An update moves each of them, in whatever mode the network is.
    torso.eval()(frames())
    assert not any(map(torch.equal, before, estimates(torso)))
    # Where a host runs its target net without gradients, it has to follow the copied weights.
    before = estimates(torso)
    torso.always_estimates = True
    with torch.no_grad():
        torso(frames())
    assert not any(map(torch.equal, before, estimates(torso)))


def test_a_gradient_flows_through_the_norm() -> None:
    """Scaling a weight changes nothing, so its gradient is at a right angle to it."""
    torso = make(width=0.25, spectral_norm=True)
    torso(frames()).square().sum().backward()
    for layer in normed(torso):
        original = layer.parametrizations.weight.original  # type: ignore[union-attr]
        gradient, weight = original.grad, original.detach()
        assert gradient.norm() > 0
        along = (gradient * weight).sum() / (gradient.norm() * weight.norm())
        assert abs(float(along)) < 1e-3


def test_a_copy_takes_over_weights_and_estimates() -> None:
    torso = make(width=0.5, spectral_norm=True)
    torso(frames())
    copied, loaded = copy.deepcopy(torso), make(width=0.5, spectral_norm=True)
    loaded.load_state_dict(torso.state_dict())
    with torch.no_grad():
        assert torch.equal(copied(frames()), torso(frames()))
        assert torch.equal(loaded(frames()), torso(frames()))


def test_layer_norm_in_the_head_alone_leaves_the_torso_as_it_is() -> None:
    head = build_q_network(SHAPE, 2, torso="impala", layer_norm=False, head_layer_norm=True)
    everywhere = build_q_network(SHAPE, 2, torso="impala", layer_norm=True)
    kinds = (nn.GroupNorm, nn.LayerNorm)
    assert [type(one) for one in head.modules() if isinstance(one, kinds)] == [nn.LayerNorm]
    counted = [type(one) for one in everywhere.modules() if isinstance(one, kinds)]
    assert counted == [nn.GroupNorm] * 9 + [nn.LayerNorm]


@pytest.mark.parametrize(("pooling", "smallest"), [(6, 41), (3, 17), (0, 1)])
def test_frames_that_pooling_would_only_repeat_are_refused(pooling: int, smallest: int) -> None:
    settings = ImpalaSettings(width=0.25, pooling=pooling)
    shape = (1, smallest, smallest + 3)
    assert ImpalaTorso(shape, settings).features == 8 * max(pooling, 1) ** 2
    if smallest > 1:
        with pytest.raises(ValueError, match=f"impala torso: .* at least {smallest} pixels"):
            ImpalaTorso((1, smallest - 1, 90), settings)


def test_settings_outside_their_ranges_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"^width: got 0.01, expected at least 0.0625"):
        ImpalaSettings(width=0.01)
    with pytest.raises(ValueError, match=r"^pooling: got -1, expected 0 or more$"):
        ImpalaSettings(pooling=-1)
