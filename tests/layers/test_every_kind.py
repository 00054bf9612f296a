"""What holds of every kind of convolution and recurrent layer: copies, checkpoints, compilers."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import noisynet
from noisynet import layers

ROWS = 4
CONVOLUTIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "conv 1d": (partial(layers.NoisyConv1d, 4, 6, 3, stride=2, padding=1, groups=2), (7,)),
    "conv 2d": (partial(layers.NoisyConv2d, 4, 6, (3, 2), padding=1), (5, 4)),
    "conv 3d": (partial(layers.NoisyConv3d, 4, 6, (3, 2, 2), stride=2, groups=2), (5, 4, 3)),
    "transposed 1d": (partial(layers.NoisyConvTranspose1d, 4, 6, 3, stride=2, groups=2), (5,)),
    "transposed 2d": (partial(layers.NoisyConvTranspose2d, 4, 6, (3, 2), stride=2), (5, 4)),
    "transposed 3d": (partial(layers.NoisyConvTranspose3d, 4, 6, 2, groups=2), (5, 4, 3)),
}
CELLS = {"lstm cell": layers.NoisyLSTMCell, "gru cell": layers.NoisyGRUCell}
SEQUENCES = {"lstm": layers.NoisyLSTM, "gru": layers.NoisyGRU, "rnn": layers.NoisyRNN}
KINDS = [*CONVOLUTIONS, *CELLS, *SEQUENCES]


def build(kind: str, noise: str, **options: Any) -> Any:
    if kind in CONVOLUTIONS:
        return CONVOLUTIONS[kind][0](noise=noise, **options)
    if kind in CELLS:
        return CELLS[kind](3, 2, noise=noise, sigma0=0.5, **options)
    return SEQUENCES[kind](3, 2, 2, bidirectional=True, noise=noise, sigma0=0.5, **options)


def inputs_of(kind: str) -> tuple[Any, ...]:
    """Inputs for `ROWS` rows, with the state of a cell."""
    if kind in CONVOLUTIONS:
        return (torch.randn(ROWS, 4, *CONVOLUTIONS[kind][1]),)
    if kind in SEQUENCES:
        return (torch.randn(3, ROWS, 3),)
    h, c = torch.randn(2, ROWS, 2)
    return torch.randn(ROWS, 3), (h, c) if kind == "lstm cell" else h


def as_one(result: Any) -> Tensor:
    """All numbers of an output and its state."""
    return torch.cat([one.flatten() for one in tree_leaves(result)])


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("make", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("rows", [None, ROWS])
def test_a_copy_does_the_same_and_then_draws_apart(
    kind: str, noise: str, make: Callable[[nn.Module], nn.Module], rows: int | None
) -> None:
    layer, inputs = build(kind, noise), inputs_of(kind)
    noisynet.hold(layer, rows=rows)
    made = make(layer)
    before = as_one(layer(*inputs))
    assert torch.equal(as_one(made(*inputs)), before)
    noisynet.resample(made)
    assert not torch.equal(as_one(made(*inputs)), before)
    assert torch.equal(as_one(layer(*inputs)), before)
    with noisynet.mean_weights(made), noisynet.mean_weights(layer):
        assert torch.equal(as_one(made(*inputs)), as_one(layer(*inputs)))


def test_no_noise_in_the_state_dict_and_draws_are_values(kind: str, noise: str) -> None:
    layer, other, inputs = build(kind, noise), build(kind, noise), inputs_of(kind)
    noisynet.hold(layer)
    plain = set(noisynet.denoise(copy.deepcopy(layer)).state_dict())
    assert set(layer.state_dict()) == plain | {f"{name}_sigma" for name in plain}
    assert other.load_state_dict(layer.state_dict()) == ([], [])
    drawn = pickle.loads(pickle.dumps(noisynet.held(layer)))
    with noisynet.using(other, drawn), noisynet.using(layer, drawn):
        assert torch.equal(as_one(other(*inputs)), as_one(layer(*inputs)))


def test_redrawing_between_forward_and_backward_changes_no_gradient(kind: str, noise: str) -> None:
    layer, inputs = build(kind, noise), inputs_of(kind)
    noisynet.hold(layer, static=True)
    parameters = list(layer.parameters())
    expected = torch.autograd.grad(as_one(layer(*inputs)).square().sum(), parameters)
    y = as_one(layer(*inputs))
    noisynet.resample(layer)
    now = torch.autograd.grad(y.square().sum(), parameters)
    torch.testing.assert_close(now, expected)


def test_built_on_meta_and_filled_later(kind: str, noise: str) -> None:
    layer, inputs = build(kind, noise, device="meta"), inputs_of(kind)
    noisynet.hold(layer, rows=ROWS)
    if kind not in SEQUENCES:
        on_meta = [one.to("meta") for one in tree_leaves(inputs[:1])]
        assert as_one(layer(*on_meta)).is_meta
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    filled = dict(build(kind, noise).named_parameters())
    for name, parameter in layer.named_parameters():
        if name.endswith("_sigma"):
            assert torch.equal(parameter, filled[name]), name
        else:
            assert float(parameter.detach().abs().max()) <= 3**0.5
    assert noisynet.not_finite(layer) == {}
    assert torch.equal(as_one(layer(*inputs)), as_one(layer(*inputs)))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("rows", [None, ROWS])
@pytest.mark.parametrize("kind", [*CONVOLUTIONS, *CELLS])  # sequences: test_sequence.py
def test_a_compiled_forward_uses_each_new_draw(kind: str, noise: str, rows: int | None) -> None:
    torch._dynamo.reset()
    layer, inputs = build(kind, noise), inputs_of(kind)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    noisynet.hold(layer, rows=rows)
    first = as_one(compiled(*inputs))
    torch.testing.assert_close(first, as_one(layer(*inputs)))
    noisynet.resample(layer)
    second = as_one(compiled(*inputs))
    torch.testing.assert_close(second, as_one(layer(*inputs)))
    assert not torch.equal(first, second)
    with noisynet.mean_weights(layer):
        torch.testing.assert_close(as_one(compiled(*inputs)), as_one(layer(*inputs)))


# What PyTorch says of its own kernels of an LSTM and of grouped convolutions.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("rows", [None, ROWS])
def test_an_ensemble_by_vmap_is_that_of_a_loop(kind: str, noise: str, rows: int | None) -> None:
    layer, inputs = build(kind, noise), inputs_of(kind)
    members = [build(kind, noise) for _ in range(2)]
    stacked, _ = torch.func.stack_module_state(members)
    noisynet.hold(layer, rows=rows)
    drawn = noisynet.held(layer)

    def loss(values: dict[str, Tensor]) -> Tensor:
        return as_one(torch.func.functional_call(layer, values, inputs)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss))(stacked)
    for number, member in enumerate(members):
        with noisynet.using(member, drawn):
            as_one(member(*inputs)).square().sum().backward()
        for name, parameter in member.named_parameters():
            torch.testing.assert_close(together[name][number], parameter.grad, rtol=1e-4, atol=1e-4)
