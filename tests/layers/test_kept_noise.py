"""What a layer keeps of its held draw between forwards: never anything that is no longer true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import NoisyLinear
from noisynet.layers.kernels import dispatch
from noisynet.layers.noise import NoiseName

Change = Callable[[NoisyLinear], object]


def in_double(layer: Any, x: Tensor) -> Tensor:
    """The layer under the draw it holds, from its parameters as they are now."""
    drawn: Any = noisynet.held(layer)
    noise = drawn.layer("")
    weight = layer.weight.double() + layer.weight_sigma.double() * noise.weight_noise().double()
    bias = layer.bias.double() + layer.bias_sigma.double() * noise.bias_noise().double()
    return nn.functional.linear(x.double(), weight, bias)


def by_data(layer: NoisyLinear) -> None:
    layer.weight.data.mul_(2.0)
    layer.weight_sigma.data.copy_(torch.randn(layer.weight_sigma.shape))


def by_numpy(layer: Any) -> None:
    layer.bias_sigma.detach().numpy()[:] = 3.0


def write_into_the_draw(layer: NoisyLinear) -> None:
    drawn: Any = noisynet.draw(layer)
    noisynet.hold(layer, drawn=drawn)
    layer(torch.randn(2, layer.in_features))
    drawn.flats[0].mul_(-2.0)


def stand_in(layer: Any) -> None:
    # As tensordict's `to_module` does with tensors that are no Parameters.
    for name in ("weight", "bias_sigma"):
        parameter = getattr(layer, name)
        delattr(layer, name)
        layer.__dict__[name] = parameter.detach() * 2


CHANGES: dict[str, Change] = {
    "weights by data, as target networks are": by_data,
    "weights by shared memory": by_numpy,
    "a redraw": noisynet.resample,
    "the held draw written into": write_into_the_draw,
    "another draw held": lambda layer: noisynet.hold(layer, drawn=noisynet.draw(layer)),
    "rows": lambda layer: noisynet.hold(layer, rows=4),
    "static": lambda layer: noisynet.hold(layer, static=True),
    "another dtype": lambda layer: layer.double(),
    "a new weight": lambda layer: setattr(
        layer, "weight", nn.Parameter(torch.randn(layer.weight.shape))
    ),
    "tensors in the place of parameters": stand_in,
    "a checkpoint": lambda layer: layer.load_state_dict(
        {name: torch.randn(value.shape) for name, value in layer.state_dict().items()}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("learns", [False, True])
def test_a_forward_sees_what_changed_since_the_last(
    noise: NoiseName, change: str, learns: bool
) -> None:
    layer: Any = NoisyLinear(6, 5, noise=noise)
    x = torch.randn(4, 6)
    noisynet.hold(layer)
    with torch.set_grad_enabled(learns):
        layer(x)
        CHANGES[change](layer)
        y = layer(x.to(layer.weight.dtype))
        if change == "rows":
            noise_rows = layer.effective_weight()
            expected = (noise_rows[0] @ x.unsqueeze(-1)).squeeze(-1) + noise_rows[1]
            torch.testing.assert_close(y, expected)
        else:
            torch.testing.assert_close(y.double(), in_double(layer, x), rtol=1e-5, atol=1e-5)


def test_using_and_mean_weights_stand_above_what_is_kept(noise: NoiseName) -> None:
    layer, x = NoisyLinear(6, 5, noise=noise), torch.randn(4, 6)
    noisynet.hold(layer)
    y, drawn = layer(x), noisynet.draw(layer)
    with noisynet.using(layer, drawn):
        other = layer(x)
    with noisynet.mean_weights(layer):
        mean = layer(x)
    assert torch.equal(layer(x), y)
    assert torch.equal(mean, nn.functional.linear(x, layer.weight, layer.bias))
    noisynet.hold(layer, drawn=drawn)
    assert torch.equal(layer(x), other)
    noisynet.release(layer)
    assert not torch.allclose(layer(x), layer(x))


@pytest.mark.parametrize("first", ["inference_mode", "vmap", "grad"])
def test_a_first_forward_elsewhere_leaves_nothing_that_learning_trips_over(
    noise: NoiseName, first: str
) -> None:
    layer, x = NoisyLinear(6, 5, noise=noise), torch.randn(4, 6)
    noisynet.hold(layer)
    if first == "inference_mode":
        with torch.inference_mode():
            layer(x)
    elif first == "vmap":
        torch.func.vmap(layer)(x)
    else:
        parameters = dict(layer.named_parameters())
        torch.func.grad(lambda p: torch.func.functional_call(layer, p, (x,)).sum())(parameters)
    y = layer(x)
    y.square().sum().backward()
    torch.testing.assert_close(y.double(), in_double(layer, x), rtol=1e-5, atol=1e-5)
    assert layer.weight_sigma.grad is not None
    assert layer.weight_sigma.grad.isfinite().all()


def test_only_small_layers_build_their_noise() -> None:
    small, large = NoisyLinear(64, 64), NoisyLinear(dispatch.SMALL_WEIGHT // 64 + 1, 64)
    for layer, built in ((small, True), (large, False)):
        noisynet.hold(layer)
        layer(torch.randn(2, layer.in_features))
        kept = layer.noise_in_force()
        assert (kept.weight is not None) == built
        assert layer.noise_in_force() is kept


def test_nothing_is_kept_of_a_draw_that_is_let_go() -> None:
    layer = NoisyLinear(6, 5)
    noisynet.hold(layer)
    layer(torch.randn(2, 6))
    assert layer.noise_state.kept is not None
    noisynet.release(layer)
    assert layer.noise_state.kept is None
