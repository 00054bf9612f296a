"""Play a fixed number of whole games with a policy that does not learn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..envs import Environments, EpisodeCounter, FinishedEpisode

TELL_SECONDS = 10.0
"""Default time between two lines of progress."""


class UnusableEvaluation(ValueError):
    """Error for an evaluation that cannot be run as asked."""


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """One game of an evaluation."""

    episode: int
    """Its number, from 0."""
    environment: int
    """The environment that played it: `episode` modulo their number."""
    reward_sum: float
    """The true return: the plain sum of its unclipped rewards."""
    steps: int
    """Agent steps taken in it."""
    cut: bool = False
    """Whether a limit on steps ended it, and not the game itself."""


def check_episodes(episodes: object) -> None:
    """Raise UnusableEvaluation for a number of games that cannot be played."""
    if isinstance(episodes, bool) or not isinstance(episodes, int) or episodes < 1:
        raise UnusableEvaluation(
            f"episodes: got {episodes!r}, expected a whole number of at least 1"
        )


def play(
    environments: Environments,
    act: Callable[[npt.NDArray[Any]], npt.ArrayLike],
    episodes: int,
    *,
    on_first: Callable[[npt.NDArray[np.bool_]], object] | None = None,
    steps: int | None = None,
    tell: Callable[[str], object] | None = None,
    tell_seconds: float | None = None,
) -> list[EpisodeResult]:
    """Play exactly `episodes` new games to their real ends; return them in order of their number.

    Game i is played by environment i modulo N, so each environment has a quota fixed beforehand:
    to count the first games to finish would favour short ones. Environments that have met their
    quota are still stepped, but not counted. `act` maps observations (N, *shape) to actions (N,).
    `on_first` is called with a mask (N,) before the first action of the games that it marks; there,
    noise can be redrawn once per game. The environments are reset first and left open.

    `steps` limits the agent steps of a game. A game that takes more ends there, with its return so
    far, and its environment plays none of the games that it has left, which are missing from the
    result. `tell` is called with a line of progress every `tell_seconds` (by default ten).

    Raises UnusableEvaluation for `episodes` below 1, and whatever the environments raise. Without
    `steps`, it may never return if an environment has no time limit.
    """
    check_episodes(episodes)
    count = environments.count
    counter = EpisodeCounter(count)
    played = [0] * count
    lasted = np.zeros(count, np.int64)
    left = np.zeros(count, np.bool_)
    results: list[EpisodeResult] = []
    told, taken = time.monotonic(), 0
    tell_seconds = TELL_SECONDS if tell_seconds is None else tell_seconds

    def count_game(game: FinishedEpisode, *, cut: bool) -> None:
        episode = game.environment + count * played[game.environment]
        played[game.environment] += 1
        if episode < episodes and not left[game.environment]:
            results.append(
                EpisodeResult(episode, game.environment, game.reward_sum, game.steps, cut)
            )

    observation = environments.reset()
    first = np.ones(count, dtype=np.bool_)
    while len(results) < episodes:
        if on_first is not None and first.any():
            on_first(first)
        step = environments.step(np.asarray(act(observation)))
        at_limit = step.ended & step.truncated & ~step.terminated
        for game in counter.update(step):
            count_game(game, cut=bool(at_limit[game.environment]))
        observation, first = step.observation, step.first
        taken += 1
        lasted = np.where(step.ended | first, 0, lasted + 1)
        if steps is not None:
            too_long = ~left & (lasted >= steps)
            for game in counter.close(too_long):
                count_game(game, cut=True)
            left |= too_long
            if all(left[one] or one + count * played[one] >= episodes for one in range(count)):
                break
        if tell is not None and time.monotonic() - told >= tell_seconds:
            told = time.monotonic()
            tell(f"{len(results)} of {episodes} games after {taken:,} steps of each environment …")
    return sorted(results, key=lambda result: result.episode)
