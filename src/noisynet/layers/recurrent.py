"""The noisy recurrent cells: two noisy linear layers a step, of the input and of the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from . import initial
from .functional import check_features, noisy_linear, noisy_parameters
from .noise import CellNoise, CellSpec, NoiseSpec, OutputNoise, standard_normals
from .linear import check_bias, check_noise_options, check_sizes
from .layer import NoisyLayer, take_over

Effective = tuple[Tensor, Tensor | None]


class NoisyCell(NoisyLayer):
    """Be a noisy recurrent cell: what they share. A subclass is also a cell of torch."""

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

    @classmethod
    def _from_cell(
        cls,
        cell: nn.LSTMCell | nn.GRUCell,
        plain: type[nn.Module],
        noise: str,
        sigma0: float | None,
        init: str,
    ) -> Self:
        layer = cls.__new__(cls)
        take_over(layer, cell, plain)
        layer._become_noisy(check_noise_options(noise, sigma0, init), sigma0, init)
        layer.reset_sigmas()
        return layer

    @property
    def noise_reference(self) -> Tensor:
        """Give a weight: the noise has its device and dtype."""
        return self.weight_ih

    def noise_spec(self) -> CellSpec:
        """Say what one draw of this cell consists of."""
        outputs, bias = self.gates * self.hidden_size, self.bias_ih is not None
        return CellSpec(
            self.noise,
            NoiseSpec(self.noise, self.input_size, outputs, bias),
            NoiseSpec(self.noise, self.hidden_size, outputs, bias),
        )

    def fresh_rows(self, leading: Sequence[int]) -> CellNoise:
        """Draw for each row of an input of shape (*leading, p).

        Independent noise is drawn where it is seen, at the outputs of both weights.
        """
        if self.noise != "independent":
            return cast(CellNoise, super().fresh_rows(leading))
        reference = self.noise_reference
        shape = (2, *leading, self.gates * self.hidden_size)
        normals = standard_normals(shape, reference.device, reference.dtype, None)
        return CellNoise(OutputNoise(normals[0]), OutputNoise(normals[1]))

    def noise_in_force(self, leading: Sequence[int] | None = None) -> CellNoise | None:
        """Give the noise that a forward is to use now, or None for the means alone."""
        return cast("CellNoise | None", super().noise_in_force(leading))

    def reset_parameters(self) -> None:
        """Set μ and σ to new initial values; p is each weight's own number of inputs."""
        if "weight_ih_sigma" not in self._parameters:
            return
        for weight, bias, inputs in (
            (self.weight_ih, self.bias_ih, self.input_size),
            (self.weight_hh, self.bias_hh, self.hidden_size),
        ):
            initial.initialise_means(weight, bias, noise=self.noise, init=self.init, inputs=inputs)
        self.reset_sigmas()

    def reset_sigmas(self) -> None:
        """Set σ back to its initial value; the means stay."""
        for weight_sigma, bias_sigma, inputs in (
            (self.weight_ih_sigma, self.bias_ih_sigma, self.input_size),
            (self.weight_hh_sigma, self.bias_hh_sigma, self.hidden_size),
        ):
            initial.initialise_sigmas(
                weight_sigma,
                bias_sigma,
                noise=self.noise,
                init=self.init,
                sigma0=self.sigma0,
                inputs=inputs,
                outputs=self.gates * self.hidden_size,
            )

    def effective_weight(self) -> tuple[Effective, Effective]:
        """Give the (weight, bias) that the draw in force makes: of the input, then of the state.

        Shapes (gates · hidden, p) and (gates · hidden,), with rows in front for one draw per row. A
        fresh cell makes a new draw for this call; with the noise off these are the means.
        """
        noise = self.noise_in_force()
        if noise is None:
            return (self.weight_ih, self.bias_ih), (self.weight_hh, self.bias_hh)
        of_input, of_hidden = noise.input, noise.hidden
        assert not isinstance(of_input, OutputNoise), "no input was named"
        assert not isinstance(of_hidden, OutputNoise), "no input was named"
        ih = (self.weight_ih, self.bias_ih, self.weight_ih_sigma, self.bias_ih_sigma)
        hh = (self.weight_hh, self.bias_hh, self.weight_hh_sigma, self.bias_hh_sigma)
        return noisy_parameters(*ih, of_input), noisy_parameters(*hh, of_hidden)

    def _noise_for(self, input: Tensor, states: Sequence[Tensor]) -> CellNoise | None:
        """Check the shapes of a step, and give the noise in force for it."""
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
        return self.noise_in_force(input.shape[:-1])

    def _from_both(self, input: Tensor, hidden: Tensor, noise: CellNoise) -> tuple[Tensor, Tensor]:
        """Give what the gates get from the input, and what they get from the state."""
        return (
            noisy_linear(
                input,
                self.weight_ih,
                self.bias_ih,
                self.weight_ih_sigma,
                self.bias_ih_sigma,
                noise.input,
            ),
            noisy_linear(
                hidden,
                self.weight_hh,
                self.bias_hh,
                self.weight_hh_sigma,
                self.bias_hh_sigma,
                noise.hidden,
            ),
        )

    def _zeros(self, input: Tensor) -> Tensor:
        return input.new_zeros(*input.shape[:-1], self.hidden_size)

    def extra_repr(self) -> str:
        """Say sizes, kind of noise and its state."""
        return f"{super().extra_repr()}, noise={self.noise!r} ({self.describe_noise()})"


# The `bias` of torch's cells says whether they have any.
class NoisyLSTMCell(NoisyCell, nn.LSTMCell):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Apply one step of an LSTM whose weights are noisy (arXiv 1706.10295, eq. 9, for both).

    It is an `nn.LSTMCell`: `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh` are the means μ, and
    `weight_ih_sigma` … are learned beside them. A plain cell's checkpoint loads with
    `strict=False`. The two weights draw apart, and each takes its own number of inputs as p in its
    initial values. Options and states of the noise are those of `noisynet.NoisyLinear`.

    A fresh cell draws at every step. A sequence wants one draw for all its steps:
    `noisynet.hold(cell)`, or `noisynet.using` with the draw that acted.

    Input (p,) or (rows, p), state (h, c) of shapes (hidden,) or (rows, hidden), zeros where it is
    None; gives the next (h, c). With the noise off it is exactly `nn.LSTMCell`. Raises ValueError
    for an unknown option and for an input or state that does not fit.
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the cell with the initial values that `init` names."""
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        check_bias(bias)
        kind = check_noise_options(noise, sigma0, init)
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)
        self._become_noisy(kind, sigma0, init)
        self.reset_parameters()

    @classmethod
    def from_cell(
        cls,
        cell: nn.LSTMCell,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
    ) -> NoisyLSTMCell:
        """Make a noisy cell whose means are the very Parameters of `cell`; σ is new.

        σ always requires grad, also where the means are frozen.
        """
        return cls._from_cell(cell, nn.LSTMCell, noise, sigma0, init)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take one step from the state (h, c); gives the next one."""
        if hx is not None and (isinstance(hx, Tensor) or len(hx) != 2):
            what = "one tensor" if isinstance(hx, Tensor) else f"{len(hx)} of them"
            raise ValueError(f"state: got {what}, expected (h, c)")
        noise = self._noise_for(input, hx or ())
        if noise is None:
            return super().forward(input, hx)
        hidden, cell = hx or (self._zeros(input), self._zeros(input))
        of_input, of_hidden = self._from_both(input, hidden, noise)
        i, f, g, o = (of_input + of_hidden).chunk(self.gates, dim=-1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell


# The `bias` of torch's cells says whether they have any.
class NoisyGRUCell(NoisyCell, nn.GRUCell):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Apply one step of a GRU whose weights are noisy (arXiv 1706.10295, eq. 9, for both).

    It is an `nn.GRUCell`: `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh` are the means μ, and
    `weight_ih_sigma` … are learned beside them. A plain cell's checkpoint loads with
    `strict=False`. The two weights draw apart, and each takes its own number of inputs as p in its
    initial values. Options and states of the noise are those of `noisynet.NoisyLinear`.

    A fresh cell draws at every step. A sequence wants one draw for all its steps:
    `noisynet.hold(cell)`, or `noisynet.using` with the draw that acted.

    Input (p,) or (rows, p), state h of shape (hidden,) or (rows, hidden), zeros where it is None;
    gives the next h. With the noise off it is exactly `nn.GRUCell`. Raises ValueError for an
    unknown option and for an input or state that does not fit.
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the cell with the initial values that `init` names."""
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        check_bias(bias)
        kind = check_noise_options(noise, sigma0, init)
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)
        self._become_noisy(kind, sigma0, init)
        self.reset_parameters()

    @classmethod
    def from_cell(
        cls,
        cell: nn.GRUCell,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
    ) -> NoisyGRUCell:
        """Make a noisy cell whose means are the very Parameters of `cell`; σ is new.

        σ always requires grad, also where the means are frozen.
        """
        return cls._from_cell(cell, nn.GRUCell, noise, sigma0, init)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Take one step from the state h; gives the next one."""
        noise = self._noise_for(input, () if hx is None else (hx,))
        if noise is None:
            return super().forward(input, hx)
        hidden = self._zeros(input) if hx is None else hx
        of_input, of_hidden = self._from_both(input, hidden, noise)
        input_r, input_z, input_n = of_input.chunk(self.gates, dim=-1)
        hidden_r, hidden_z, hidden_n = of_hidden.chunk(self.gates, dim=-1)
        r = (input_r + hidden_r).sigmoid()
        z = (input_z + hidden_z).sigmoid()
        n = (input_n + r * hidden_n).tanh()
        return (1 - z) * n + z * hidden
