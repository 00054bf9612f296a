"""The kernels against the plain float64 reference: on a GPU, else in Triton's interpreter.

Without a GPU, test_triton.py runs this file in a process of its own: whether Triton interprets is
settled when it is first imported.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import noisynet
from noisynet.layers import FactorisedNoise, functional
from noisynet.layers.kernels import dispatch, fused
from noisynet.layers.kernels import first_use as first_uses
from noisynet.layers.kernels import philox as by_philox
from noisynet.layers.kernels.fused import FUSED_UP_TO
from noisynet.layers.kernels.launch import CounterNoise, combine
from noisynet.layers.weights import Weights

pytestmark = pytest.mark.skipif(
    not dispatch.is_installed(), reason="Triton is not installed (pip install triton)"
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Sizes that fill no tile, with a number of inputs that four does not divide.
P, Q = 70, 37
KINDS = ["shared", "rows", "counter"]
AGREE = dispatch._agree
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2.0**-6}


@pytest.fixture(autouse=True)
def kernels_on_small_layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without a GPU the kernels run on the CPU, one tile after the other."""
    assert DEVICE == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    monkeypatch.setattr(dispatch, "TINY_WEIGHT", 0)
    monkeypatch.setattr(dispatch, "SMALL_WEIGHT", 0)
    # Compared here, in float64; what a first use compares has tests of its own.
    monkeypatch.setattr(dispatch, "_agree", lambda *_: True)
    with dispatch.with_kernels(interpreted=DEVICE == "cpu"):
        yield


def new_layer(
    kind: str, *, bias: bool = True, dtype: torch.dtype = torch.float32, rows: int | None = None
) -> noisynet.NoisyLinear:
    noise = "independent" if kind == "counter" else "factorised"
    layer = noisynet.NoisyLinear(P, Q, bias=bias, noise=noise, device=DEVICE, dtype=dtype)
    # Apart from its initial constant, σ shows where it is read.
    torch.nn.init.normal_(layer.weight_sigma)
    if kind == "rows":
        noisynet.hold(layer, rows=rows)
    return layer


def parameters_of(layer: noisynet.NoisyLinear) -> tuple[Any, ...]:
    return layer.weight, layer.bias, layer.weight_sigma, layer.bias_sigma


def epsilon_of(noise: Any) -> Tensor:
    """ε_w as the kernels make it; `weight_noise` of a counter makes it without them."""
    if isinstance(noise, CounterNoise):
        return combine(None, None, noise, noise.shape, torch.float32)
    return noise.weight_noise()


def reference(x: Tensor, parameters: tuple[Any, ...], noise: Any) -> Tensor:
    """Equation 9 in float64, with ε_w as a matrix of its own for each row."""
    weight, bias, weight_sigma, bias_sigma = parameters
    noisy = weight + weight_sigma * epsilon_of(noise).double()
    y = (noisy @ x.unsqueeze(-1)).squeeze(-1)
    return y if bias is None else y + bias + bias_sigma * noise.bias_noise().double()


def error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).detach().norm() / expected.detach().norm())


def differentiate(
    function: Callable[..., Tensor], tensors: tuple[Any, ...], dtype: torch.dtype | None = None
) -> tuple[Tensor, ...]:
    given = tuple(
        None if t is None else t.detach().to(t.dtype if dtype is None else dtype).requires_grad_()
        for t in tensors
    )
    y = function(given[0], given[1:])
    wanted = [tensor for tensor in given if tensor is not None]
    return y, *torch.autograd.grad(y.double().square().mean() * Q, wanted)


def check(kind: str, batch: int, bias: bool, dtype: torch.dtype, autocast: bool) -> None:
    layer = new_layer(kind, bias=bias, rows=batch, dtype=torch.float32 if autocast else dtype)
    noise: Any = layer.noise_in_force()
    assert isinstance(noise, CounterNoise if kind == "counter" else FactorisedNoise)
    tensors = (
        torch.randn(batch, P, device=DEVICE, dtype=layer.weight.dtype),
        *parameters_of(layer),
    )

    def compute(x: Tensor, parameters: tuple[Any, ...]) -> Tensor:
        with torch.autocast(DEVICE, torch.bfloat16) if autocast else nullcontext():
            by_kernels = dispatch.is_for_kernels(x, Weights(*parameters), noise)
            assert by_kernels == (kind != "rows" or batch <= 64)
            return functional.noisy_linear(x, *parameters, noise)

    expected = differentiate(lambda x, p: reference(x, p, noise), tensors, torch.float64)
    got = differentiate(compute, tensors)
    assert got[0].dtype == dtype
    for ours, slow, given in zip(got[1:], expected[1:], filter_none(tensors), strict=True):
        assert ours.dtype == given.dtype
        assert ours.shape == given.shape
        assert error(ours, slow) < 2 * TOLERANCE[dtype]
    assert error(got[0], expected[0]) < TOLERANCE[dtype]


def filter_none(tensors: tuple[Any, ...]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [5, 70])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_gradients(kind: str, batch: int, bias: bool, dtype: torch.dtype) -> None:
    check(kind, batch, bias, dtype, autocast=False)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind: str) -> None:
    check(kind, 6, bias=True, dtype=torch.bfloat16, autocast=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [0, 1, 2, 3, 4])
def test_gradients_with_one_argument_frozen(kind: str, frozen: int) -> None:
    layer, x = new_layer(kind, rows=4), torch.randn(4, P, device=DEVICE, requires_grad=True)
    tensors = [x, *parameters_of(layer)]
    tensors[frozen].requires_grad_(False)
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    noise: Any = layer.noise_in_force()
    got = torch.autograd.grad(functional.noisy_linear(*tensors, noise).sum(), wanted)
    with dispatch.plain_operations():
        plain = torch.autograd.grad(functional.noisy_linear(*tensors, noise).sum(), wanted)
    for ours, expected in zip(got, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_derivative_is_that_of_plain_operations(kind: str) -> None:
    layer, x = new_layer(kind, rows=3), torch.randn(3, P, device=DEVICE, requires_grad=True)
    wanted = (x, *layer.parameters())
    noise: Any = layer.noise_in_force()

    def penalty() -> tuple[Tensor, ...]:
        y = functional.noisy_linear(x, *parameters_of(layer), noise)
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), wanted, allow_unused=True)

    got = penalty()
    with dispatch.plain_operations():
        plain = penalty()
    for ours, expected in zip(got, plain, strict=True):
        # A counter's ε_w is made by the kernels and without them: equal but for rounding.
        assert error(ours, expected) < 1e-5


def test_rows_repeat_over_leading_dimensions() -> None:
    """Time × environment: the draw of row i serves every time."""
    layer, x = new_layer("rows", rows=4), torch.randn(3, 4, P, device=DEVICE)
    noise: Any = layer.noise_in_force()
    y = layer(x)
    assert y.shape == (3, 4, Q)
    parameters = tuple(tensor.double() for tensor in parameters_of(layer))
    assert error(y, reference(x.double(), parameters, noise)) < 1e-6


def philox(counter: int, key: int) -> list[int]:
    """Philox-4x32-10 (Salmon et al., 2011), one counter at a time."""
    word = 2**32 - 1
    c = [counter & word, counter >> 32, 0, 0]
    k = [key & word, key >> 32]
    for _ in range(10):
        left, right = 0xCD9E8D57 * c[2], 0xD2511F53 * c[0]
        c = [(left >> 32) ^ c[1] ^ k[0], left & word, (right >> 32) ^ c[3] ^ k[1], right & word]
        k = [(k[0] + 0x9E3779B9) & word, (k[1] + 0xBB67AE85) & word]
    return c


def four_normals(counter: int, key: int) -> list[float]:
    """Two pairs by Box and Muller, from integers read as signed and folded into [0, 1)."""
    signed = [word - 2**32 if word >= 2**31 else word for word in philox(counter, key)]
    u = [(-value - 1 if value < 0 else value) * 2.0**-31 for value in signed]
    radii = [math.sqrt(-2.0 * math.log(max(1e-7, u[n]))) for n in (0, 2)]
    return [
        radius * turn(2 * math.pi * u[n])
        for radius, n in zip(radii, (1, 3), strict=True)
        for turn in (math.cos, math.sin)
    ]


def test_the_reference_philox_is_that_of_the_paper() -> None:
    """The first known answer that its authors publish: all words 0."""
    assert philox(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("seed", [0, 1706_10295, 2**62 + 12345])
@pytest.mark.parametrize("shape", [(3, 5), (2, 8), (35, 66)])
def test_the_noise_is_philox_by_counter(seed: int, shape: tuple[int, int]) -> None:
    noise = CounterNoise(
        torch.tensor([seed], device=DEVICE), torch.Size(shape), None, torch.float32
    )
    built = epsilon_of(noise)
    per_row = -(-shape[1] // 4)
    rows = [
        [z for c in range(per_row) for z in four_normals(j * per_row + c, seed)][: shape[1]]
        for j in range(shape[0])
    ]
    expected = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(built.cpu().double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(built, epsilon_of(noise))
    torch.testing.assert_close(noise.weight_noise(), built, rtol=1e-4, atol=1e-5)


def test_moments_of_the_counters_noise() -> None:
    count = 256 * 256
    drawn = CounterNoise(
        torch.tensor([7], device=DEVICE), torch.Size((256, 256)), None, torch.float32
    )
    normals = epsilon_of(drawn).double()
    # Five standard errors of the mean, of the variance, and of a correlation of neighbours.
    bound = 5 / math.sqrt(count)
    assert abs(float(normals.mean())) < bound
    assert abs(float(normals.square().mean()) - 1) < bound * math.sqrt(2)
    for shifted in (normals.roll(1, 0), normals.roll(1, 1), normals.roll(4, 1)):
        assert abs(float((normals * shifted).mean())) < bound


def test_a_fresh_layer_draws_a_new_seed_that_the_generator_decides() -> None:
    layer, x = new_layer("counter"), torch.randn(4, P, device=DEVICE)
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)
    assert not torch.allclose(first, second)
    torch.manual_seed(5)
    weight, bias = layer.effective_weight()
    torch.testing.assert_close(
        torch.nn.functional.linear(x, weight, bias), first, rtol=1e-4, atol=1e-4
    )


def test_the_noise_of_a_fresh_draw_is_not_kept() -> None:
    noise = new_layer("counter").noise_in_force()
    assert isinstance(noise, CounterNoise)
    assert noise.seed.numel() == 1
    assert noise.bias is not None
    assert noise.bias.shape == (Q,)


def test_a_held_draw_is_stored_and_the_same_by_either_way() -> None:
    """A draw stays a value: what is held or used goes by the values in it."""
    layer, x = new_layer("counter"), torch.randn(4, P, device=DEVICE)
    noisynet.hold(layer)
    drawn = noisynet.held(layer)
    assert drawn is not None
    assert drawn.flats[0].numel() == P * Q + Q
    with dispatch.plain_operations():
        plain = layer(x)
    assert torch.equal(layer(x), plain)


@pytest.mark.parametrize(
    "change", ["float64", "no rows", "transposed weight", "vmap", "many rows, a draw each"]
)
def test_what_the_kernels_leave_to_plain_operations(change: str) -> None:
    layer, x = new_layer("shared"), torch.randn(4, P, device=DEVICE)
    if change == "float64":
        layer, x = layer.double(), x.double()
    elif change == "no rows":
        x = x[:0]
    elif change == "transposed weight":
        layer.weight.data = layer.weight.data.mT.contiguous().mT
    elif change == "many rows, a draw each":
        x = torch.randn(FUSED_UP_TO + 1, P, device=DEVICE)
        noisynet.hold(layer, rows=len(x))
    noise: Any = layer.noise_in_force()
    if change == "vmap":
        seen: list[bool] = []

        def one(row: Tensor) -> Tensor:
            seen.append(dispatch.is_for_kernels(row, *layer.weights(), noise))
            return functional.noisy_linear(row, *parameters_of(layer), noise)

        torch.testing.assert_close(torch.func.vmap(one)(x), one(x))
        assert seen == [False, True]
        return
    assert not dispatch.is_for_kernels(x, *layer.weights(), noise)
    assert layer(x).shape == (len(x), Q)


def test_weights_that_changed_before_backward_are_an_error_as_in_nn_linear() -> None:
    layer, x = new_layer("shared"), torch.randn(4, P, device=DEVICE, requires_grad=True)
    y = layer(x)
    with torch.no_grad():
        layer.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_without_triton_a_line_says_that_numbers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = new_layer("counter"), torch.randn(4, P, device=DEVICE)
    monkeypatch.setattr(dispatch, "is_installed", lambda: False)
    dispatch._has_triton.cache_clear()
    with pytest.warns(UserWarning, match="Triton is not installed"):
        layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)  # once
        new_layer("shared")(x)  # the same values either way: in silence
    dispatch._has_triton.cache_clear()


def test_combine_scales_and_adds() -> None:
    layer = new_layer("shared")
    noise: Any = layer.noise_in_force()
    shape = layer.weight.shape
    epsilon = epsilon_of(noise)
    with torch.no_grad():
        built = combine(layer.weight, layer.weight_sigma, noise, shape, torch.float32)
        torch.testing.assert_close(built, layer.weight + layer.weight_sigma * epsilon)
        scaled = combine(None, layer.weight, noise, shape, torch.float32)
        torch.testing.assert_close(scaled, layer.weight * epsilon)
    assert torch.equal(combine(None, None, noise, shape, torch.float32), epsilon)


def call_of(kind: str) -> Any:
    """A layer, and a call of it that leaves nothing to chance."""
    layer, x = new_layer(kind, rows=6), torch.randn(6, P, device=DEVICE)

    def call() -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        y = layer(x)
        return y.detach(), *torch.autograd.grad(y.square().sum(), list(layer.parameters()))

    return call


@pytest.fixture
def first_use(monkeypatch: pytest.MonkeyPatch, kernels_on_small_layers: None) -> list[str | None]:
    """What the comparisons of first uses found, with none made yet."""
    found: list[str | None] = []

    def difference(*arguments: Any) -> str | None:
        found.append(first_uses.difference(*arguments))
        return found[-1]

    monkeypatch.setattr(dispatch, "_agree", AGREE)
    monkeypatch.setattr(dispatch._settings, "compared", set())
    recording = SimpleNamespace(key_of=first_uses.key_of, difference=difference)
    monkeypatch.setattr(dispatch, "first_use", recording)
    return found


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, torch.float32) for kind in KINDS), ("shared", torch.bfloat16)],
)
def test_a_first_use_is_compared_once_for_each_shape(
    first_use: list[str | None], kind: str, dtype: torch.dtype
) -> None:
    layer = new_layer(kind, bias=kind != "rows", dtype=dtype, rows=6)
    x = torch.randn(6, P, device=DEVICE, dtype=dtype)
    seen = []
    for _ in range(2):
        torch.manual_seed(3)
        with torch.inference_mode():
            # A comparison takes nothing from the caller's generator.
            seen.append((layer(x), torch.randn(3, device=DEVICE)))
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one, other)
    layer(x[None] * 2)
    assert first_use == [None]
    if kind != "rows":
        layer(x[:3])
        assert first_use == [None, None]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("shared", "product"),
        ("shared", "an error"),
        ("rows", "input_gradient"),
        ("counter", "product"),
        ("counter", "weight_gradients"),
    ],
)
def test_wrong_kernels_are_left_alone_with_one_warning(
    first_use: list[str | None], monkeypatch: pytest.MonkeyPatch, kind: str, wrong: str
) -> None:
    call = call_of(kind)
    name = "product" if wrong == "an error" else wrong
    right = getattr(fused, name)

    def made_wrong(*arguments: Any) -> Any:
        if wrong == "an error":
            raise RuntimeError("no such device\nand more")
        result = right(*arguments)
        (result[2] if isinstance(result, tuple) else result)[-1, -1] += 0.5
        return result

    monkeypatch.setattr(fused, name, made_wrong)
    says = "RuntimeError: no such device" if wrong == "an error" else "differs by"
    with dispatch.with_kernels(interpreted=DEVICE == "cpu"):
        with pytest.warns(UserWarning, match=rf"NOISYNET_KERNELS.*\(37, 70\).*{says}"):
            got = call()
        assert not dispatch._settings.allowed
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call()
    assert len(first_use) == 1
    # The draw of the call that found it is kept: the same seed, made without the kernels.
    monkeypatch.setattr(fused, name, right)
    for ours, expected in zip(got, call(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_the_noise_of_a_counter_is_compared_with_philox(
    first_use: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that agree among themselves on other noise are wrong, too."""
    monkeypatch.setattr(by_philox, "normals", lambda seed, shape: torch.zeros(shape, device=DEVICE))
    with pytest.warns(UserWarning, match="differs by"):
        call_of("counter")()
    dispatch._settings.allowed = True
    assert first_use[0] is not None
