"""Layers under PyTorch's parametrisations: the noise is added to the mean that these make."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

import noisynet
from noisynet.layers import NoisyConv2d, NoisyLayer, NoisyLinear

Make = Callable[[], nn.Module]

LAYERS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "linear, spectral norm": (lambda: spectral_norm(nn.Linear(5, 4)), (3, 5)),
    "linear, weight norm": (lambda: weight_norm(nn.Linear(5, 4)), (3, 5)),
    "linear, orthogonal": (lambda: orthogonal(nn.Linear(5, 4)), (3, 5)),
    "linear, two at once": (lambda: spectral_norm(weight_norm(nn.Linear(5, 4))), (3, 5)),
    "linear, weight and bias": (
        lambda: spectral_norm(spectral_norm(nn.Linear(5, 4)), "bias"),
        (3, 5),
    ),
    "conv, spectral norm": (
        lambda: spectral_norm(nn.Conv2d(2, 4, 3, groups=2, bias=False)),
        (3, 2, 5, 4),
    ),
    "transposed, spectral norm": (lambda: spectral_norm(nn.ConvTranspose1d(2, 4, 3)), (3, 2, 5)),
}


def every(name: str, layer: nn.Module) -> bool:
    return True


@pytest.fixture(params=LAYERS)
def plain_and_input(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, shape = LAYERS[request.param]
    return make(), torch.randn(shape)


def buffers(layer: nn.Module) -> list[Tensor]:
    return [one.clone() for one in layer.buffers()]


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_the_means_are_those_of_the_plain_layer_step_by_step(
    plain_and_input: tuple[nn.Module, Tensor], noise: str
) -> None:
    plain, x = plain_and_input
    twin = copy.deepcopy(plain)
    net = nn.Sequential(plain)
    former = dict(net.named_parameters())
    assert noisynet.noisify(net, every, noise=noise) is net
    layer = net[0]
    assert type(layer).__name__.startswith("ParametrizedNoisy")
    assert isinstance(layer, parametrize.type_before_parametrizations(twin))
    assert all(dict(net.named_parameters())[name] is one for name, one in former.items())
    # In training mode each forward is a step of the power iteration, in every state.
    for state in ("mean", "fresh", "held", "rows", "mean"):
        if state == "held":
            noisynet.hold(net)
        if state == "rows":
            noisynet.hold(net, rows=3)
        expected = twin(x)
        if state == "mean":
            with noisynet.mean_weights(net):
                assert torch.equal(net(x), expected)
        else:
            assert not torch.equal(net(x), expected)
        assert equal(buffers(layer), buffers(twin))
    back = noisynet.denoise(net)[0]
    assert type(back).__name__ == type(twin).__name__
    assert list(back.state_dict()) == list(twin.state_dict())
    assert torch.equal(back(x), twin(x))
    assert equal(buffers(back), buffers(twin))
    back.eval(), twin.eval()
    assert torch.equal(back(x), twin(x))
    assert torch.equal(back(x), twin(x))


def test_what_is_no_forward_takes_no_step(plain_and_input: tuple[nn.Module, Tensor]) -> None:
    plain, _ = plain_and_input
    before = buffers(plain)
    net = noisynet.noisify(nn.Sequential(plain), every)
    noisynet.hold(net, rows=3)
    noisynet.resample(net, where=[True, False, True])
    noisynet.release(net)
    noisynet.draw(net)
    noisynet.snr(net)
    noisynet.mean_sigma(net)
    noisynet.not_finite(net)
    net[0].reset_sigmas()
    repr(net)
    net.to(torch.float64).to(torch.float32)
    assert equal(buffers(net), before)


def test_reading_the_weight_is_a_step_as_a_forward_is() -> None:
    read, ran = (noisynet.noisify(spectral_norm(nn.Linear(5, 4))) for _ in range(2))
    with torch.no_grad():
        read.parametrizations.weight.original.normal_()  # other weights than the vectors are for
    ran.load_state_dict(read.state_dict())
    before = buffers(read)
    ran(torch.randn(3, 5))
    for reading in (lambda: read.effective_weight(), lambda: read.weight):
        reading()
        assert equal(buffers(read), buffers(ran))
        ran(torch.randn(3, 5))
    assert not equal(buffers(read), before)
    read.eval()
    before = buffers(read)
    read.effective_weight()
    assert equal(buffers(read), before)


def test_the_noise_is_added_to_the_normalised_mean(noise: str) -> None:
    layer = noisynet.noisify(spectral_norm(nn.Linear(5, 4)).double(), noise=noise)
    noisynet.hold(layer)
    drawn = noisynet.held(layer).layer("")
    x = torch.randn(3, 5, dtype=torch.float64)
    leaves = [layer.parametrizations.weight.original, layer.bias]
    leaves += [layer.weight_sigma, layer.bias_sigma]
    layer.eval()  # no step between the two
    y = layer(x)
    made = layer.parametrizations.weight()
    assert float(torch.linalg.matrix_norm(made.detach(), 2)) == pytest.approx(1.0, rel=1e-3)
    weight = made + layer.weight_sigma * drawn.weight_noise()
    expected = x @ weight.mT + layer.bias + layer.bias_sigma * drawn.bias_noise()
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for got, slow in zip(
        torch.autograd.grad(y.square().sum(), leaves),
        torch.autograd.grad(expected.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, slow, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.effective_weight()[0], weight)


@pytest.mark.parametrize("norm", [spectral_norm, weight_norm])
def test_a_plain_checkpoint_loads_without_strict(norm: Callable[..., nn.Module]) -> None:
    net = noisynet.noisify(nn.Sequential(norm(nn.Linear(5, 4)), nn.ReLU(), nn.Linear(4, 2)))
    plain = nn.Sequential(norm(nn.Linear(5, 4)), nn.ReLU(), nn.Linear(4, 2)).eval()
    result = net.load_state_dict(plain.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert all(name.endswith("_sigma") for name in result.missing_keys)
    assert len(result.missing_keys) == 4
    x = torch.randn(3, 5)
    net.eval()
    with noisynet.mean_weights(net):
        assert torch.equal(net(x), plain(x))


def test_a_checkpoint_of_the_older_weight_norm_loads_too() -> None:
    layer = noisynet.noisify(weight_norm(nn.Linear(5, 4)))
    older = {"weight_g": torch.ones(4, 1), "weight_v": torch.randn(4, 5), "bias": torch.zeros(4)}
    result = layer.load_state_dict(older, strict=False)
    assert sorted(result.missing_keys) == ["bias_sigma", "weight_sigma"]
    norms = layer.parametrizations.weight().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(4))


def test_cached_parametrisations_are_made_once() -> None:
    layer = noisynet.noisify(spectral_norm(nn.Linear(5, 4)))
    twin = copy.deepcopy(layer)
    noisynet.hold(layer)
    with parametrize.cached():
        first, second = layer(torch.ones(1, 5)), layer(torch.ones(1, 5))
    twin(torch.ones(1, 5))
    assert torch.equal(first, second)
    assert equal(buffers(layer), buffers(twin))


def test_frozen_parametrisations_stay_frozen() -> None:
    plain = spectral_norm(nn.Linear(5, 4))
    plain.parametrizations.eval()
    layer = noisynet.noisify(plain)
    before = buffers(layer)
    layer(torch.ones(1, 5))
    assert layer.training
    assert equal(buffers(layer), before)
    noisynet.denoise(layer)(torch.ones(1, 5))
    assert equal(buffers(layer), before)


@pytest.mark.parametrize("rows", [None, 3])
def test_a_copy_does_the_same_and_then_goes_its_own_way(
    plain_and_input: tuple[nn.Module, Tensor], rows: int | None
) -> None:
    plain, x = plain_and_input
    net = noisynet.noisify(nn.Sequential(plain), every).eval()
    noisynet.hold(net, rows=rows)
    twin = copy.deepcopy(net)
    before = net(x)
    assert torch.equal(twin(x), before)
    noisynet.resample(twin)
    assert not torch.equal(twin(x), before)
    twin.train()
    twin(x)
    assert torch.equal(net(x), before)


def test_a_noisy_layer_may_be_parametrised_later(noise: str) -> None:
    layer = spectral_norm(NoisyLinear(5, 4, noise=noise))
    noisynet.hold(layer, rows=3)
    twin = copy.deepcopy(layer)
    x = torch.randn(3, 5)
    layer.eval(), twin.eval()
    assert torch.equal(layer(x), twin(x))
    plain = noisynet.denoise(layer)
    assert type(plain).__name__ == "ParametrizedLinear"
    with noisynet.mean_weights(layer):
        assert torch.equal(plain(x), layer(x))


def test_reset_parameters_draws_means_that_the_parametrisation_takes() -> None:
    torch.manual_seed(0)
    layer = noisynet.noisify(weight_norm(nn.Linear(5, 4)))
    former = layer.parametrizations.weight().detach()
    layer.reset_parameters()
    made = layer.parametrizations.weight().detach()
    assert not torch.allclose(made, former)
    assert float(made.abs().max()) <= 5**-0.5 + 1e-6
    assert len(made.unique()) == 20


def test_functional_call_reaches_what_is_parametrised() -> None:
    layer = noisynet.noisify(weight_norm(nn.Linear(5, 4)))
    noisynet.hold(layer)
    x = torch.randn(3, 5)
    values = {name: one.detach() for name, one in layer.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layer, values, (x,)).square().sum()

    gradients = torch.func.grad(loss)(values)
    layer(x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [spectral_norm, weight_norm])
def test_a_compiled_forward_uses_each_new_draw(norm: Callable[..., nn.Module]) -> None:
    torch._dynamo.reset()
    layer = noisynet.noisify(norm(nn.Linear(5, 4))).eval()
    compiled = torch.compile(layer, backend="eager")
    x = torch.randn(3, 5)
    for _ in range(2):
        noisynet.hold(layer)
        torch.testing.assert_close(compiled(x), layer(x))


def lstm() -> Any:
    return weight_norm(nn.LSTM(3, 2), "weight_hh_l0")


def test_what_cannot_be_is_left_alone_with_its_reason() -> None:
    with pytest.raises(ValueError, match="LSTM: nothing to convert"):
        noisynet.noisify(lstm(), every)
    with pytest.raises(ValueError, match="that keeps more than weights and biases"):
        NoisyConv2d.from_conv(torch.nn.utils.spectral_norm(nn.Conv2d(2, 2, 1)))
    layer = weight_norm(NoisyLinear(3, 3), "weight_sigma")
    with pytest.raises(ValueError, match="it keeps more than weights and biases"):
        noisynet.denoise(layer)


@pytest.fixture(autouse=True)
def no_cache_left() -> Iterator[None]:
    yield
    assert parametrize._cache == {}


def test_sigma_may_be_parametrised_too() -> None:
    layer = noisynet.NoisyLinear(3, 2)
    parametrize.register_parametrization(layer, "weight_sigma", nn.Softplus())
    found = {id(one) for one in noisynet.sigma_parameters(layer)}
    own = layer.get_parameter("parametrizations.weight_sigma.original")
    assert found == {id(own), id(layer.bias_sigma)}
    assert not torch.equal(layer(torch.ones(1, 3)), layer(torch.ones(1, 3)))
    parametrize.register_parametrization(layer, "bias_sigma", nn.Softplus())
    assert len(noisynet.sigma_parameters(layer)) == 2


@pytest.mark.parametrize("names", [["weight_sigma"], ["weight_sigma", "bias_sigma"]])
def test_the_doctor_does_not_judge_a_sigma_that_something_else_computes(names: list[str]) -> None:
    parametrised, pruned = noisynet.NoisyLinear(3, 2), noisynet.NoisyLinear(3, 2)
    for name in names:
        parametrize.register_parametrization(parametrised, name, nn.Softplus())
        prune.random_unstructured(pruned, name, amount=0.5)
    for layer in (parametrised, pruned):
        with pytest.raises(ValueError, match="a parametrisation or pruning computes, expected its"):
            noisynet.doctor(layer, torch.ones(1, 3))


class Logarithm(nn.Module):
    """A parametrisation by the logarithm."""

    def forward(self, logarithm: Tensor) -> Tensor:
        return logarithm.exp()

    def right_inverse(self, value: Tensor) -> Tensor:
        return value.log()


@pytest.mark.parametrize(
    "layer",
    [NoisyLinear(4, 2), noisynet.NoisyMultiheadAttention(4, 2), noisynet.NoisyGRU(4, 2)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_reset_sets_a_parametrised_sigma(layer: NoisyLayer) -> None:
    expected = {name: one.clone() for name, one in layer.state_dict().items() if "sigma" in name}
    for name in [name for name, _ in layer.named_parameters(recurse=False) if "_sigma" in name]:
        parametrize.register_parametrization(layer, name, Logarithm())
        with torch.no_grad():
            layer.get_parameter(f"parametrizations.{name}.original").zero_()
    layer.reset_parameters()
    for name, sigma in expected.items():
        torch.testing.assert_close(attrgetter(name)(layer), sigma)
