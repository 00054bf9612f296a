"""Noisy attention: torch's own on the noisy weights is the reference, row by row."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

import noisynet
from noisynet.layers import NoisyMultiheadAttention, OutputNoise, SequenceNoise
from noisynet.layers.noise import NoiseName

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

E, HEADS, N, L, S = 6, 2, 3, 4, 5
SEPARATE = {"kdim": 5, "vdim": 7}
OPTIONS: dict[str, dict[str, Any]] = {
    "packed": {},
    "separate": SEPARATE,
    "no bias": {"bias": False},
    "tokens": {"add_bias_kv": True, "add_zero_attn": True},
    "separate, tokens, no bias": {
        **SEPARATE,
        "bias": False,
        "add_bias_kv": True,
        "add_zero_attn": True,
    },
}


@pytest.fixture(params=[True, False], ids=["batch first", "time first"])
def batch_first(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(params=OPTIONS)
def options(request: pytest.FixtureRequest, batch_first: bool) -> dict[str, Any]:
    return {**OPTIONS[request.param], "batch_first": batch_first}


def new(
    noise: NoiseName, options: dict[str, Any], dtype: Any = torch.float64
) -> NoisyMultiheadAttention:
    layer = NoisyMultiheadAttention(E, HEADS, noise=noise, dtype=dtype, **options)
    with torch.no_grad():
        # Far from the initial values, so that noise shows and every part counts.
        for name, parameter in layer.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.5 if "sigma" in name else 1.0))
    return layer


@pytest.fixture
def layer(noise: NoiseName, options: dict[str, Any]) -> NoisyMultiheadAttention:
    return new(noise, options)


def inputs_for(
    layer: nn.MultiheadAttention, rows: int | None = N, dtype: Any = torch.float64
) -> tuple[Tensor, ...]:
    """Query, key and value, without a batch where there are no rows."""
    shapes = ((L, layer.embed_dim), (S, layer.kdim), (S, layer.vdim))
    inputs = (torch.randn(*([] if rows is None else [rows]), *one, dtype=dtype) for one in shapes)
    if rows is None or layer.batch_first:
        return tuple(inputs)
    return tuple(one.transpose(0, 1) for one in inputs)


def plain_with(layer: Any, weights: Any, output: Any) -> nn.MultiheadAttention:
    """Torch's attention with these (weight, bias) of query, key, value and output."""
    plain: Any = nn.MultiheadAttention(
        layer.embed_dim,
        layer.num_heads,
        bias=layer.in_proj_bias is not None,
        add_bias_kv=layer.bias_k is not None,
        add_zero_attn=layer.add_zero_attn,
        kdim=layer.kdim,
        vdim=layer.vdim,
        batch_first=layer.batch_first,
        dtype=torch.float64,
    )
    state = {
        name: layer.state_dict()[name] for name in ("bias_k", "bias_v") if layer.bias_k is not None
    }
    if plain.in_proj_weight is None:
        named = zip(("q", "k", "v"), weights, strict=True)
        state |= {f"{name}_proj_weight": weight for name, (weight, _) in named}
    else:
        state["in_proj_weight"] = torch.cat([weight for weight, _ in weights])
    state["out_proj.weight"] = output[0]
    if output[1] is not None:
        state |= {"in_proj_bias": torch.cat([b for _, b in weights]), "out_proj.bias": output[1]}
    plain.load_state_dict(state)
    return plain


def under_the_draw(layer: NoisyMultiheadAttention) -> Any:
    return plain_with(layer, layer.effective_weight(), layer.out_proj.effective_weight())


def masks(bools: bool) -> Iterator[dict[str, Tensor]]:
    """No mask, each kind, and both: the first key is always seen."""
    padding = torch.zeros(N, S, dtype=torch.bool)
    padding[0, 3:] = padding[2, 1:] = True
    causal = torch.triu(torch.ones(L, S, dtype=torch.bool), 1)
    by_head = torch.rand(N * HEADS, L, S) > 0.6
    by_head[..., 0] = False
    if not bools:
        causal, by_head = torch.randn(L, S), torch.randn(N * HEADS, L, S)
        padding = torch.where(padding, -math.inf, 0.0)
    for one in ({}, {"attn_mask": causal}, {"attn_mask": by_head}):
        yield one
        yield {**one, "key_padding_mask": padding}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("bools", [True, False])
@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_a_shared_draw_is_torchs_attention_on_the_noisy_weights(
    layer: NoisyMultiheadAttention, bools: bool, need_weights: bool
) -> None:
    noisynet.hold(layer)
    inputs, plain = inputs_for(layer), under_the_draw(layer)
    for given, average in itertools.product(masks(bools), (True, False)):
        given = {
            name: mask if mask.dtype == torch.bool else mask.double()
            for name, mask in given.items()
        }
        call = {"need_weights": need_weights, "average_attn_weights": average, **given}
        for got, expected in zip(layer(*inputs, **call), plain(*inputs, **call), strict=True):
            assert (got is None) == (expected is None)
            if got is not None:
                torch.testing.assert_close(got, expected)


def test_without_a_batch_it_is_a_batch_of_one(layer: NoisyMultiheadAttention) -> None:
    inputs = inputs_for(layer, None)
    noisynet.hold(layer)
    causal = torch.triu(torch.ones(L, S, dtype=torch.bool), 1)
    padding = torch.tensor([False, False, True, False, True])
    plain = under_the_draw(layer)
    for got, expected in zip(
        layer(*inputs, attn_mask=causal, key_padding_mask=padding),
        plain(*inputs, attn_mask=causal, key_padding_mask=padding),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)
    noisynet.hold(layer, rows=1, batch_first=layer.batch_first)
    assert layer(*inputs)[0].shape == (L, E)
    noisynet.hold(layer, rows=L, batch_first=layer.batch_first)
    with pytest.raises(ValueError, match=r"^input: got shape .* 4 rows"):
        layer(*inputs)


def pick(inputs: tuple[Tensor, ...], row: int, batch_first: bool) -> tuple[Tensor, ...]:
    return tuple(one[row : row + 1] if batch_first else one[:, row : row + 1] for one in inputs)


@pytest.mark.parametrize("need_weights", [True, False])
def test_row_i_of_the_batch_uses_draw_i(
    layer: NoisyMultiheadAttention, batch_first: bool, need_weights: bool
) -> None:
    noisynet.hold(layer, rows=N, batch_first=batch_first)
    drawn: Any = noisynet.held(layer)
    inputs = inputs_for(layer)
    padding = torch.zeros(N, S, dtype=torch.bool)
    padding[1, 2:] = True
    options = {"key_padding_mask": padding, "need_weights": need_weights}
    y, weights = layer(*inputs, **options)
    for row in range(N):
        with noisynet.using(layer, drawn[row]):
            plain = under_the_draw(layer)
        alone, of_row = plain(*pick(inputs, row, batch_first), key_padding_mask=padding[row, None])
        torch.testing.assert_close(pick((y,), row, batch_first)[0], alone)
        if need_weights:
            torch.testing.assert_close(weights[row, None], of_row)


def test_rows_that_are_not_the_batch_are_an_error(batch_first: bool, noise: NoiseName) -> None:
    layer = new(noise, {"batch_first": batch_first})
    x = torch.randn(N, N, E, dtype=torch.float64)  # Which size fits says nothing here.
    expected = "the first dimension" if batch_first else "the one beside the features"
    noisynet.hold(layer, rows=N, batch_first=not batch_first)
    with pytest.raises(ValueError, match=rf"^rows: got .* expected {expected}, the batch of this"):
        layer(x, x, x)
    noisynet.hold(layer, rows=N + 1, batch_first=batch_first)
    with pytest.raises(ValueError, match=r"^input: got shape \(3, 3, 6\), .* of 4 rows"):
        layer(x, x, x)


def test_fresh_per_row_is_a_draw_for_each_sequence(noise: NoiseName) -> None:
    layer = new(noise, {"batch_first": True, **SEPARATE})
    noisynet.release(layer, per_row=True, batch_first=True)
    inputs = tuple(one[:1].expand(N, -1, -1) for one in inputs_for(layer))
    # All queries alike: what differs within a sequence could only be noise.
    y = layer(inputs[0][:, :1].expand(-1, L, -1), *inputs[1:])[0]
    assert not torch.equal(y, layer(inputs[0][:, :1].expand(-1, L, -1), *inputs[1:])[0])
    torch.testing.assert_close(y, y[:, :1].expand_as(y))
    assert not torch.allclose(y[0], y[1])


def test_fresh_per_row_without_batch_first_is_a_draw_for_each_vector(
    noise: NoiseName, batch_first: bool
) -> None:
    layer = new(noise, {"batch_first": batch_first, **SEPARATE})
    noisynet.release(layer, per_row=True)
    inputs = inputs_for(layer)
    any_layer: Any = layer
    of_parts = any_layer._noise_for(list(inputs))
    assert [one.rows for one in of_parts] == [tuple(one.shape[:-1]) for one in inputs]
    assert all(isinstance(one, OutputNoise) for one in of_parts) == (noise == "independent")
    query = inputs[0][:1, :1].expand_as(inputs[0])
    y = layer(query, *inputs[1:])[0].flatten(0, 1)
    assert len({tuple(one.tolist()) for one in y.detach()}) == N * L


def test_gradients_are_torchs_on_the_noisy_weights(layer: Any) -> None:
    """∂σ = ∂w ⊙ ε and ∂μ = ∂w, for each of the four projections."""
    noisynet.hold(layer)
    drawn: Any = noisynet.held(layer)
    plain: Any = under_the_draw(layer)
    inputs = inputs_for(layer)
    layer(*inputs)[0].pow(3).sum().backward()
    plain(*inputs)[0].pow(3).sum().backward()
    expected = dict(plain.named_parameters())
    for name, parameter in layer.named_parameters():
        if not name.endswith("_sigma"):
            torch.testing.assert_close(parameter.grad, expected[name].grad)
    of_parts, of_output = drawn.layer(""), drawn.layer("out_proj")
    weights = torch.cat if plain.in_proj_weight is not None else list
    sigma = layer.in_proj_weight_sigma
    sigmas = (
        [sigma]
        if sigma is not None
        else [getattr(layer, f"{one}_proj_weight_sigma") for one in "qkv"]
    )
    means: list[Any] = (
        [plain.in_proj_weight]
        if sigma is not None
        else [getattr(plain, f"{one}_proj_weight") for one in "qkv"]
    )
    epsilons = [one.weight_noise() for one in of_parts.parts]
    for got, mean, epsilon in zip(
        sigmas, means, [weights(epsilons)] if sigma is not None else epsilons, strict=True
    ):
        torch.testing.assert_close(got.grad, mean.grad * epsilon)
    torch.testing.assert_close(
        layer.out_proj.weight_sigma.grad, plain.out_proj.weight.grad * of_output.weight_noise()
    )
    if plain.in_proj_bias is not None:
        bias_noise = torch.cat([one.bias_noise() for one in of_parts.parts])
        torch.testing.assert_close(
            layer.in_proj_bias_sigma.grad, plain.in_proj_bias.grad * bias_noise
        )


def test_the_means_are_torchs_attention_in_every_form(
    noise: NoiseName, options: dict[str, Any]
) -> None:
    noisy = NoisyMultiheadAttention(E, HEADS, noise=noise, dtype=torch.float64, **options)
    plain: Any = nn.MultiheadAttention(E, HEADS, dtype=torch.float64, **options)
    assert isinstance(noisy.out_proj, NonDynamicallyQuantizableLinear)
    result = noisy.load_state_dict(plain.state_dict(), strict=False)
    expected_names = {f"{name}_sigma" for name in plain.state_dict()}
    assert set(result.missing_keys) == expected_names - {"bias_k_sigma", "bias_v_sigma"}
    assert result.unexpected_keys == []
    inputs = inputs_for(noisy)
    expected = plain(*inputs)
    with noisynet.mean_weights(noisy):
        assert all(torch.equal(a, b) for a, b in zip(noisy(*inputs), expected, strict=True))
        (query, _), *_ = noisy.effective_weight()
        first = plain.q_proj_weight if plain.in_proj_weight is None else plain.in_proj_weight[:E]
        assert torch.equal(query, first)
    assert not torch.allclose(noisy(*inputs)[0], expected[0])


def test_packed_parameters_take_the_inputs_of_each_projection_as_p(noise: NoiseName) -> None:
    layer = NoisyMultiheadAttention(64, 2, kdim=16, vdim=36, noise=noise)
    of_bias = [0.5 / math.sqrt(p) if noise == "factorised" else 0.017 for p in (64, 16, 36)]
    expected = torch.tensor(of_bias).repeat_interleave(64)
    assert layer.in_proj_bias_sigma is not None
    torch.testing.assert_close(layer.in_proj_bias_sigma.detach(), expected)
    packed = NoisyMultiheadAttention(64, 2, noise=noise, sigma0=0.3)
    sigma = 0.3 / math.sqrt(64) if noise == "factorised" else 0.3
    assert packed.in_proj_weight_sigma is not None
    torch.testing.assert_close(packed.in_proj_weight_sigma.detach(), torch.full((192, 64), sigma))


def test_packed_projections_draw_apart(noise: NoiseName) -> None:
    """Factorised noise of the packed matrix as one would give all three the same f(ε_i)."""
    drawn: Any = noisynet.draw(NoisyMultiheadAttention(E, HEADS, noise=noise)).layer("")
    assert isinstance(drawn, SequenceNoise)
    parts = [one.weight_noise() for one in drawn.parts]
    for first, second in itertools.combinations(parts, 2):
        together = torch.linalg.matrix_rank(torch.cat([first, second]))
        assert int(together) == (2 if noise == "factorised" else E)


def test_the_noise_acts_whatever_the_mode_and_the_fast_path_is_for_the_means(
    noise: NoiseName,
) -> None:
    layer = new(noise, {"batch_first": True}).eval()
    x = torch.randn(N, L, E, dtype=torch.float64)
    plain = noisynet.denoise(copy.deepcopy(layer))
    noisynet.hold(layer)
    for mode in (True, False):
        layer.train(mode)
        with torch.no_grad():
            y = layer(x, x, x)[0]
        torch.testing.assert_close(y, under_the_draw(layer)(x, x, x)[0])
        assert not torch.allclose(y, plain(x, x, x)[0])
    # Nested tensors are for the fast path alone, and so show which one was taken.
    nested = torch.nested.nested_tensor([x[0], x[1, :2]])
    with torch.no_grad():
        with noisynet.mean_weights(layer):
            got = layer(nested, nested, nested, need_weights=False)[0]
        expected = plain(nested, nested, nested, need_weights=False)[0]
        for one, other in zip(got.unbind(), expected.unbind(), strict=True):
            assert torch.equal(one, other)
        with pytest.raises(ValueError, match=r"^query: got a nested tensor, expected a padded one"):
            layer(nested, nested, nested, need_weights=False)


def test_the_noise_of_the_output_alone_is_enough_to_leave_the_fast_path() -> None:
    layer = new("factorised", {"batch_first": True}).eval()
    x = torch.randn(N, L, E, dtype=torch.float64)
    noisynet.hold(layer)
    with noisynet.mean_weights(layer):
        means = layer.effective_weight()
        # Inside, the output's noise comes back: a part of a net has a state of its own.
        with noisynet.using(layer.out_proj, noisynet.draw(layer.out_proj)), torch.no_grad():
            plain = plain_with(layer, means, layer.out_proj.effective_weight())
            torch.testing.assert_close(layer(x, x, x)[0], plain(x, x, x)[0])


def test_dropout_acts_while_training_alone() -> None:
    layer = new("factorised", {"batch_first": True, "dropout": 0.5})
    noisynet.hold(layer)
    x = torch.randn(N, 64, E, dtype=torch.float64)
    for need_weights in (True, False):
        layer.train()
        assert not torch.equal(*(layer(x, x, x, need_weights=need_weights)[0] for _ in range(2)))
        layer.eval()
        assert torch.equal(*(layer(x, x, x, need_weights=need_weights)[0] for _ in range(2)))
    layer.train()
    _, weights = layer(x, x, x, average_attn_weights=False)
    # Half of them are 0; five standard errors of 3 · 2 · 64² coins.
    assert abs(float((weights == 0).double().mean()) - 0.5) < 5 * 0.5 / math.sqrt(weights.numel())


def test_noisify_and_denoise_keep_parameters_settings_and_hooks(
    noise: NoiseName, options: dict[str, Any]
) -> None:
    plain = nn.MultiheadAttention(E, HEADS, dropout=0.25, dtype=torch.float64, **options).eval()
    net = nn.ModuleDict({"attention": plain})
    inputs, seen = inputs_for(plain), []
    handle = plain.register_forward_hook(lambda *_: seen.append("forward"))
    parameters, settings = dict(plain.named_parameters()), vars(plain).keys()
    expected = plain(*inputs)[0]
    noisynet.noisify(net, noise=noise)
    noisy = net["attention"]
    assert type(noisy) is NoisyMultiheadAttention
    assert list(noisynet.noisy_layers(net)) == ["attention", "attention.out_proj"]
    assert not noisy.out_proj.training
    assert type(plain.out_proj) is NonDynamicallyQuantizableLinear
    now = dict(noisy.named_parameters())
    assert all(now[name] is parameter for name, parameter in parameters.items())
    assert all(sigma.requires_grad for sigma in noisynet.sigma_parameters(net))
    assert not torch.equal(noisy(*inputs)[0], expected)
    assert noisynet.denoise(net) is net
    back = net["attention"]
    assert type(back) is nn.MultiheadAttention
    assert type(back.out_proj) is NonDynamicallyQuantizableLinear
    assert vars(back).keys() == settings
    assert dict(back.named_parameters()).keys() == parameters.keys()
    assert all(dict(back.named_parameters())[name] is one for name, one in parameters.items())
    assert torch.equal(back(*inputs)[0], expected)
    assert len(seen) == 3
    handle.remove()
    back(*inputs)
    assert len(seen) == 3
    root = noisynet.noisify(plain, noise=noise)
    assert type(root) is NoisyMultiheadAttention
    assert type(noisynet.denoise(root).out_proj) is NonDynamicallyQuantizableLinear


def test_where_is_asked_about_the_whole_attention() -> None:
    net = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "head": nn.Linear(4, 2)})
    asked: dict[str, type] = {}

    def where(name: str, layer: nn.Module) -> bool:
        asked[name] = type(layer)
        return name == "attention"

    noisynet.noisify(net, where)
    assert asked == {"attention": nn.MultiheadAttention, "head": nn.Linear}
    assert list(noisynet.noisy_layers(net)) == ["attention", "attention.out_proj"]


class OwnAttention(nn.MultiheadAttention):
    """Has no forward of its own, and could have one."""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: OwnAttention(4, 2), "a OwnAttention, not a plain MultiheadAttention"),
        (
            lambda: nn.utils.parametrizations.weight_norm(
                nn.MultiheadAttention(4, 2), "in_proj_weight"
            ),
            "it keeps more than weights and biases",
        ),
    ],
)
def test_attention_of_another_kind_is_left_alone_as_a_whole(
    make: Callable[[], nn.Module], reason: str
) -> None:
    net = nn.ModuleDict({"attention": make(), "head": nn.Linear(4, 2)})
    with pytest.warns(UserWarning, match=rf"leaves alone: attention \(.*{reason}") as caught:
        noisynet.noisify(net)
    assert len(caught) == 1
    assert list(noisynet.noisy_layers(net)) == ["head"]


def test_an_attention_whose_output_was_replaced_is_left_alone() -> None:
    net = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "head": nn.Linear(4, 2)})
    net["attention"].out_proj = noisynet.NoisyLinear(4, 4)
    with pytest.warns(UserWarning, match=r"attention \(its out_proj is a NoisyLinear\)"):
        noisynet.noisify(net)
    assert type(net["attention"]) is nn.MultiheadAttention


def test_attention_that_shares_its_weights_shares_their_sigma() -> None:
    net: Any = nn.ModuleList([nn.MultiheadAttention(4, 2), nn.MultiheadAttention(4, 2)])
    net[1].in_proj_weight, net[1].out_proj.weight = net[0].in_proj_weight, net[0].out_proj.weight
    noisynet.noisify(net)
    assert net[1].in_proj_weight_sigma is net[0].in_proj_weight_sigma
    assert net[1].out_proj.weight_sigma is net[0].out_proj.weight_sigma
    assert net[1].in_proj_bias_sigma is not net[0].in_proj_bias_sigma


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda a, x: a(x, x, x[..., :5]), r"input: got shape \(3, 4, 5\), expected \(…, 6\)"),
        (lambda a, x: a(x, x[0], x[0]), r"key: got shape \(4, 6\) beside a query \(3, 4, 6\)"),
        (lambda a, x: a(x[None], x, x), r"query: got shape \(1, 3, 4, 6\) .* expected 3 dim"),
        (lambda a, x: a(x, x[:2], x[:2]), r"key, value: got shapes .* the query's batch of 3"),
        (lambda a, x: a(x, x, x[:, :2]), r"key, value: got shapes \(3, 4, 6\) and \(3, 2, 6\)"),
        (lambda a, x: a(x, x, x, is_causal=True), "attn_mask: got None with is_causal, expected"),
        (
            lambda a, x: a(x, x, x, attn_mask=torch.zeros(4, 3)),
            r"attn_mask: got shape \(4, 3\), expected \(4, 4\) or \(6, 4, 4\)",
        ),
        (
            lambda a, x: a(x, x, x, key_padding_mask=torch.zeros(4, 3)),
            r"key_padding_mask: got shape \(4, 3\), expected \(3, 4\)",
        ),
        (
            lambda a, x: a(x, x, x, attn_mask=torch.zeros(4, 4, dtype=torch.int)),
            "attn_mask: got torch.int32, expected torch.bool or a floating dtype",
        ),
    ],
)
def test_errors_name_what_was_given_and_what_fits(call: Any, said: str) -> None:
    layer = NoisyMultiheadAttention(E, HEADS, batch_first=True)
    with pytest.raises(ValueError, match=f"^{said}"):
        call(layer, torch.randn(N, L, E))


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((6, 4), {}, "num_heads: got 4, expected a divisor of 6"),
        ((6, 0), {}, "num_heads: got 0, expected at least 1"),
        ((6, 2), {"kdim": 0}, "kdim: got 0, expected at least 1"),
        ((6, 2), {"vdim": 2.0}, "vdim: got 2.0, expected an integer"),
        ((6, 2), {"sigma0": -1}, "sigma0: got -1, expected a finite"),
        ((6, 2, 0.0, 0.1), {}, "bias: got 0.1, expected True or False"),
    ],
)
def test_wrong_options(arguments: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        NoisyMultiheadAttention(*arguments, **options)
    linear: Any = nn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"got a Linear, expected an nn\.MultiheadAttention"):
        NoisyMultiheadAttention.from_attention(linear)


def test_figures_of_the_noise_count_every_projection() -> None:
    layer = NoisyMultiheadAttention(E, HEADS)
    assert noisynet.snr(layer).keys() == noisynet.mean_sigma(layer).keys() == {"", "out_proj"}
    assert noisynet.mean_sigma(layer)[""] == pytest.approx(0.5 / math.sqrt(E))
    assert repr(layer).splitlines()[:2] == [
        "NoisyMultiheadAttention(",
        "  noise='factorised' (fresh)",
    ]
