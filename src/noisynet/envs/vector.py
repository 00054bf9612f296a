"""The interface of vector environments, and the result of one step of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


class UnusableEnvironment(ValueError):
    """An environment cannot be made or used as asked; the message says what is expected."""


class EnvironmentFailed(UnusableEnvironment):
    """An environment in use raised an error, or returned something that cannot be used.

    The message names the environment's id, which of the N it was if that is known, and what
    happened; the environment's own error, if there is one, is the `__cause__`. The games are
    undefined until the next `reset` or `restore`, and cannot be saved (`can_save_state` is false).
    """


@dataclass(frozen=True, slots=True)
class Step:
    """What N environments return after one step of each. The arrays are the caller's to keep.

    A game that is over restarts at the step after (Gymnasium's NEXT_STEP autoreset): that step
    ignores its action, returns the new game's first observation with reward 0, and is marked
    `first`. It is no experience.
    """

    observation: npt.NDArray[Any]
    """(N, *shape): what is seen after the step, the last observation of a game included."""
    reward: npt.NDArray[np.float32]
    """(N,): the true reward, never clipped."""
    terminated: npt.NDArray[np.bool_]
    """(N,): bootstrapping stops here. With `AtariPreprocessing.life_loss` a lost life counts,
    and the game goes on."""
    truncated: npt.NDArray[np.bool_]
    """(N,): the time limit ended the game; bootstrapping still uses this observation's value."""
    first: npt.NDArray[np.bool_]
    """(N,): this observation is the first of a new game; the action given was ignored."""
    ended: npt.NDArray[np.bool_]
    """(N,): the game is over for certain, and the next step is `first`. The converse held in all
    63 Atari games that random play finishes, but is not promised: where a game's end was not
    reported, the `first` that follows reveals it."""


class Environments(ABC):
    """N copies of one environment that step together."""

    id: str
    """The id that was passed to `make`."""
    count: int
    """N."""
    observation_shape: tuple[int, ...]
    """Shape of one environment's observation."""
    observation_dtype: np.dtype[Any]
    """Type of an observation's numbers."""
    action_count: int
    """Actions are 0 … action_count - 1."""
    stack: int
    """Frames that an observation's first axis stacks, oldest first; 1 where an observation is one
    vector or one image (channels, height, width), which is then the frame itself. The first
    observation of a game has empty frames (zeros) before its one real frame."""
    frames_per_step: int
    """Emulator frames per step: 4 on Atari unless set otherwise, 1 elsewhere."""
    can_save_state: bool
    """Whether `state` and `restore` work."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame: what a replay stores of an observation."""
        return self.observation_shape[1:] if self.stack > 1 else self.observation_shape

    def newest_frame(self, observation: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the newest frame of observations (…, *shape): (…, *frame_shape)."""
        if self.stack == 1:
            return observation
        return np.moveaxis(observation, -len(self.observation_shape), 0)[-1]

    @abstractmethod
    def reset(self) -> npt.NDArray[Any]:
        """Start a new game in each environment; return the observations, (N, *shape).

        The first call seeds environment i with `seed + i`; later calls go on with its generator.
        """

    @abstractmethod
    def step(self, actions: npt.ArrayLike) -> Step:
        """Take one action in each environment: (N,) whole numbers below `action_count`.

        Raises UnusableEnvironment for other actions, or before the first `reset`.
        """

    def state(self) -> dict[str, Any]:
        """Return everything that the future depends on, as plain values that JSON keeps exactly.

        Raises UnusableEnvironment unless `can_save_state`.
        """
        raise UnusableEnvironment(f"{self.id}: the state of this environment cannot be saved")

    def restore(self, state: dict[str, Any]) -> npt.NDArray[Any]:
        """Continue from a saved state bit for bit; return the current observations, (N, *shape).

        Raises UnusableEnvironment unless `can_save_state`, or for another environment's state.
        """
        del state
        raise UnusableEnvironment(f"{self.id}: the state of this environment cannot be restored")

    @abstractmethod
    def close(self) -> None:
        """Free what the environments hold; they cannot be used afterwards."""
