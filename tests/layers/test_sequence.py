"""Noisy LSTM, GRU and RNN: against loops over time in float64, and against torch's own layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence
from torch.utils._pytree import tree_leaves

import noisynet
from noisynet.layers import NoisyGRU, NoisyLSTM, NoisyRNN, SequenceNoise
from noisynet.layers.kernels import dispatch
from noisynet.layers.noise import NoiseName

from .references import slow_noisy_linear

# What PyTorch says of a plain LSTM with a projection, too.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

PLAIN: dict[type, type] = {NoisyLSTM: nn.LSTM, NoisyGRU: nn.GRU, NoisyRNN: nn.RNN}
KINDS = list(PLAIN)
OPTIONS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "no bias, batch first": {"bias": False, "batch_first": True},
    "projection": {"num_layers": 2, "bidirectional": True, "proj_size": 1},
    "relu": {"nonlinearity": "relu", "num_layers": 2},
}
FORMS = [
    (kind, name)
    for kind in KINDS
    for name in OPTIONS
    if name not in ("projection", "relu")
    or (kind is NoisyLSTM and name == "projection")
    or (kind is NoisyRNN and name == "relu")
]

form = pytest.mark.parametrize(
    ("kind", "options"), FORMS, ids=[f"{kind.__name__}, {name}" for kind, name in FORMS]
)


def build(kind: Any, options: str, noise: NoiseName, **more: Any) -> Any:
    return kind(3, 2, noise=noise, sigma0=0.5, **OPTIONS[options], **more)


@pytest.fixture(params=KINDS, ids=["lstm", "gru", "rnn"])
def layer(request: pytest.FixtureRequest, noise: NoiseName) -> Any:
    return build(request.param, "two layers, both directions", noise)


def random_state(layer: Any, *batch: int, dtype: torch.dtype | None = None) -> Any:
    runs = layer.num_layers * (2 if layer.bidirectional else 1)
    h = torch.randn(runs, *batch, layer.proj_size or layer.hidden_size, dtype=dtype)
    if not isinstance(layer, nn.LSTM):
        return h
    return h, torch.randn(runs, *batch, layer.hidden_size, dtype=dtype)


def as_one(result: Any) -> Tensor:
    """All numbers of an output and its state."""
    # To torch 2.6 a packed sequence is a leaf.
    parts = [list(one) if isinstance(one, PackedSequence) else one for one in tree_leaves(result)]
    tensors = [one for one in tree_leaves(parts) if isinstance(one, Tensor)]
    return torch.cat([one.flatten() for one in tensors if one.is_floating_point()])


def sequences(layer: Any, time: int, batch: int, dtype: torch.dtype | None = None) -> Tensor:
    shape = (batch, time) if layer.batch_first else (time, batch)
    return torch.randn(*shape, layer.input_size, dtype=dtype)


def parts_of(layer: Any) -> dict[str, tuple[Any, ...]]:
    """{"ih_l0": (μ, μ_b, σ, σ_b, noise), …} of the draw that a layer holds."""
    held: Any = noisynet.held(layer)
    drawn = held.layer("")
    assert isinstance(drawn, SequenceNoise)
    found: dict[str, tuple[Any, ...]] = {}
    for (name, _), part in zip(layer.weight_names(), drawn.parts, strict=True):
        end = name.removeprefix("weight_")
        names = (name, f"bias_{end}", f"{name}_sigma", f"bias_{end}_sigma")
        found[end] = (*(getattr(layer, one, None) for one in names), part)
    return found


def by_loops(layer: Any, slow: Callable[..., Tensor], input: Tensor, hx: Any) -> Any:
    """The equations of torch's documentation, a step and a gate at a time, each from eq. 9."""
    parts, n, gates = parts_of(layer), layer.hidden_size, layer.gates
    state = list(hx) if isinstance(hx, tuple) else [hx]
    x = input.transpose(0, 1) if layer.batch_first else input
    finals: list[list[Tensor]] = []
    for level in range(layer.num_layers):
        sides = []
        for direction in range(2 if layer.bidirectional else 1):
            end = f"l{level}" + ("_reverse" if direction else "")
            h, *c = (part[len(finals)] for part in state)
            outputs: dict[int, Tensor] = {}
            times = range(len(x))
            for t in reversed(times) if direction else times:
                a, b = slow(x[t], *parts[f"ih_{end}"]), slow(h, *parts[f"hh_{end}"])
                gate = [slice(k * n, (k + 1) * n) for k in range(gates)]
                if isinstance(layer, nn.LSTM):
                    i, f, o = (torch.sigmoid(a[:, gate[k]] + b[:, gate[k]]) for k in (0, 1, 3))
                    c = [f * c[0] + i * torch.tanh(a[:, gate[2]] + b[:, gate[2]])]
                    h = o * torch.tanh(c[0])
                    if layer.proj_size:
                        h = slow(h, *parts[f"hr_{end}"])
                elif isinstance(layer, nn.GRU):
                    r, z = (torch.sigmoid(a[:, gate[k]] + b[:, gate[k]]) for k in (0, 1))
                    new = torch.tanh(a[:, gate[2]] + r * b[:, gate[2]])
                    h = (1 - z) * new + z * h
                else:
                    h = torch.tanh(a + b) if layer.nonlinearity == "tanh" else torch.relu(a + b)
                outputs[t] = h
            sides.append(torch.stack([outputs[t] for t in times]))
            finals.append([h, *c])
        x = torch.cat(sides, -1)
    stacked = tuple(torch.stack(part) for part in zip(*finals, strict=True))
    output = x.transpose(0, 1) if layer.batch_first else x
    return output, stacked if isinstance(layer, nn.LSTM) else stacked[0]


@form
@pytest.mark.parametrize("rows", [None, 2])
def test_forward_and_gradients_are_those_of_the_equations(
    kind: Any, options: str, noise: NoiseName, rows: int | None
) -> None:
    layer = build(kind, options, noise, dtype=torch.float64)
    noisynet.hold(layer, rows=rows)
    x = sequences(layer, 3, 2, torch.float64).requires_grad_()
    state = random_state(layer, 2, dtype=torch.float64)
    leaves = [x, *layer.parameters()]
    fast, slow = layer(x, state), by_loops(layer, slow_noisy_linear, x, state)
    assert fast[0].shape == slow[0].shape
    for got, expected in zip(tree_leaves(fast), tree_leaves(slow), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(as_one(fast))
    for got, expected in zip(
        torch.autograd.grad((as_one(fast) * cotangent).sum(), leaves),
        torch.autograd.grad((as_one(slow) * cotangent).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_an_rnn_of_one_unit_by_hand() -> None:
    layer = NoisyRNN(1, 1, nonlinearity="relu", dtype=torch.float64)
    values = {"weight_ih_l0": 1.0, "weight_hh_l0": 2.0, "bias_ih_l0": 0.5, "bias_hh_l0": 0.0}
    values |= {"weight_ih_l0_sigma": 0.5, "weight_hh_l0_sigma": 0.25}
    values |= {"bias_ih_l0_sigma": 0.1, "bias_hh_l0_sigma": 1.0}
    with torch.no_grad():
        for name, value in values.items():
            getattr(layer, name).fill_(value)
    # f(ε_i), f(ε_j) = 2, 1 for the input's weight and −2, 3 for the state's: ε_w = 2 and −6,
    # ε_b = 1 and 3. So W_ih = 2, b_ih = 0.6, W_hh = 0.5 and b_hh = 3.
    flat = torch.tensor([2.0, 1.0, -2.0, 3.0], dtype=torch.float64)
    noisynet.hold(layer, drawn=noisynet.Draw((flat,), noisynet.draw(layer).slots))
    output, last = layer(torch.tensor([[1.0], [-2.0]], dtype=torch.float64))
    # h_1 = 2 + 0.6 + 3 = 5.6 and h_2 = −4 + 0.6 + 2.8 + 3 = 2.4
    torch.testing.assert_close(output, torch.tensor([[5.6], [2.4]], dtype=torch.float64))
    assert torch.equal(last, output[1:])


@form
def test_every_call_is_that_of_torchs_layer_with_the_noisy_weights(
    kind: Any, options: str, noise: NoiseName
) -> None:
    layer, plain = build(kind, options, noise), PLAIN[kind](3, 2, **OPTIONS[options])
    names = list(plain.state_dict())
    plain.load_state_dict({name: getattr(layer, name) for name in names})
    packed = pack_sequence([torch.randn(n, 3) for n in (2, 4)], enforce_sorted=False)
    calls = [
        (sequences(layer, 4, 2),),
        (sequences(layer, 4, 2), random_state(layer, 2)),
        (torch.randn(4, 3),),
        (torch.randn(4, 3), random_state(layer)),
        (packed, random_state(layer, 2)),
    ]
    with noisynet.mean_weights(layer):
        for call in calls:
            assert torch.equal(as_one(layer(*call)), as_one(plain(*call)))
        means = layer.effective_weight()
        assert list(means) == names
        assert all(means[name] is getattr(layer, name) for name in names)
    noisynet.hold(layer)
    weights = layer.effective_weight()
    assert set(weights) == set(names)
    for call in calls:
        expected = torch.func.functional_call(plain, weights, call)
        assert torch.equal(as_one(layer(*call)), as_one(expected))
        assert not torch.equal(as_one(layer(*call)), as_one(plain(*call)))


@pytest.mark.parametrize("rows", [None, 5])
def test_a_fresh_draw_holds_over_the_sequence(layer: Any, rows: int | None) -> None:
    noisynet.release(layer, per_row=rows is not None)
    x = sequences(layer, 4, 5)
    torch.manual_seed(3)
    first = as_one(layer(x))
    torch.manual_seed(3)
    noisynet.hold(layer, rows=rows)
    # One draw for all steps, and the same as `hold` makes.
    torch.testing.assert_close(as_one(layer(x)), first)


@form
def test_row_i_of_a_packed_sequence_uses_draw_i(kind: Any, options: str, noise: NoiseName) -> None:
    layer = build(kind, options, noise)
    noisynet.hold(layer, rows=3)
    drawn: Any = noisynet.held(layer)
    given = [torch.randn(n, 3) for n in (2, 4, 3)]
    hx = random_state(layer, 3)
    input = pack_sequence(given, enforce_sorted=False)
    output, last = layer(input, hx)
    reference = PLAIN[kind](3, 2, **OPTIONS[options])(input)[0]
    assert torch.equal(output.batch_sizes, reference.batch_sizes)
    assert torch.equal(output.unsorted_indices, reference.unsorted_indices)

    def row_of(state: Any, row: int) -> Any:
        return tuple(s[:, row] for s in state) if isinstance(state, tuple) else state[:, row]

    for row, found in enumerate(unpack_sequence(output)):
        with noisynet.using(layer, drawn[row]):
            alone, end = layer(given[row], row_of(hx, row))
        torch.testing.assert_close(found, alone)
        torch.testing.assert_close(row_of(last, row), end)


def test_a_sorted_packed_sequence_comes_back_as_it_was(layer: Any) -> None:
    noisynet.hold(layer, rows=2)
    output, _ = layer(pack_sequence([torch.randn(3, 3), torch.randn(2, 3)]))
    assert output.sorted_indices is None
    assert output.batch_sizes.tolist() == [2, 2, 1]


def test_a_packed_sequence_with_another_default_device(layer: Any) -> None:
    noisynet.hold(layer, rows=2)
    packed = pack_sequence([torch.randn(3, 3), torch.randn(2, 3)])
    expected, _ = layer(packed)
    with torch.device("meta"):
        output, _ = layer(packed)
    assert torch.equal(output.data, expected.data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_steps_of_a_large_layer_are_its_sequence(kind: Any, batch_first: bool) -> None:
    # Large enough for the form that builds no weight where a policy acts.
    layer = kind(150, 150, 2, batch_first=batch_first)
    noisynet.hold(layer)
    x = sequences(layer, 4, 3)
    with torch.no_grad():
        whole, last = layer(x)
        outputs, state = [], None
        for x_t in x.split(1, 1 if batch_first else 0):
            assert dispatch.shared_form(x_t, layer.weights()[0]) == "two products"
            output, state = layer(x_t, state)
            outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1 if batch_first else 0), whole)
    torch.testing.assert_close(as_one(state), as_one(last))


def test_a_subclass_may_have_a_step_of_its_own() -> None:
    class Counting(noisynet.NoisyLSTM):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.step = 0

    layer, input = Counting(), torch.randn(4, 5, 3)
    noisynet.hold(layer, rows=5)
    assert layer(input)[0].shape == (4, 5, 2)


@pytest.mark.parametrize("rows", [None, 2])
def test_dropout_acts_between_layers_in_training_mode(noise: NoiseName, rows: int | None) -> None:
    layer = NoisyGRU(3, 2, 2, dropout=1.0, noise=noise)
    noisynet.hold(layer, rows=rows)
    x = torch.randn(4, 2, 3)
    # Everything is dropped between the layers: the second one sees zeros.
    assert torch.equal(layer(x)[0], layer(-x)[0])
    layer.eval()
    assert not torch.equal(layer(x)[0], layer(-x)[0])


def test_a_forward_leaves_the_layers_own_weights_in_place(layer: Any) -> None:
    noisynet.hold(layer)
    x = sequences(layer, 3, 2)
    layer(x)
    own = [layer.get_parameter(name) for name in layer._flat_weights_names]
    assert all(a is b for a, b in zip(layer._flat_weights, own, strict=True))


def test_a_held_forward_sees_weights_that_changed_by_data(layer: Any) -> None:
    noisynet.hold(layer)
    x = sequences(layer, 3, 2)
    layer(x)
    layer.weight_ih_l0.data.mul_(2.0)
    layer.weight_hh_l0_sigma.data.mul_(-3.0)
    plain = PLAIN[type(layer)](3, 2, 2, bidirectional=True)
    weights = {name: mean.detach() for name, mean in layer.named_parameters()}
    held: Any = noisynet.held(layer)
    drawn = held.layer("")
    for (weight, bias), part in zip(layer.weight_names(), drawn.parts, strict=True):
        weights[weight] = weights[weight] + weights[f"{weight}_sigma"] * part.weight_noise()
        weights[bias] = weights[bias] + weights[f"{bias}_sigma"] * part.bias_noise()
    made = {name: value for name, value in weights.items() if not name.endswith("_sigma")}
    expected = torch.func.functional_call(plain, made, (x,))
    torch.testing.assert_close(as_one(layer(x)), as_one(expected))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
# The compiler hides this one itself, but not where warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("rows", [None, 4])
def test_a_compiled_net_uses_each_new_draw(layer: Any, rows: int | None) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory, self.head = layer, noisynet.NoisyLinear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.memory(x)[0])

    torch.compiler.reset()
    net = Net()
    # Not as one graph: the compiler leaves torch's recurrent layers to PyTorch.
    compiled = torch.compile(net, backend="eager")
    x = sequences(layer, 3, 4)
    noisynet.hold(net, rows=rows)
    first = compiled(x)
    torch.testing.assert_close(first, net(x))
    noisynet.resample(net)
    torch.testing.assert_close(compiled(x), net(x))
    assert not torch.equal(first, compiled(x))
    with noisynet.mean_weights(net):
        torch.testing.assert_close(compiled(x), net(x))


def test_a_root_and_its_former_share_parameters_and_nothing_else(noise: NoiseName) -> None:
    plain = nn.LSTM(3, 2)
    layer = noisynet.noisify(plain, lambda name, part: True, noise=noise)
    assert type(layer) is NoisyLSTM
    x = torch.randn(4, 1, 3)
    expected = as_one(plain(x))
    back = noisynet.denoise(layer)
    assert type(back) is nn.LSTM
    assert back.weight_ih_l0 is layer.weight_ih_l0 is plain.weight_ih_l0
    plain.weight_ih_l0 = nn.Parameter(torch.zeros(8, 3))
    with noisynet.mean_weights(layer):
        assert torch.equal(as_one(layer(x)), expected)
    assert torch.equal(as_one(back(x)), expected)


def test_errors_name_what_came_and_what_fits(layer: Any) -> None:
    noisynet.hold(layer, rows=4)
    expected = "expected a batch of 4: the noise in force is one draw for each of 4 rows$"
    with pytest.raises(ValueError, match=f"^input: got a batch of 2, {expected}"):
        layer(torch.randn(4, 2, 3))
    with pytest.raises(ValueError, match=rf"^input: got shape \(4, 3\), {expected}"):
        layer(torch.randn(4, 3))
    with pytest.raises(ValueError, match=f"^input: got a batch of 2, {expected}"):
        layer(pack_sequence([torch.randn(4, 3), torch.randn(1, 3)]))
    # The rest are PyTorch's own errors, in every state.
    for rows in (None, 4):
        noisynet.hold(layer, rows=rows)
        with pytest.raises(RuntimeError, match="Expected 3, got 5"):
            layer(torch.randn(3, 4, 5))
        with pytest.raises(RuntimeError, match=r"Expected hidden.* size .*, got \[4, 1, 2\]"):
            layer(torch.randn(3, 4, 3), random_state(layer, 1))
    kind = type(layer)
    with pytest.raises(ValueError, match="hidden_size: got 0, expected at least 1"):
        kind(3, 0)
    with pytest.raises(TypeError, match=r"^got a LSTMCell, expected an nn\."):
        kind.from_rnn(nn.LSTMCell(3, 2))


def test_a_state_of_another_kind_is_an_error() -> None:
    layer = NoisyLSTM(3, 2)
    noisynet.hold(layer, rows=4)
    x, h = torch.zeros(2, 4, 3), torch.zeros(1, 4, 2)
    for state, got in ((h, "one tensor"), ((h,), "1 of them")):
        with pytest.raises(ValueError, match=rf"^state: got {got}, expected \(h, c\)$"):
            layer(x, state)
