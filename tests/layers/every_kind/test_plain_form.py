"""Every kind of layer is the layer of torch that its noisy weights make."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import noisynet
from noisynet import layers


def plain_parameters(layer: Any) -> dict[str, Tensor]:
    """The parameters of the plain layer that does what the noise in force does."""
    made = layer.effective_weight()
    if isinstance(layer, nn.RNNBase):
        return made
    if isinstance(layer, nn.RNNCellBase):
        (weight_ih, bias_ih), (weight_hh, bias_hh) = made
        return {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih} | {
            "bias_hh": bias_hh
        }
    if not isinstance(layer, nn.MultiheadAttention):
        return dict(zip(("weight", "bias"), made, strict=True))
    parts = [weight for weight, _ in made]
    given = {f"out_proj.{name}": one for name, one in plain_parameters(layer.out_proj).items()}
    given["in_proj_bias"] = torch.cat([bias for _, bias in made])
    if "q_proj_weight" in dict(layer.named_parameters()):
        given |= {f"{name}_proj_weight": one for name, one in zip("qkv", parts, strict=True)}
    else:
        given["in_proj_weight"] = torch.cat(parts)
    return given


def test_a_shared_draw_is_the_plain_layer_of_the_noisy_weights(kind: Any, noise: Any) -> None:
    layer, inputs = kind.build(noise, dtype=torch.float64), kind.inputs(dtype=torch.float64)
    plain = kind.build_plain(dtype=torch.float64)
    plain.load_state_dict(layer.state_dict(), strict=False)
    kind.hold(layer)
    noisy = plain_parameters(layer)
    for given in kind.calls(inputs):
        expected = kind.as_one(torch.func.functional_call(plain, noisy, given))
        torch.testing.assert_close(kind.as_one(layer(*given)), expected, rtol=1e-12, atol=1e-12)
    if kind.takes_more_dimensions:
        with_time = layer(*tree_map(lambda one: one.unsqueeze(0), inputs))
        torch.testing.assert_close(with_time, layer(*inputs).unsqueeze(0))
    noisynet.resample(layer)
    assert not any(torch.equal(now, noisy[name]) for name, now in plain_parameters(layer).items())
    kind.hold(layer, kind.rows)
    shapes = {name: (kind.rows, *one.shape) for name, one in noisy.items()}
    if not kind.is_attention:
        assert {name: one.shape for name, one in plain_parameters(layer).items()} == shapes


def test_it_is_a_layer_of_torch_whose_checkpoint_loads(kind: Any, noise: Any) -> None:
    layer, plain, inputs = kind.build(noise), kind.build_plain(), kind.inputs()
    assert isinstance(layer, kind.plain)
    sigmas = {name: one.clone() for name, one in layer.state_dict().items() if "sigma" in name}
    assert sigmas
    with pytest.raises(RuntimeError, match=r"Missing key.*weight\w*_sigma"):
        layer.load_state_dict(plain.state_dict())
    result = layer.load_state_dict(plain.state_dict(), strict=False)
    assert set(result.missing_keys) == sigmas.keys()
    assert result.unexpected_keys == []
    assert all(torch.equal(layer.state_dict()[name], one) for name, one in sigmas.items())
    expected = kind.as_one(plain(*inputs))
    with noisynet.mean_weights(layer):
        for given in kind.calls(inputs):
            assert torch.equal(kind.as_one(layer(*given)), kind.as_one(plain(*given)))
        if not isinstance(layer, nn.RNNBase | nn.MultiheadAttention):
            parameters = dict(plain.named_parameters())
            means = plain_parameters(layer)
            assert means.keys() == parameters.keys()
            assert all(means[name] is getattr(layer, name) for name in means)
    assert not torch.equal(kind.as_one(layer(*inputs)), expected)
    assert noisynet.snr(layer).keys() == noisynet.noisy_layers(layer).keys()
    if not kind.is_attention:
        assert repr(layer) == f"Noisy{repr(plain)[:-1]}, noise={noise!r} (fresh))"


def test_no_noise_in_any_register_and_draws_are_values(
    kind: Any, noise: Any, rows: int | None
) -> None:
    layer, other, inputs = kind.build(noise), kind.build(noise), kind.inputs()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    plain = set(kind.build_plain().state_dict())
    of_noise = {f"{name}_sigma" for name in plain if name not in ("bias_k", "bias_v")}
    for prepare in (noisynet.release, lambda layer: kind.hold(layer, rows)):
        prepare(layer)
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        assert before.keys() == dict(layer.named_parameters()).keys() == plain | of_noise
        assert list(layer.buffers()) == []
        noisynet.resample(layer)
        assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert set(noisynet.denoise(copy.deepcopy(layer)).state_dict()) == plain
    assert other.load_state_dict(layer.state_dict()) == ([], [])
    drawn: Any = noisynet.held(layer)
    with noisynet.using(other, drawn), noisynet.using(layer, drawn):
        assert torch.equal(kind.as_one(other(*inputs)), kind.as_one(layer(*inputs)))


def test_bfloat16_autocast_is_close_to_float32(kind: Any, noise: Any, rows: int | None) -> None:
    layer, inputs = kind.build(noise), kind.inputs()
    parameters = list(layer.parameters())
    kind.hold(layer, rows)
    exact = kind.as_one(layer(*inputs))
    with torch.autocast("cpu", torch.bfloat16):
        try:
            plain = kind.build_plain()(*inputs)
        except RuntimeError as error:
            if "primitive descriptor" not in str(error):
                raise
            pytest.skip("PyTorch's own layer has no bfloat16 on this CPU")
        result = layer(*inputs)
    if not kind.is_sequence:  # With a draw for each row, an LSTM's output is float32.
        for one, expected in zip(tree_leaves(result), tree_leaves(plain), strict=True):
            assert one.dtype == expected.dtype
    fast = kind.as_one(result).float()
    # Each term passes some roundings of 2⁻⁹, relative, and a recurrent layer's three steps.
    assert 0 < float((fast - exact).detach().norm() / exact.detach().norm()) < 4 * 2.0**-8
    gradients = torch.autograd.grad(fast.square().sum(), parameters)
    assert {one.dtype for one in gradients} == {torch.float32}
    expected = torch.autograd.grad(exact.square().sum(), parameters)
    difference = kind.as_one(gradients) - kind.as_one(expected)
    assert float(difference.norm() / kind.as_one(expected).norm()) < 8 * 2.0**-8


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, 2.0**-8), (torch.bfloat16, 2.0**-5), (torch.float64, 1e-6)],
)
def test_layers_of_other_dtypes_compute_in_them(
    kind: Any, noise: Any, dtype: torch.dtype, tolerance: float, rows: int | None
) -> None:
    layer, inputs = kind.build(noise), kind.inputs()
    kind.hold(layer, rows)
    exact, drawn = kind.as_one(layer(*inputs)).detach(), noisynet.held(layer)
    assert drawn is not None
    layer.to(dtype)
    # What is held follows the dtype.
    held: Any = noisynet.held(layer)
    for now, before in zip(held.flats, drawn.flats, strict=True):
        assert now.dtype == dtype
        assert torch.equal(now, before.to(dtype))
    given = tree_map(lambda one: one.to(dtype), inputs)
    result = layer(*given)
    assert {one.dtype for one in tree_leaves(result)} == {dtype}
    assert float((kind.as_one(result).detach() - exact).norm() / exact.norm()) < tolerance
    kind.as_one(result).sum().backward()
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {dtype}
    noisynet.resample(layer)
    assert {one.dtype for one in tree_leaves(layer(*given))} == {dtype}


# A layer of many weights, and the number of inputs p of each.
LARGE: dict[str, tuple[Callable[..., Any], dict[str, int]]] = {
    "conv": (lambda **o: layers.NoisyConv1d(8, 40, 3, groups=2, **o), {"weight": 12}),
    "conv 2d": (lambda **o: layers.NoisyConv2d(5, 40, (3, 2), **o), {"weight": 30}),
    "transposed": (
        lambda **o: layers.NoisyConvTranspose2d(8, 40, 3, groups=2, **o),
        {"weight": 4 * 9},
    ),
    "transposed 3d": (lambda **o: layers.NoisyConvTranspose3d(2, 40, 2, **o), {"weight": 16}),
    "cell": (lambda **o: layers.NoisyLSTMCell(50, 30, **o), {"weight_ih": 50, "weight_hh": 30}),
    "gru cell": (lambda **o: layers.NoisyGRUCell(50, 30, **o), {"weight_ih": 50, "weight_hh": 30}),
    "lstm": (
        lambda **o: layers.NoisyLSTM(50, 30, 2, bidirectional=True, proj_size=20, **o),
        {
            f"weight_{end}{direction}": p
            for end, p in {
                "ih_l0": 50,
                "hh_l0": 20,
                "hr_l0": 30,
                "ih_l1": 40,
                "hh_l1": 20,
                "hr_l1": 30,
            }.items()
            for direction in ("", "_reverse")
        },
    ),
    "attention": (
        lambda **o: layers.NoisyMultiheadAttention(64, 2, kdim=16, vdim=36, **o),
        {"q_proj_weight": 64, "k_proj_weight": 16, "v_proj_weight": 36, "out_proj.weight": 64},
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_initial_values_take_each_weights_own_inputs_as_p(name: str, noise: Any) -> None:
    make, inputs = LARGE[name]
    values = {name: one.detach() for name, one in make(noise=noise).named_parameters()}
    for weight, p in inputs.items():
        bound = math.sqrt((1 if noise == "factorised" else 3) / p)
        sigma = 0.5 / math.sqrt(p) if noise == "factorised" else 0.017
        for mean in {weight, weight.replace("weight", "bias")} & values.keys():
            # Among 40 uniform values or more, one is above 0.85 of the bound for sure.
            if mean != "out_proj.bias":
                assert 0.85 * bound < float(values[mean].abs().max()) <= bound
            value = values[f"{mean}_sigma"]
            torch.testing.assert_close(value, torch.full_like(value, sigma))


def test_an_unknown_noise_is_an_error(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"^noise: got 'pink', expected one of"):
        kind.build("pink")
