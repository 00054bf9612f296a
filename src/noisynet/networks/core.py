"""A recurrent core between the torso and the heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CoreState = tuple[Tensor, Tensor]
"""An LSTM's (h, c), each of shape (rows, size)."""


class RecurrentCore(nn.Module):
    """Run an LSTM over sequences, with its state reset where an episode begins.

    The cell may be a noisy one; its noise is then held over the sequence by whoever holds the
    network's. It computes in its weights' own precision, also under autocast.
    """

    def __init__(self, cell: nn.LSTMCell) -> None:
        """Take the cell: `nn.LSTMCell`, or the noisy one, which is one too."""
        super().__init__()
        self.cell = cell

    def initial_state(self, rows: int) -> CoreState:
        """Give zeros for a number of rows."""
        zeros = self.cell.weight_ih.new_zeros(rows, self.cell.hidden_size)
        return zeros, zeros

    def forward(
        self, features: Tensor, first: Tensor, state: CoreState
    ) -> tuple[Tensor, CoreState]:
        """Give outputs (T, rows, size) and the state after the last step.

        Features (T, rows, p); first (T, rows), booleans, is true where an episode begins.
        """
        outputs: list[Tensor] = []
        with torch.autocast(features.device.type, enabled=False):
            for feature_t, first_t in zip(
                features.to(self.cell.weight_ih.dtype), first, strict=True
            ):
                keep = (~first_t).unsqueeze(-1)
                state = self.cell(feature_t, (state[0] * keep, state[1] * keep))
                outputs.append(state[0])
        return torch.stack(outputs), state
