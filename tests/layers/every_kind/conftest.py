"""Every kind of noisy layer beside its plain form, with inputs for a few rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import noisynet
from noisynet import layers
from noisynet.layers.noise import NoiseName

NewTensor = Callable[..., Tensor]


@dataclass(frozen=True)
class Kind:
    """A kind of layer: its two classes, how to build both, and what one forward takes."""

    noisy: Any
    plain: Any
    sizes: tuple[Any, ...]
    # Given a function that makes a tensor of one row's shape, gives all inputs of a forward.
    make_inputs: Callable[[NewTensor], tuple[Any, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    # Where the rows are in each input and output.
    dimension: int = 0
    rows: int = 4

    @property
    def is_sequence(self) -> bool:
        return issubclass(self.plain, nn.RNNBase)

    @property
    def is_attention(self) -> bool:
        return issubclass(self.plain, nn.MultiheadAttention)

    @property
    def takes_more_dimensions(self) -> bool:
        """Whether more dimensions may stand before the rows."""
        return not (self.is_attention or issubclass(self.plain, nn.RNNBase | nn.RNNCellBase))

    def build(self, noise: NoiseName, **options: Any) -> Any:
        """The noisy layer, with σ large enough to be seen."""
        return self.noisy(*self.sizes, noise=noise, sigma0=0.5, **self.options, **options)

    def build_plain(self, **options: Any) -> Any:
        return self.plain(*self.sizes, **self.options, **options)

    def inputs(self, *outer: int, dtype: torch.dtype | None = None) -> tuple[Any, ...]:
        """Random inputs of one forward, with more dimensions before the rows or not."""

        def new(*shape: int) -> Tensor:
            before, after = shape[: self.dimension], shape[self.dimension :]
            return torch.randn(*outer, *before, self.rows, *after, dtype=dtype)

        return self.make_inputs(new)

    def alike(self, *outer: int) -> tuple[Any, ...]:
        """Inputs whose rows are all the same."""
        first = self.pick(self.inputs(), 0)
        shape = (*outer, self.rows)

        def repeat(one: Tensor) -> Tensor:
            if outer:
                return one.expand(*shape, *one.shape)
            return torch.stack([one] * self.rows, self.dimension)

        return tree_map(repeat, first)

    def pick(self, tensors: Any, row: int, outer: int = 0) -> Any:
        """One row of inputs, without a batch."""
        return tree_map(lambda one: one.select(outer + self.dimension, row), tensors)

    def calls(self, inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """A forward with a batch, one without, and one without the state of a recurrent layer."""
        without = self.pick(inputs, 0)
        if issubclass(self.plain, nn.RNNBase | nn.RNNCellBase):
            return [inputs, without, inputs[:1], without[:1]]
        return [inputs, without]

    def narrow(self, tensors: Any, rows: int) -> Any:
        """The first rows of inputs."""
        return tree_map(lambda one: one.narrow(self.dimension, 0, rows), tensors)

    def by_row(self, result: Any, outer: int = 0) -> Tensor:
        """All numbers of an output and its state, (rows, numbers)."""
        parts = [one.movedim(outer + self.dimension, 0) for one in tree_leaves(result)]
        return torch.cat([one.reshape(self.rows, -1 if one.numel() else 0) for one in parts], 1)

    def as_one(self, result: Any) -> Tensor:
        """All numbers of an output and its state."""
        return torch.cat([one.flatten() for one in tree_leaves(result)])

    def hold(self, layer: Any, rows: int | None = None, **options: Any) -> None:
        batch_first = True if self.is_attention and rows is not None else None
        noisynet.hold(layer, rows=rows, batch_first=batch_first, **options)

    def release_per_row(self, layer: Any) -> None:
        noisynet.release(layer, per_row=True, batch_first=self.is_attention)


def image(*size: int) -> Callable[[NewTensor], tuple[Any, ...]]:
    return lambda new: (new(4, *size),)


def attention(keys: int, values: int) -> Callable[[NewTensor], tuple[Any, ...]]:
    return lambda new: (new(4, 6), new(5, keys), new(5, values))


LAYERS = {"num_layers": 2, "bidirectional": True}
KINDS: dict[str, Kind] = {
    "linear": Kind(layers.NoisyLinear, nn.Linear, (5, 3), lambda new: (new(5),)),
    "conv 1d": Kind(
        layers.NoisyConv1d,
        nn.Conv1d,
        (4, 6, 3),
        image(7),
        {"stride": 2, "padding": 1, "groups": 2},
    ),
    "conv 2d": Kind(layers.NoisyConv2d, nn.Conv2d, (4, 6, (3, 2)), image(5, 4), {"padding": 1}),
    "conv 3d": Kind(
        layers.NoisyConv3d,
        nn.Conv3d,
        (4, 6, (3, 2, 2)),
        image(5, 4, 3),
        {"stride": 2, "groups": 2},
    ),
    "transposed 1d": Kind(
        layers.NoisyConvTranspose1d,
        nn.ConvTranspose1d,
        (4, 6, 3),
        image(5),
        {"stride": 2, "groups": 2},
    ),
    "transposed 2d": Kind(
        layers.NoisyConvTranspose2d,
        nn.ConvTranspose2d,
        (4, 6, (3, 2)),
        image(5, 4),
        {"stride": 2},
    ),
    "transposed 3d": Kind(
        layers.NoisyConvTranspose3d,
        nn.ConvTranspose3d,
        (4, 6, 2),
        image(4, 3, 2),
        {"groups": 2},
    ),
    "lstm cell": Kind(
        layers.NoisyLSTMCell, nn.LSTMCell, (3, 2), lambda new: (new(3), (new(2), new(2)))
    ),
    "gru cell": Kind(layers.NoisyGRUCell, nn.GRUCell, (3, 2), lambda new: (new(3), new(2))),
    "lstm": Kind(
        layers.NoisyLSTM,
        nn.LSTM,
        (3, 2),
        lambda new: (new(3, 3), (new(4, 2), new(4, 2))),
        LAYERS,
        dimension=1,
    ),
    "lstm, projection": Kind(
        layers.NoisyLSTM,
        nn.LSTM,
        (3, 2),
        lambda new: (new(3, 3), (new(1, 1), new(1, 2))),
        {"proj_size": 1},
        dimension=1,
    ),
    "gru": Kind(
        layers.NoisyGRU, nn.GRU, (3, 2), lambda new: (new(3, 3), new(4, 2)), LAYERS, dimension=1
    ),
    "rnn": Kind(
        layers.NoisyRNN, nn.RNN, (3, 2), lambda new: (new(3, 3), new(4, 2)), LAYERS, dimension=1
    ),
    "attention": Kind(
        layers.NoisyMultiheadAttention,
        nn.MultiheadAttention,
        (6, 2),
        attention(6, 6),
        {"add_bias_kv": True, "batch_first": True},
    ),
    "attention, separate": Kind(
        layers.NoisyMultiheadAttention,
        nn.MultiheadAttention,
        (6, 2),
        attention(5, 7),
        {"kdim": 5, "vdim": 7, "batch_first": True},
    ),
}


# What PyTorch says of a plain LSTM with a projection, too.
QUIET = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(params=[pytest.param(name, marks=QUIET) for name in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(params=[None, Kind.rows], ids=["shared", "rows"])
def rows(request: pytest.FixtureRequest) -> int | None:
    return request.param
