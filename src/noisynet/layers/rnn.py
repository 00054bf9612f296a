"""The noisy recurrent layers over whole sequences: `nn.LSTM`, `nn.GRU` and `nn.RNN` with noise."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from .initial import InitName
from .noise import NoiseName
from .sequence import NoisySequence
from .unrolled import State, Step, gru_step, lstm_step, relu_step, tanh_step


# In torch's recurrent layers `bias` is a bool: whether they have biases.
class NoisyLSTM(NoisySequence, nn.LSTM):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    """An LSTM over whole sequences whose weights are noisy (arXiv 1706.10295, eq. 9, for each).

    It is an `nn.LSTM`, with all of its options: `weight_ih_l0` and so on are the means μ, and
    `weight_ih_l0_sigma` and so on are learned beside them. A plain layer's checkpoint loads with
    `strict=False`. Each weight has a separate draw, and p in its initial values is its own number
    of inputs: the size of the input, of the state h, or, for a projection, of the cell. Options and
    states of the noise are those of `noisynet.NoisyLinear`.

    Even a fresh layer makes only one draw for a sequence: the noisy weights are built once in a
    forward, and PyTorch's own kernel runs on them. (A single step with few rows, as when a policy
    acts, takes two products instead.) With one draw per row, each sequence of the batch is a row,
    in packed sequences too, and a batch of another size raises ValueError. PyTorch's kernels cannot
    have weights for each row, so such a draw goes through the sequence step by step: with
    factorised noise by two products instead of one, with independent noise by a matrix for each
    row, in memory too. The page "Speed of the layers" has the figures.

    Input (T, batch, p), with `batch_first` (batch, T, p), one sequence (T, p), or a PackedSequence;
    state (h, c) and outputs are those of `nn.LSTM`. With the noise off it is exactly `nn.LSTM`.
    Raises ValueError for an unknown option, and for a batch that does not fit the rows of a draw.
    """

    plain, gates, _step = nn.LSTM, 4, staticmethod(lstm_step)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        options: Any = {"noise": noise, "sigma0": sigma0, "init": init, "learned": learned}
        options |= {"batch_first": batch_first, "dropout": dropout, "bidirectional": bidirectional}
        options |= {"bias": bias, "proj_size": proj_size, "device": device, "dtype": dtype}
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _initial_state(self, input: Tensor, hx: Any) -> State:
        if hx is not None:
            if isinstance(hx, Tensor) or len(hx) != 2:
                what = "one tensor" if isinstance(hx, Tensor) else f"{len(hx)} of them"
                raise ValueError(f"state: got {what}, expected (h, c)")
            return tuple(hx)
        (cell,) = super()._initial_state(input, None)
        hidden = cell.new_zeros(*cell.shape[:-1], self.proj_size or self.hidden_size)
        return hidden, cell

    def _as_hx(self, state: State) -> Any:
        return state


# In torch's recurrent layers `bias` is a bool: whether they have biases.
class NoisyGRU(NoisySequence, nn.GRU):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    """A GRU over whole sequences whose weights are noisy (arXiv 1706.10295, eq. 9, for each).

    It is an `nn.GRU`, with all of its options; means, σ, draws, rows and options of the noise are
    those of `noisynet.NoisyLSTM`. The state is h. With the noise off it is exactly `nn.GRU`.
    """

    plain, gates, _step = nn.GRU, 3, staticmethod(gru_step)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        options: Any = {"noise": noise, "sigma0": sigma0, "init": init, "learned": learned}
        options |= {"batch_first": batch_first, "dropout": dropout, "bidirectional": bidirectional}
        options |= {"bias": bias, "device": device, "dtype": dtype}
        super().__init__(input_size, hidden_size, num_layers, **options)


# In torch's recurrent layers `bias` is a bool: whether they have biases.
class NoisyRNN(NoisySequence, nn.RNN):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    """An Elman network over whole sequences whose weights are noisy (arXiv 1706.10295, eq. 9).

    It is an `nn.RNN`, with all of its options; means, σ, draws, rows and options of the noise are
    those of `noisynet.NoisyLSTM`. The state is h. With the noise off it is exactly `nn.RNN`.
    """

    plain, gates = nn.RNN, 1

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        options: Any = {"noise": noise, "sigma0": sigma0, "init": init, "learned": learned}
        options |= {"batch_first": batch_first, "dropout": dropout, "bidirectional": bidirectional}
        options |= {"bias": bias, "nonlinearity": nonlinearity, "device": device, "dtype": dtype}
        super().__init__(input_size, hidden_size, num_layers, **options)

    @property
    def _step(self) -> Step:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tanh_step if self.nonlinearity == "tanh" else relu_step
