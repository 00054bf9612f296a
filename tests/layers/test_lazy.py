"""Lazy layers: shapeless before the first input, and the normal layers after it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import (
    LazyNoisyConv1d,
    LazyNoisyConv2d,
    LazyNoisyLinear,
    NoisyConv1d,
    NoisyConv2d,
    NoisyLinear,
)

CASES = [
    pytest.param(LazyNoisyLinear, NoisyLinear, (5,), {}, (3, 4), id="linear"),
    pytest.param(
        LazyNoisyConv1d, NoisyConv1d, (6, 3), {"groups": 2, "padding": 1}, (3, 4, 7), id="1d"
    ),
    pytest.param(LazyNoisyConv2d, NoisyConv2d, (6, (3, 2)), {"stride": 2}, (3, 4, 5, 6), id="2d"),
]
pytestmark = [
    pytest.mark.parametrize(("lazy_kind", "kind", "sizes", "options", "shape"), CASES),
]
# Older versions of torch say so at each construction.
pytestmark.append(pytest.mark.filterwarnings("ignore:Lazy modules are a new feature"))


def full(kind: Any, sizes: tuple[Any, ...], **options: Any) -> Any:
    """The layer of four inputs that a lazy one becomes."""
    return kind(4, *sizes, **options)


def test_the_first_forward_makes_it_the_normal_layer(
    noise: str, lazy_kind: Any, kind: Any, sizes: Any, options: Any, shape: Any
) -> None:
    lazy = lazy_kind(*sizes, noise=noise, sigma0=0.3, **options, dtype=torch.float64)
    assert isinstance(lazy, kind)
    x = torch.randn(shape, dtype=torch.float64)
    torch.manual_seed(7)
    y = lazy(x)
    torch.manual_seed(7)
    expected = full(kind, sizes, noise=noise, sigma0=0.3, **options, dtype=torch.float64)
    assert type(lazy) is kind
    assert repr(lazy) == repr(expected)
    assert lazy.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(lazy.state_dict()[name], value), name
    assert torch.equal(y, expected(x))
    # From here on it is like any other: it can hold, and its parameters learn.
    noisynet.hold(lazy, rows=3)
    assert torch.equal(lazy(x), lazy(x))
    lazy(x).sum().backward()
    assert all(parameter.grad is not None for parameter in lazy.parameters())


def test_parameters_keep_their_identity_for_an_optimizer(
    lazy_kind: Any, kind: Any, sizes: Any, options: Any, shape: Any
) -> None:
    lazy = lazy_kind(*sizes, **options)
    before = [id(parameter) for parameter in lazy.parameters()]
    lazy(torch.randn(shape))
    assert [id(parameter) for parameter in lazy.parameters()] == before
    assert [id(parameter) for parameter in noisynet.sigma_parameters(lazy)] == before[2:]


def test_noise_waits_for_the_shape(
    lazy_kind: Any, kind: Any, sizes: Any, options: Any, shape: Any
) -> None:
    lazy = lazy_kind(*sizes, **options)
    net = nn.Sequential(lazy)
    for act in (noisynet.hold, noisynet.resample, noisynet.draw):
        with pytest.raises(ValueError, match=f"^{lazy_kind.__name__}: .* run one forward first"):
            act(net)
    assert noisynet.held(net) is None
    assert noisynet.not_finite(net) == {}
    assert noisynet.snr(net) == noisynet.mean_sigma(net) == {}
    for act in (noisynet.denoise, lambda net: noisynet.load_peer_state_dict(net, {"0.mu_W": 1})):
        if act is noisynet.denoise or lazy_kind is LazyNoisyLinear:
            with pytest.raises(ValueError, match=f"'0': a {lazy_kind.__name__}: run one forward "):
                act(net)
    # What is no draw can be said before.
    noisynet.release(net, per_row=True)
    with noisynet.mean_weights(net):
        mean = net(torch.ones(shape))
        assert torch.equal(net(torch.ones(shape)), mean)
    assert noisynet.held(net) is None
    rows = net(torch.ones(shape)).flatten(1)
    assert len({tuple(row.tolist()) for row in rows}) == 3


def test_no_bias_and_a_single_input(
    lazy_kind: Any, kind: Any, sizes: Any, options: Any, shape: Any
) -> None:
    lazy = lazy_kind(*sizes, bias=False, **options)
    assert (
        lazy(torch.randn(shape[1:])).shape
        == full(kind, sizes, **options)(torch.randn(shape[1:])).shape
    )
    assert lazy.state_dict().keys() == {"weight", "weight_sigma"}
    assert lazy.bias is lazy.bias_sigma is None


def test_a_checkpoint_gives_the_shape(
    noise: str, lazy_kind: Any, kind: Any, sizes: Any, options: Any, shape: Any
) -> None:
    trained = full(kind, sizes, noise=noise, **options)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    lazy = lazy_kind(*sizes, noise=noise, **options)
    assert lazy.load_state_dict(trained.state_dict()) == ([], [])
    # It waits for its input still, and so would the plain layer.
    with pytest.raises(ValueError, match=f"'0': a {lazy_kind.__name__}: run one forward first"):
        noisynet.denoise(nn.Sequential(lazy))
    # A draw fits, as the shape is known now.
    drawn = noisynet.draw(trained)
    x = torch.randn(shape)
    with noisynet.using(lazy, drawn), noisynet.using(trained, drawn):
        assert torch.equal(lazy(x), trained(x))
    assert type(lazy) is kind
    assert repr(lazy) == repr(trained)


def test_a_plain_checkpoint_leaves_sigma_to_the_first_input(
    noise: str, lazy_kind: Any, kind: Any, sizes: Any, options: Any, shape: Any
) -> None:
    expected = full(kind, sizes, noise=noise, **options)
    means = {name: value for name, value in expected.state_dict().items() if "sigma" not in name}
    lazy = lazy_kind(*sizes, noise=noise, **options)
    lazy.load_state_dict(means, strict=False)
    noisynet.hold(lazy)
    x = torch.randn(shape)
    y = lazy(x)
    for name, value in expected.state_dict().items():
        assert torch.equal(lazy.state_dict()[name], value), name
    with noisynet.using(expected, noisynet.held(lazy)):
        assert torch.equal(expected(x), y)


def test_copies_and_moves_before_the_first_input(
    lazy_kind: Any, kind: Any, sizes: Any, options: Any, shape: Any
) -> None:
    lazy = lazy_kind(*sizes, **options)
    for made in (copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy)), lazy.to(torch.float64)):
        x = torch.randn(shape, dtype=made.weight.dtype)
        y: Tensor = made(x)
        assert y.dtype == x.dtype
        assert type(made) is kind
        noisynet.hold(made)
        assert torch.equal(made(x), made(x))
    other = lazy_kind(*sizes, **options)
    state = other.state_dict()
    assert all(torch.nn.parameter.is_lazy(value) for value in state.values())
    lazy_kind(*sizes, **options).load_state_dict(state)


def test_bad_options_and_inputs_are_errors(
    lazy_kind: Any, kind: Any, sizes: Any, options: Any, shape: Any
) -> None:
    with pytest.raises(ValueError, match="noise: got 'pink', expected one of"):
        lazy_kind(*sizes, noise="pink")
    lazy = lazy_kind(*sizes, **options)
    if lazy_kind is LazyNoisyConv1d:
        with pytest.raises(ValueError, match="input: got 3 channels, expected a multiple of 2"):
            lazy(torch.randn(2, 3, 7))
    if lazy_kind is not LazyNoisyLinear:
        needed = len(shape) - 1
        said = rf"^input: got shape \(7,\), expected {needed} dimensions or more$"
        with pytest.raises(ValueError, match=said):
            lazy(torch.randn(7))
        with pytest.raises(ValueError, match=r"^groups: got 0, expected at least 1$"):
            lazy_kind(*sizes, groups=0)
    else:
        with pytest.raises(ValueError, match=r"input: got shape \(\), expected \(…, features\)"):
            lazy(torch.tensor(1.0))
        with pytest.raises(ValueError, match=r"expected .*: at least 1 feature"):
            lazy(torch.zeros(3, 0))
    assert type(lazy) is lazy_kind
    assert lazy(torch.randn(shape)).shape[0] == 3
