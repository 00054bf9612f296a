"""The messages of learner and samplers: orders one way, reports and fragments the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..envs import FinishedEpisode
from ..layers import Draw
from ..runs.config import Config
from ..runs.seeds import SEEDS

Weights = dict[str, np.ndarray]
"""A network's state dictionary as arrays: μ, σ and buffers by name. It never contains noise."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The identity of a sampler, and what is needed to build it."""

    config: Config
    observation_shape: tuple[int, ...]
    actions: int
    stack: int
    """Frames in an observation; 1 where an observation is the frame itself."""
    number: int
    """From 0."""
    life: int
    """How many actors had this number before it, in this session."""
    steps_before: int
    """Agent steps of the run before this session."""

    def own_config(self) -> Config:
        """Return the config for this sampler: a seed of its own, one thread, the CPU and float32.

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
    """Agent steps of the whole run when the request was made."""
    version: int
    """Version of the weights to act under: the number of updates (or rollouts) learned so far."""
    measure: bool = False
    """Whether to measure the effect of the noise on the policy as well."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The summary of a played fragment, small and sent apart from the fragment itself."""

    number: int
    """Number of the fragment in this life of its sampler, from 0."""
    version: int
    """Version of the weights that acted; see `Order`."""
    steps: int
    """Agent steps, less those that restarted a game."""
    games: list[tuple[int, FinishedEpisode]]
    """Games that ended in it, each with the fragment's agent steps up to the game's end."""
    nbytes: int
    """Bytes of the fragment's arrays, its draw of noise included."""
    noise: dict[str, float]
    """Figures of the noise's effect on the policy, by their names in metrics, if asked for."""


@dataclass(frozen=True, kw_only=True)
class ReplayFragment:
    """T steps of N environments for a replay, with each frame stored once."""

    frame: np.ndarray
    """(T, N, *frame): the newest frame of each observation that was acted on."""
    action: np.ndarray
    """(T, N), int32."""
    reward: np.ndarray
    """(T, N), float32: clipped if the config says so."""
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

    The learner rebuilds stacked observations (`restacked`): `opening` is the whole first
    observation, `frame` has the newest frame of each later one.
    """

    opening: np.ndarray
    """(N, …)."""
    frame: np.ndarray
    """(T, N, *frame): the newest frame of the observation after each step."""
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
