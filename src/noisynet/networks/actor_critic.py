"""The network of an actor-critic: policy and value from one body, over sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import noisy_layers
from .core import CoreState, RecurrentCore
from .heads import ActorCriticHead
from .torsos import MLPTorso, Torso


class ActorCriticNetwork(nn.Module):
    """Give policy logits and values for sequences of observations (arXiv 1602.01783, §5).

    Torso, a fully connected layer with a ReLU, an LSTM where there is one, and the heads.
    """

    def __init__(
        self, torso: Torso, hidden: nn.Module, core: RecurrentCore | None, head: ActorCriticHead
    ) -> None:
        """Join the parts."""
        super().__init__()
        self.torso = torso
        self.hidden = hidden
        self.core = core
        self.head = head
        # The convolutions flatten all leading dimensions, and would lose whose draw is whose.
        self._step_by_step = not isinstance(torso, MLPTorso) and bool(noisy_layers(torso))

    def initial_state(self, rows: int) -> CoreState | None:
        """Give the state that episodes begin with; None without an LSTM."""
        return None if self.core is None else self.core.initial_state(rows)

    def forward(
        self, observation: Tensor, first: Tensor, state: CoreState | None
    ) -> tuple[Tensor, Tensor, CoreState | None]:
        """Give logits (T, rows, actions), values (T, rows) and the state after the last step.

        Observations (T, rows, *shape); first (T, rows), booleans, is true where an episode begins.
        """
        if self._step_by_step:
            features = torch.stack([self.torso(one) for one in observation])
        else:
            features = self.torso(observation)
        features = self.hidden(features).relu()
        if self.core is not None:
            assert state is not None, "an LSTM has a state: initial_state gives the first"
            features, state = self.core(features, first, state)
        logits, value = self.head(features)
        return logits, value, state
