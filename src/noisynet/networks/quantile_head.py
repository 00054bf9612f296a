"""The head of implicit quantile networks, IQN: an action's return at any fraction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .heads import MakeStream
from .noise_settings import MakeLinear


class QuantileHead(nn.Module):
    """Quantiles of each action's return, at whatever fractions τ are asked for (arXiv 1806.06923).

    The features are multiplied by φ(τ) = ReLU(Σ_i cos(π i τ) w_i + b) with i from 0 (eq. 4), and
    the streams make a value per action of each product; with `dueling` it is v + a - mean a,
    quantile by quantile. All quantiles of a row come from one forward, under the row's one draw.
    """

    frequencies: Tensor
    midpoints: Tensor

    def __init__(
        self,
        stream: MakeStream,
        actions: int,
        features: int,
        *,
        dueling: bool = False,
        cosines: int = 64,
        samples: int = 8,
        embedding: MakeLinear = nn.Linear,
    ) -> None:
        """Build the embedding of τ and one stream, or two; `samples` is K, of which Q is a mean."""
        super().__init__()
        self.samples = samples
        self.embedding = embedding(cosines, features)
        self.advantage = stream(actions)
        self.value = stream(1) if dueling else None
        self.register_buffer("frequencies", math.pi * torch.arange(cosines), persistent=False)
        middle = (torch.arange(samples) + 0.5) / samples
        self.register_buffer("midpoints", middle, persistent=False)

    def quantiles(self, features: Tensor, tau: Tensor) -> Tensor:
        """Return the quantiles (K, …, actions) for features (…, features) and τ (K, …) in 0…1.

        The dimension of the quantiles comes first, so that rows of a draw stay the rows they are.
        Raises ValueError for τ of another shape.
        """
        if tau.shape[1:] != features.shape[:-1]:
            raise ValueError(
                f"tau: got shape {tuple(tau.shape)}, expected (K, "
                f"{', '.join(map(str, features.shape[:-1]))}), K for each row of features"
            )
        cosines = torch.cos(tau.unsqueeze(-1) * self.frequencies)
        embedded = features * self.embedding(cosines).relu()
        advantage = self.advantage(embedded)
        if self.value is None:
            return advantage
        return self.value(embedded) + advantage - advantage.mean(-1, keepdim=True)

    def forward(self, features: Tensor) -> Tensor:
        """Return Q-values (…, actions): the mean over K evenly spaced quantiles, (k + ½) / K.

        They need no random numbers: whoever looks at an agent, or evaluates it, sees what its
        weights and their noise do, and no other chance. An agent that explores samples its τ.
        """
        tau = self.midpoints.view(-1, *(1 for _ in features.shape[:-1]))
        return self.quantiles(features, tau.expand(-1, *features.shape[:-1])).mean(0)
