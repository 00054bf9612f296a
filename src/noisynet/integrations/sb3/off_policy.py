"""The base of the off-policy policies, which act under a held draw for each environment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from ...layers import Draw, draw
from .algorithm import collecting_algorithm
from .noisy_policy import NoisyPolicy, batch_size, draw_for

Redraw = Literal["update", "episode"]


class OffPolicyNoise(NoisyPolicy):
    """A policy that acts under a held draw for each environment.

    All draws are replaced after every update of the acting network or, with `redraw="episode"`,
    each environment's when its episode ends. Outside the host's collection, `predict` redraws at
    every call.
    """

    default_redraw: Redraw = "update"

    def __init__(self, *arguments: Any, redraw: str | None = None, **options: Any) -> None:
        self.redraw = self.default_redraw if redraw is None else redraw
        if self.redraw not in get_args(Redraw):
            expected = " or ".join(map(repr, get_args(Redraw)))
            raise ValueError(f"redraw: got {redraw!r}, expected {expected}")
        self._held: dict[int, Draw] = {}
        self._collects = False
        super().__init__(*arguments, **options)

    def _after_update(self) -> None:
        if self.redraw == "update":
            self._held.clear()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose the action: by the mean weights if `deterministic`, else under noise."""
        algorithm = collecting_algorithm()
        self._collects = algorithm is not None
        if algorithm is not None and self.redraw == "episode":
            self._redraw_where(_ended(algorithm))
        try:
            return super().predict(observation, state, episode_start, deterministic)
        finally:
            self._collects = False

    def _redraw_where(self, ended: Tensor) -> None:
        former = self._held.get(len(ended))
        if former is None or not ended.any():
            return
        new = draw(self.noisy_network, rows=len(ended))
        flats = zip(new.flats, former.flats, strict=True)
        chosen = ended.to(former.flats[0].device).unsqueeze(-1)
        rows = tuple(torch.where(chosen, one, other) for one, other in flats)
        self._held[len(ended)] = replace(former, flats=rows)

    def _drawn_for(self, observation: PyTorchObs, deterministic: bool) -> Draw | None:
        """Return the draw to act under, one for each row; None for the mean weights."""
        if deterministic:
            return None
        if not self._collects:
            return draw_for(self.noisy_network, observation)
        rows = batch_size(observation)
        if rows not in self._held:
            self._held[rows] = draw(self.noisy_network, rows=rows)
        return self._held[rows]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "redraw": self.redraw}


def _ended(algorithm: OffPolicyAlgorithm) -> Tensor:
    """Return which environments ended an episode in the last step that the host stored, (N,).

    Raises TypeError for a replay buffer of the user's own without `dones`.
    """
    # No callback or argument tells a policy about it. In an empty buffer, all `dones` are 0.
    buffer: Any = algorithm.replay_buffer
    dones = getattr(buffer, "dones", None)
    if not isinstance(dones, np.ndarray):
        raise TypeError(
            f"redraw='episode': got a {type(buffer).__name__} without `dones`, which say when an "
            "episode has ended; pass redraw='update'"
        )
    return torch.from_numpy(dones[buffer.pos - 1] > 0)
