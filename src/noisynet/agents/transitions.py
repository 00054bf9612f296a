"""What an update learns from."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Transitions(Protocol):
    """A batch of n-step transitions, as numpy arrays: what an update learns from."""

    @property
    def observation_tm1(self) -> np.ndarray:
        """Give observations (B, …)."""
        ...

    @property
    def action_tm1(self) -> np.ndarray:
        """Give actions (B,), int64."""
        ...

    @property
    def return_t(self) -> np.ndarray:
        """Give discounted n-step rewards (B,), float32."""
        ...

    @property
    def discount_t(self) -> np.ndarray:
        """Give γ to the number of steps (B,), float32; 0 after termination."""
        ...

    @property
    def observation_t(self) -> np.ndarray:
        """Give the observations n steps on (B, …)."""
        ...

    @property
    def weights(self) -> np.ndarray | None:
        """Give importance weights (B,), float32; None where all are 1."""
        ...
