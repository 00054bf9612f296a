"""The scale multiplies σ ⊙ ε: in every layer, form and state, for values and for gradients."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import noisynet
from noisynet.control import scale
from noisynet.layers.convert import LINEAR, OTHERS
from noisynet.layers.transposed import noisy_kind_of

from ..layers.references import Transposed

# Forward derivatives load decompositions that torch compiles by a deprecated function.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*deprecated:DeprecationWarning")


def transposed_linear(*, dtype: torch.dtype, **options: Any) -> nn.Module:
    assert dtype == torch.float64
    return noisy_kind_of(Transposed).from_plain(Transposed(5, 6), **options)


class Attends(nn.Module):
    """Attention of a sequence to itself; its keys and values are the first features."""

    def __init__(self, kdim: int, vdim: int, **options: Any) -> None:
        super().__init__()
        self.attention = noisynet.NoisyMultiheadAttention(
            6, 2, kdim=kdim, vdim=vdim, batch_first=True, **options
        )

    def forward(self, x: Tensor) -> Tensor:
        key, value = x[..., : self.attention.kdim], x[..., : self.attention.vdim]
        return self.attention(x, key, value)[0]


Makers = dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]]

LAYERS: Makers = {
    # Tiny is always one product; small and large are two products or one, by the batch.
    "linear, tiny": (lambda **o: noisynet.NoisyLinear(6, 5, **o), (6,)),
    "linear, no bias": (lambda **o: noisynet.NoisyLinear(6, 5, bias=False, **o), (6,)),
    "linear, small": (lambda **o: noisynet.NoisyLinear(130, 129, **o), (130,)),
    "linear, large": (lambda **o: noisynet.NoisyLinear(260, 256, **o), (260,)),
    "conv1d": (lambda **o: noisynet.NoisyConv1d(4, 6, 3, padding=1, **o), (4, 9)),
    "conv2d, groups": (lambda **o: noisynet.NoisyConv2d(4, 6, 3, groups=2, **o), (4, 8, 7)),
    "conv3d": (lambda **o: noisynet.NoisyConv3d(2, 3, 2, **o), (2, 3, 4, 3)),
    "transposed conv1d": (
        lambda **o: noisynet.NoisyConvTranspose1d(4, 6, 3, stride=2, groups=2, **o),
        (4, 5),
    ),
    "transposed conv2d": (lambda **o: noisynet.NoisyConvTranspose2d(3, 2, 3, **o), (3, 4, 5)),
    "transposed conv3d": (lambda **o: noisynet.NoisyConvTranspose3d(2, 3, 2, **o), (2, 3, 2, 3)),
    "transposed linear": (transposed_linear, (6,)),
    "lstm cell": (lambda **o: noisynet.NoisyLSTMCell(5, 6, **o), (5,)),
    "gru cell": (lambda **o: noisynet.NoisyGRUCell(5, 6, **o), (5,)),
}
SEQUENCES: Makers = {
    "attention": (lambda **o: Attends(6, 6, **o), (3, 6)),
    "attention, unpacked": (lambda **o: Attends(4, 5, **o), (3, 6)),
    "lstm": (
        lambda **o: noisynet.NoisyLSTM(
            5, 6, num_layers=2, bidirectional=True, proj_size=3, batch_first=True, **o
        ),
        (4, 5),
    ),
    "lstm, one step": (lambda **o: noisynet.NoisyLSTM(130, 40, batch_first=True, **o), (1, 130)),
    "gru": (lambda **o: noisynet.NoisyGRU(5, 6, batch_first=True, **o), (4, 5)),
    "rnn": (lambda **o: noisynet.NoisyRNN(5, 6, batch_first=True, **o), (4, 5)),
    # A linear layer whose rows are sequences.
    "linear": (lambda **o: noisynet.NoisyLinear(6, 5, **o), (3, 6)),
}
STATES = ("fresh", "per row", "held", "rows", "static", "using", "using rows")
KINDS = ("factorised", "independent")


def outputs_and_gradients(
    layer: nn.Module,
    state: str,
    x: Tensor,
    *,
    factor: float | None = None,
    batch_first: bool = False,
) -> list[Tensor]:
    """Run a layer under the draws of one seed; give y, and the gradients of x, μ and σ.

    With a factor σ is multiplied by it before it is used, as the equation has it: what the scale
    must be equal to.
    """
    torch.manual_seed(7)
    rows = len(x) if "rows" in state else None
    place = {"rows": rows, "batch_first": batch_first and rows is not None}
    if state in ("held", "rows", "static"):
        noisynet.hold(layer, **place, static=state == "static")
    else:
        per_row = state == "per row"
        noisynet.release(layer, per_row=per_row, batch_first=batch_first and per_row)
    parameters = dict(layer.named_parameters())
    used = {
        name: one * factor if factor is not None and name.endswith("_sigma") else one
        for name, one in parameters.items()
    }
    drawn = noisynet.draw(layer, **place) if "using" in state else None

    def run() -> Any:
        return torch.func.functional_call(layer, used, (x,)) if factor is not None else layer(x)

    if drawn is None:
        y = run()
    else:
        with noisynet.using(layer, drawn):
            y = run()
    y = y[0] if isinstance(y, tuple) else y
    wanted = [x, *parameters.values()]
    return [y, *torch.autograd.grad(y.square().sum(), wanted)]


def compare_with_the_equation(
    layer: nn.Module, state: str, shape: tuple[int, ...], *, batch_first: bool = False
) -> None:
    for batch in (1, 20):
        x = torch.randn(batch, *shape, dtype=torch.float64, requires_grad=True)
        scale(layer, 0.3)
        found = outputs_and_gradients(layer, state, x, batch_first=batch_first)
        scale(layer, 1.0)
        expected = outputs_and_gradients(layer, state, x, factor=0.3, batch_first=batch_first)
        unscaled = outputs_and_gradients(layer, state, x, batch_first=batch_first)
        assert not torch.allclose(expected[0], unscaled[0], rtol=1e-4)
        for ours, reference in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_sigma_times_the_scale_in_float64(name: str, kind: str, state: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(1)
    layer = make(noise=kind, sigma0=0.5, dtype=torch.float64)
    compare_with_the_equation(layer, state, shape)


@pytest.mark.parametrize("state", [*STATES, "per row, each vector"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SEQUENCES)
def test_so_it_is_where_rows_are_sequences(name: str, kind: str, state: str) -> None:
    make, shape = SEQUENCES[name]
    torch.manual_seed(1)
    layer = make(noise=kind, sigma0=0.5, dtype=torch.float64)
    state, _, vectors = state.partition(", ")
    compare_with_the_equation(layer, state, shape, batch_first=not vectors)


@pytest.mark.parametrize("name", [*LAYERS, *SEQUENCES])
def test_a_sigma_that_is_not_learned_acts_and_has_no_gradient(name: str) -> None:
    make, shape = {**LAYERS, **SEQUENCES}[name]
    torch.manual_seed(2)
    layer = make(learned=False, dtype=torch.float64)
    assert {id(one) for one in noisynet.sigma_parameters(layer)} == {
        id(one) for one in layer.parameters() if not one.requires_grad
    }
    x = torch.randn(3, *shape, dtype=torch.float64)
    y = layer(x)
    y = y[0] if isinstance(y, tuple) else y
    with noisynet.mean_weights(layer):
        mean = layer(x)
    assert not torch.equal(y, mean[0] if isinstance(mean, tuple) else mean)
    y.square().sum().backward()
    for parameter_name, parameter in layer.named_parameters():
        assert (parameter.grad is None) == parameter_name.endswith("_sigma"), parameter_name


PLAIN = [
    nn.Linear(4, 3),
    nn.MultiheadAttention(4, 2),
    *(conv(2, 3, 2) for conv in (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
    *(conv(2, 3, 2) for conv in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)),
    *(rnn(4, 3) for rnn in (nn.LSTMCell, nn.GRUCell, nn.LSTM, nn.GRU, nn.RNN)),
]
NAMED = ("from_linear", "from_attention", "from_conv", "from_cell", "from_rnn")


def test_every_kind_of_layer_is_converted_below() -> None:
    assert {type(plain) for plain in PLAIN} == {*LINEAR, *OTHERS}


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("plain", PLAIN, ids=lambda plain: type(plain).__name__)
def test_a_layer_that_is_converted_learns_sigma_or_not(plain: nn.Module, learned: bool) -> None:
    converted = noisynet.noisify(copy.deepcopy(plain), where=lambda *_: True, learned=learned)
    kind = type(converted)
    make = next(getattr(kind, name) for name in NAMED if hasattr(kind, name))
    for layer in (converted, make(copy.deepcopy(plain), learned=learned)):
        sigmas = noisynet.sigma_parameters(layer)
        assert sigmas
        assert {one.requires_grad for one in sigmas} == {learned}
        assert {part.learned for part in noisynet.layers.noisy_layers(layer).values()} == {learned}
        with pytest.raises(ValueError, match="learned: got 1, expected True or False"):
            make(copy.deepcopy(plain), learned=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_layer_by_hand(kind: str) -> None:
    torch.manual_seed(2)
    layer = noisynet.NoisyLinear(3, 2, noise=kind, dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64)
    drawn = noisynet.draw(layer)
    noise = drawn.layer("")
    scale(layer, 0.25)
    with noisynet.using(layer, drawn):
        y = layer(x)
    weight = layer.weight + 0.25 * layer.weight_sigma * noise.weight_noise()
    bias = layer.bias + 0.25 * layer.bias_sigma * noise.bias_noise()
    torch.testing.assert_close(y, x @ weight.T + bias, rtol=1e-13, atol=1e-13)
    (gradient,) = torch.autograd.grad(y.sum(), layer.weight_sigma)
    expected = 0.25 * noise.weight_noise() * x.sum(0)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [(8, 4), (300, 260)])
@pytest.mark.parametrize("state", ["held", "rows", "static"])
def test_a_held_draw_changes_its_effect_at_once(state: str, shape: tuple[int, int]) -> None:
    layer = noisynet.NoisyLinear(*shape)
    x = torch.randn(3, shape[0])
    with noisynet.mean_weights(layer):
        mean = layer(x)
    noisynet.hold(layer, rows=3 if state == "rows" else None, static=state == "static")
    full = layer(x)
    former = noisynet.held(layer)
    scale(layer, 0.5)
    torch.testing.assert_close(layer(x) - mean, 0.5 * (full - mean), rtol=1e-3, atol=1e-4)
    scale(layer, 0.0)
    torch.testing.assert_close(layer(x), mean, rtol=1e-6, atol=1e-6)
    scale(layer, 1.0)
    torch.testing.assert_close(layer(x), full, rtol=1e-6, atol=1e-6)
    # The draw itself is a value without the scale.
    assert former is not None
    assert torch.equal(noisynet.held(layer).flats[0], former.flats[0])


@given(first=st.floats(0, 100), second=st.floats(0, 100))
def test_the_noise_of_an_output_is_proportional_to_the_scale(first: float, second: float) -> None:
    layer = noisynet.NoisyLinear(4, 3, dtype=torch.float64)
    x = torch.randn(2, 4, dtype=torch.float64)
    noisynet.hold(layer)
    with noisynet.mean_weights(layer):
        mean = layer(x)
    scale(layer, first)
    one = layer(x) - mean
    scale(layer, second)
    two = layer(x) - mean
    torch.testing.assert_close(second * one, first * two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_moments_of_fresh_noise(kind: str) -> None:
    layer = noisynet.NoisyLinear(50, 40, noise=kind)
    scale(layer, 3.0)
    torch.manual_seed(0)
    noise = torch.stack([layer.effective_weight()[1] - layer.bias for _ in range(200)])
    squares = (noise / layer.bias_sigma).detach().square() / 9
    expected = math.sqrt(2 / math.pi) if kind == "factorised" else 1.0
    # Five standard errors of 8,000 squares.
    assert abs(float(squares.mean()) - expected) < 5 * float(squares.std()) / math.sqrt(8000)


def test_it_is_in_no_state_dict_and_follows_copies_and_pickles() -> None:
    net = noisynet.noisify(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    plain = set(net.state_dict())
    scale(net, 0.3)
    assert set(net.state_dict()) == plain
    target = copy.deepcopy(net)
    sent = pickle.loads(pickle.dumps(net))
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=False)
    assert [scale(one) for one in (target, sent, saved)] == [0.3, 0.3, 0.3]
    x = torch.randn(5, 4)
    drawn = noisynet.draw(net)

    def under(one: nn.Module) -> Tensor:
        with noisynet.using(one, drawn):
            return one(x)

    for one in (target, sent, saved):
        assert torch.equal(under(one), under(net))
    # A copy goes its own way, and weights that are loaded bring no scale.
    scale(target, 2.0)
    assert scale(net) == 0.3
    target.load_state_dict(net.state_dict())
    assert scale(target) == 2.0


@pytest.mark.parametrize("batch_first", [(), (True,)])
def test_a_layer_pickled_before_there_was_a_scale_has_none(batch_first: tuple[bool, ...]) -> None:
    state = noisynet.NoisyLinear(2, 2).noise_state
    state.__setstate__((None, True, False, *batch_first))
    assert (state.scale, state.control, state.per_row) == (1.0, None, True)
    assert state.batch_first == bool(batch_first)


def test_a_pickle_keeps_the_scale_and_where_the_rows_are() -> None:
    layer = noisynet.NoisyLinear(3, 2)
    noisynet.hold(layer, rows=4, batch_first=True)
    scale(layer, 0.3)
    x = torch.randn(4, 5, 3)
    for sent in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert scale(sent) == 0.3
        assert torch.equal(sent(x), layer(x))
    assert "held for 4 rows, batch first, scale 0.3" in repr(layer)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_follows_the_dtype_and_loses_no_digits_to_it(dtype: torch.dtype) -> None:
    layer = noisynet.NoisyLinear(6, 5)
    scale(layer, 0.3)
    layer.to(dtype)
    assert scale(layer) == 0.3
    y = layer(torch.ones(2, 6, dtype=dtype))
    assert y.dtype == dtype
    scale(layer, 1.01 * scale(layer))
    assert scale(layer) == pytest.approx(0.303)
    multiplier = layer.noise_state.multiplier
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    assert multiplier is not None
    assert multiplier.dtype == exact


def test_a_layer_made_without_memory_gets_it_with_its_weights() -> None:
    layer = noisynet.NoisyLinear(3, 2, device="meta")
    scale(layer, 0.5)
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert float(layer.noise_state.multiplier) == 0.5
    assert layer(torch.ones(1, 3)).isfinite().all()


def test_a_lazy_layer_keeps_it() -> None:
    layer = noisynet.LazyNoisyLinear(3)
    scale(layer, 0.0)
    x = torch.randn(4, 6)
    y = layer(x)
    with noisynet.mean_weights(layer):
        assert torch.equal(y, layer(x))


@pytest.mark.skipif(torch.__version__ < (2, 7), reason="torch 2.6 fails to compile it as a whole")
def test_compiled_forwards_see_every_change_without_compiling_anew() -> None:
    net = noisynet.noisify(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    noisynet.hold(net)
    scale(net, 0.5)
    torch._dynamo.reset()
    counts = CompileCounter()
    compiled = torch.compile(net, backend=counts, fullgraph=True)
    x = torch.randn(5, 4)
    for value in (0.5, 0.4, 1.0, 0.3, 0.0, 2.0, 0.7, 0.6, 0.9, 0.8):
        scale(net, value)
        torch.testing.assert_close(compiled(x), net(x))
    assert counts.frame_count == 1


def test_per_sample_gradients_and_forward_derivatives_see_it() -> None:
    layer = noisynet.NoisyLinear(4, 3, dtype=torch.float64)
    x, v = torch.randn(2, 5, 4, dtype=torch.float64).unbind(0)
    noisynet.hold(layer)
    scale(layer, 0.5)
    weight = layer.effective_weight()[0]
    _, derivative = torch.func.jvp(layer, (x,), (v,))
    torch.testing.assert_close(derivative, v @ weight.T)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, "0.3", True, None.__class__])
def test_bad_values_are_one_line_and_change_nothing(value: Any) -> None:
    layer = noisynet.NoisyLinear(2, 2)
    with pytest.raises(
        ValueError, match=r"^scale: got .*, expected a finite number of at least 0$"
    ):
        scale(layer, value)
    assert scale(layer) == 1.0


def test_a_net_without_noise_and_layers_that_differ() -> None:
    with pytest.raises(ValueError, match="scale: got Linear, which has no noisy layer"):
        scale(nn.Linear(2, 2), 0.3)
    net = noisynet.noisify(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    scale(net[0], 0.5)
    with pytest.raises(ValueError, match=r"scale: the layers have different ones, 0\.5, 1"):
        scale(net)
    assert scale(net, 0.7) == 0.7


def test_figures_of_the_noise_respect_it() -> None:
    torch.manual_seed(3)
    net = noisynet.noisify(nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)))
    snr, sigma = noisynet.snr(net), noisynet.mean_sigma(net)
    batch = torch.randn(200, 5)
    before = noisynet.behaviour(net, batch)
    scale(net, 0.1)
    assert noisynet.snr(net) == pytest.approx({name: 10 * one for name, one in snr.items()})
    assert noisynet.mean_sigma(net) == pytest.approx(
        {name: one / 10 for name, one in sigma.items()}
    )
    after = noisynet.behaviour(net, batch)
    assert after.effective_epsilon < before.effective_epsilon / 2
    scale(net, 0.0)
    assert set(noisynet.snr(net).values()) == {math.inf}
    assert noisynet.behaviour(net, batch).effective_epsilon == 0
    assert "scale 0" in repr(net)
