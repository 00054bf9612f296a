"""Noisy recurrent cells: at each step, one noisy linear layer for the input, one for the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor, nn

from .functional import apply_linear, check_features
from .initial import InitName, NoiseOptions
from .layer import NoisyLayer, check_bias, check_sizes
from .noise import (
    CellNoise,
    CellSpec,
    LayerNoise,
    NoiseName,
    NoiseSpec,
    OutputNoise,
    standard_normals,
)
from .unrolled import gru_step, lstm_step
from .weights import Weights

Effective = tuple[Tensor, Tensor | None]


class NoisyCell(NoisyLayer):
    """The base of the noisy recurrent cells; a subclass is also a cell of torch."""

    gates: ClassVar[int]

    input_size: int
    hidden_size: int
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    weight_ih_sigma: nn.Parameter
    weight_hh_sigma: nn.Parameter
    bias_ih_sigma: nn.Parameter | None
    bias_hh_sigma: nn.Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the cell with the initial values that `init` names."""
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        check_bias(bias)
        options: Any = {"noise": noise, "sigma0": sigma0, "init": init, "learned": learned}
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype, **options)

    @classmethod
    def from_cell(cls, cell: nn.LSTMCell | nn.GRUCell, **options: Unpack[NoiseOptions]) -> Self:
        """Build a noisy cell that shares the Parameters of `cell` as its means; σ is new.

        `options` are noise, sigma0, init and learned, as in the constructor; σ requires grad if it
        is `learned`, even where the means are frozen. Raises TypeError for a layer of another kind,
        and ValueError for an unknown option or a layer that cannot become noisy.
        """
        return cls.from_plain(cell, **options)

    @property
    def noise_reference(self) -> Tensor:
        """Return the σ of a weight, whose device and dtype the noise takes."""
        return self.weight_ih_sigma

    def weight_names(self) -> tuple[tuple[str, str], ...]:
        """Return the names of both weights and their biases."""
        return ("weight_ih", "bias_ih"), ("weight_hh", "bias_hh")

    def weights(self) -> tuple[Weights, Weights]:
        """Return μ and σ of both weights: of the input, then of the state."""
        return (
            Weights(self.weight_ih, self.bias_ih, self.weight_ih_sigma, self.bias_ih_sigma),
            Weights(self.weight_hh, self.bias_hh, self.weight_hh_sigma, self.bias_hh_sigma),
        )

    def noise_spec(self) -> CellSpec:
        """Return the spec of this cell's noise: its kind and sizes."""
        outputs, bias = self.gates * self.hidden_size, self.bias_ih_sigma is not None
        return CellSpec(
            self.noise,
            NoiseSpec(self.noise, self.input_size, outputs, bias),
            NoiseSpec(self.noise, self.hidden_size, outputs, bias),
        )

    def fresh_rows(self, leading: Sequence[int]) -> LayerNoise:
        """Draw noise for each row of an input of shape (*leading, p).

        Independent noise is drawn at the outputs of both weights.
        """
        if self.noise != "independent":
            return super().fresh_rows(leading)
        reference = self.noise_reference
        shape = (2, *leading, self.gates * self.hidden_size)
        normals = standard_normals(shape, reference.device, reference.dtype, None)
        return CellNoise(OutputNoise(normals[0]), OutputNoise(normals[1]))

    def effective_weight(self) -> tuple[Effective, Effective]:
        """Return the (weight, bias) under the draw in force: of the input, then of the state.

        Shapes (gates · hidden, p) and (gates · hidden,), with a leading dimension of rows for one
        draw per row. A fresh cell makes a new draw for this call; with the noise off these are the
        means.
        """
        noise = self.noise_in_force()
        ih, hh = self.weights()
        if noise is None:
            return (ih.weight, ih.bias), (hh.weight, hh.bias)
        return ih.under(noise.input), hh.under(noise.hidden)

    def _noise_for(self, input: Tensor, states: Sequence[Tensor]) -> CellNoise | None:
        """Check the shapes of a step, and return the noise in force for it."""
        if input.ndim not in (1, 2):
            raise ValueError(
                f"input: got shape {tuple(input.shape)}, expected ({self.input_size},) or "
                f"(rows, {self.input_size}): a cell takes one step at a time"
            )
        check_features(input, self.input_size)
        expected = (*input.shape[:-1], self.hidden_size)
        for state in states:
            if not isinstance(state, Tensor):
                raise ValueError(f"state: got {type(state).__name__}, expected a tensor")
            if state.shape != expected:
                raise ValueError(f"state: got shape {tuple(state.shape)}, expected {expected}")
        return self.noise_in_force(input)

    def _from_both(self, input: Tensor, hidden: Tensor, noise: CellNoise) -> tuple[Tensor, Tensor]:
        """Return the gates' pre-activations from the input, and those from the state."""
        ih, hh = self.weights()
        return apply_linear(input, ih, noise.input), apply_linear(hidden, hh, noise.hidden)

    def _zeros(self, input: Tensor) -> Tensor:
        return input.new_zeros(*input.shape[:-1], self.hidden_size)


# In torch's cells `bias` is a bool: whether they have biases.
class NoisyLSTMCell(NoisyCell, nn.LSTMCell):  # pyright: ignore[reportIncompatibleVariableOverride]
    """One step of an LSTM whose weights are noisy (arXiv 1706.10295, eq. 9, for both).

    It is an `nn.LSTMCell`: `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh` are the means μ, and
    `weight_ih_sigma` and so on are learned beside them. A plain cell's checkpoint loads with
    `strict=False`. The two weights have separate draws, and p in the initial values is each
    weight's own number of inputs. Options and states of the noise are those of
    `noisynet.NoisyLinear`.

    A fresh cell makes a new draw at every step. For one draw over a whole sequence, use
    `noisynet.hold(cell)`, or `noisynet.using` with the draw that acted.

    Input (p,) or (rows, p), state (h, c) of shapes (hidden,) or (rows, hidden), zeros if it is
    None; returns the next (h, c). With the noise off it is exactly `nn.LSTMCell`. Raises ValueError
    for an unknown option and for an input or state that does not fit.
    """

    plain, gates = nn.LSTMCell, 4

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take one step from the state (h, c); return the next one."""
        if hx is not None and (isinstance(hx, Tensor) or len(hx) != 2):
            what = "one tensor" if isinstance(hx, Tensor) else f"{len(hx)} of them"
            raise ValueError(f"state: got {what}, expected (h, c)")
        noise = self._noise_for(input, hx or ())
        if noise is None:
            return super().forward(input, hx)
        hidden, cell = hx or (self._zeros(input), self._zeros(input))
        hidden, cell = lstm_step(*self._from_both(input, hidden, noise), (hidden, cell))
        return hidden, cell


# In torch's cells `bias` is a bool: whether they have biases.
class NoisyGRUCell(NoisyCell, nn.GRUCell):  # pyright: ignore[reportIncompatibleVariableOverride]
    """One step of a GRU whose weights are noisy (arXiv 1706.10295, eq. 9, for both).

    It is an `nn.GRUCell`; means, σ, draws and options are those of `noisynet.NoisyLSTMCell`.

    Input (p,) or (rows, p), state h of shape (hidden,) or (rows, hidden), zeros if it is None;
    returns the next h. With the noise off it is exactly `nn.GRUCell`. Raises ValueError for an
    unknown option and for an input or state that does not fit.
    """

    plain, gates = nn.GRUCell, 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Take one step from the state h; return the next one."""
        noise = self._noise_for(input, () if hx is None else (hx,))
        if noise is None:
            return super().forward(input, hx)
        hidden = self._zeros(input) if hx is None else hx
        (hidden,) = gru_step(*self._from_both(input, hidden, noise), (hidden,))
        return hidden
