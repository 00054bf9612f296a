"""The head of implicit quantile networks (IQN): quantiles of returns at any fractions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .heads import MakeStream
from .noise_settings import MakeLinear


class QuantileHead(nn.Module):
    """Quantiles of each action's return, at any fractions τ (arXiv 1806.06923).

    The features are multiplied by φ(τ) = ReLU(Σ_i cos(π i τ) w_i + b) with i from 0 (eq. 4), and
    the streams turn each product into one value per action, which with `dueling` is v + a - mean a.
    All quantiles of a row come from one forward, under the same draw.
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
        """Build the embedding of τ and one stream, or two; Q is the mean of `samples` quantiles."""
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

        The quantiles come first, so that the dimension before the features remains the rows of a
        draw. Raises ValueError for τ of another shape.
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
        """Return Q-values (…, actions), the mean of the quantiles at K even fractions, (k + ½) / K.

        These need no random numbers, so an evaluation or a diagnosis depends on the weights and
        their noise, and on no other chance. An agent that explores samples its τ.
        """
        tau = self.midpoints.view(-1, *(1 for _ in features.shape[:-1]))
        return self.quantiles(features, tau.expand(-1, *features.shape[:-1])).mean(0)
