"""What travels between learner and samplers: orders one way, reports and fragments the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..envs import FinishedEpisode
from ..layers import Draw
from ..runs.config import Config
from ..runs.seeds import SEEDS

Weights = dict[str, np.ndarray]
"""A network's parameters, μ and σ, by their names. Noise is never among them."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Which sampler an actor is, and what it needs to be built."""

    config: Config
    observation_shape: tuple[int, ...]
    actions: int
    stack: int
    """Frames in an observation; 1 where an observation is the frame itself."""
    number: int
    """From 0."""
    life: int
    """How many actors had this number before, in this session."""
    steps_before: int
    """Agent steps of the run before this session."""

    def own_config(self) -> Config:
        """Return the config with this sampler's seed, one thread of the CPU, and float32.

        Seeds differ between samplers, between an actor and the one that replaces it, and between a
        run and its resumption, so that no game and no noise is played twice.
        """
        name = f"sampler {self.number}.{self.life} from {self.steps_before}"
        seed = self.config.training.stream(name) % SEEDS
        return self.config.replaced(seed=seed, threads=1, device="cpu", precision="float32")


@dataclass(frozen=True, kw_only=True)
class Order:
    """A request for one fragment."""

    step: int
    """Agent steps of the whole run when this was asked."""
    version: int
    """Updates behind the weights that are to act."""
    measure: bool = False
    """Measure what the noise does to the policy, too."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is known of a played fragment: small, so that it travels apart from the frames."""

    number: int
    """Number of the fragment in this life of its sampler, from 0."""
    version: int
    """Updates behind the weights that acted."""
    steps: int
    """Agent steps, less those that restarted a game."""
    games: list[tuple[int, FinishedEpisode]]
    """Games that ended in it, each with the steps of the fragment so far."""
    nbytes: int
    """Bytes of the fragment's arrays, its draw of noise included."""
    noise: dict[str, float]
    """What the noise does to the policy, by the names that metrics have; only where asked for."""


@dataclass(frozen=True, kw_only=True)
class ReplayFragment:
    """T steps of N environments for a replay: each frame once."""

    frame: np.ndarray
    """(T, N, *frame): the newest frame of each observation that was acted on."""
    action: np.ndarray
    """(T, N), int32."""
    reward: np.ndarray
    """(T, N), float32: clipped where that was asked for."""
    terminated: np.ndarray
    truncated: np.ndarray
    first: np.ndarray
    """(T, N), bool, like the two above: the frame begins a game."""
    ignored: np.ndarray
    """(T, N), bool: the environment was being reset, the action did nothing."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class RolloutFragment:
    """T steps of N environments for a learner of rollouts, and the noise that acted in them.

    Stacks are put together where they arrive (`restacked`): `opening` is the whole first
    observation, `frame` the newest frame of each later one.
    """

    opening: np.ndarray
    """(N, …)."""
    frame: np.ndarray
    """(T, N, *frame): of the observations after each step."""
    first: np.ndarray
    """(T + 1, N), bool."""
    action_t: np.ndarray
    reward_t: np.ndarray
    discount_t: np.ndarray
    goes_on_t: np.ndarray
    taken_t: np.ndarray
    """(T, N), as `Rollout` has them."""
    drawn: Draw | None
    """The draw that acted last; None without noise."""


Fragment = ReplayFragment | RolloutFragment


def restacked(opening: np.ndarray, frame: np.ndarray, first: np.ndarray, stack: int) -> np.ndarray:
    """Return observations (T + 1, N, …) from the first one and the frames (T, N, …) after it.

    A game begins with empty frames, zeros, before its one real frame, as everywhere in this
    package. `first` is (T + 1, N).
    """
    if stack == 1:
        return np.concatenate([opening[None], frame])
    observation = np.empty((len(frame) + 1, *opening.shape), opening.dtype)
    observation[0] = opening
    for step, newest in enumerate(frame):
        former, now = observation[step], observation[step + 1]
        now[:, :-1] = former[:, 1:]
        now[first[step + 1], :-1] = 0
        now[:, -1] = newest
    return observation
