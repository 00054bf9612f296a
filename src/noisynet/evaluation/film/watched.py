"""A trained agent that shows its values, by the mean weights and under draws of noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...agents import ActorCritic
from ...layers import draw, mean_weights, using
from ..agent import TrainedAgent
from ..conditions import has_lstm

Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ActionValues:
    """The values of an agent's actions at one observation, and the action that it chose."""

    kind: Literal["Q", "probability"]
    values: Numbers
    """(actions,): by the mean weights; by the acting draw for an LSTM with noise."""
    drawn: Numbers | None
    """(draws, actions): under each draw of noise; None without noise, and for an LSTM, whose state
    would have to follow each draw from the game's start."""
    action: int

    @property
    def disagreeing(self) -> float | None:
        """Share of draws that choose another action than the mean weights; None without draws."""
        if self.drawn is None:
            return None
        return float(np.mean(self.drawn.argmax(-1) != self.values.argmax()))


class WatchedAgent(TrainedAgent):
    """A trained agent in one environment that shows the values behind its actions."""

    def look(self, observation: np.ndarray, *, noise: int = False, draws: int = 16) -> ActionValues:
        """Return the values of the actions at one observation (1, *shape), and the chosen action.

        `noise` is a number of draws, as for `act`, which raises the same errors. The result has
        `draws` draws, or `noise` if that is more.
        """
        if noise:
            self._check_noise(noise)
        agent, network = self._agent, self._agent.network
        recurrent = has_lstm(self.config)
        kind: Literal["Q", "probability"] = "Q"
        if isinstance(agent, ActorCritic):
            kind = "probability"
        drawn = None
        if agent.noise is not None and (noise or not recurrent):
            rows = 1 if recurrent else max(draws, noise)
            with using(network, draw(network, rows=rows, generator=self._generator)):
                drawn = self.values(np.repeat(observation, rows, axis=0))
        if recurrent and drawn is not None:
            # Every forward advances the LSTM's state, so there is only one, under the acting draw.
            return ActionValues(kind, drawn[0], None, int(drawn[0].argmax()))
        with mean_weights(network):
            values = self.values(observation)[0]
        acting = drawn[:noise].mean(0) if noise and drawn is not None else values
        return ActionValues(kind, values, drawn, int(acting.argmax()))
