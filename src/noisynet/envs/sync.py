"""Single games stepped one after the other: restarts, time limits, saved states, failures."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, SupportsFloat, TypeVar

import numpy as np
import numpy.typing as npt

from .arguments import check_state, checked_actions
from .calls import Unfit, ask, check_finite, close
from .vector import EnvironmentFailed, Environments, Step, UnusableEnvironment

Answer = TypeVar("Answer")


class SyncEnvironments(Environments):
    """N single games in this process, stepped one after the other.

    A subclass plays single games. This class has what concerns all N: restarts and the time limit,
    which are part of the saved state, and the checks. An error in a game, a NaN or infinite number
    or an observation of the wrong shape raises EnvironmentFailed.
    """

    stack = 1
    frames_per_step = 1

    def __init__(
        self,
        environment_id: str,
        count: int,
        *,
        seed: int,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype[Any],
        action_count: int,
        step_limit: int | None,
        can_save_state: bool,
    ) -> None:
        self.id = environment_id
        self.count = count
        self.observation_shape = observation_shape
        self.observation_dtype = observation_dtype
        self.action_count = action_count
        self.can_save_state = self._saves = can_save_state
        self._seed = seed
        self._step_limit = step_limit
        self._observation: npt.NDArray[Any] | None = None
        self._elapsed = np.zeros(count, dtype=np.int64)
        self._restart = np.zeros(count, dtype=np.bool_)
        self._seeded = self._failed = self._closed = False

    @abstractmethod
    def _begin(self, index: int, seed: int | None) -> object:
        """Start a new game, seeded unless `seed` is None; return its first observation."""

    @abstractmethod
    def _play(self, index: int, action: int) -> tuple[object, SupportsFloat, object, object]:
        """Take one step; return observation, reward, terminated and truncated."""

    @abstractmethod
    def _end(self, index: int) -> None:
        """Free what a game holds."""

    def _saved(self, index: int) -> dict[str, Any]:
        """Return a game's state as plain values; only needed with `can_save_state`."""
        raise NotImplementedError

    def _restored(self, index: int, saved: dict[str, Any]) -> None:
        """Restore a game from what `_saved` returned; only needed with `can_save_state`."""
        raise NotImplementedError

    def reset(self) -> npt.NDArray[Any]:
        """Start a new game in each environment; see `Environments.reset`."""
        self._check_open()
        observation = self._empty()
        for index in range(self.count):
            seed = None if self._seeded else self._seed + index
            observation[index] = self._ask(index, "reset", self._first, index, seed)
        self._check_finite("observation", observation)
        self._seeded = True
        self._set_current(observation)
        self._elapsed[:] = 0
        self._restart[:] = False
        return observation.copy()

    def step(self, actions: npt.ArrayLike) -> Step:
        """Take one action in each environment; see `Environments.step`."""
        self._check_open()
        if self._observation is None:
            raise UnusableEnvironment(f"{self.id}: step came before the first reset")
        if self._failed:
            raise UnusableEnvironment(f"{self.id}: step came after a failure, expected reset")
        checked = checked_actions(self.id, actions, self.count, self.action_count).tolist()
        observation = self._empty()
        reward = np.zeros(self.count, dtype=np.float64)
        terminated = np.zeros(self.count, dtype=np.bool_)
        truncated = np.zeros(self.count, dtype=np.bool_)
        first = self._restart
        for index in range(self.count):
            if first[index]:
                observation[index] = self._ask(index, "reset", self._first, index, None)
            else:
                seen, reward[index], terminated[index], truncated[index] = self._ask(
                    index, "step", self._next, index, checked[index]
                )
                observation[index] = seen
        with np.errstate(over="ignore"):  # an overflow becomes infinite, and is reported below
            reward_32 = reward.astype(np.float32)
        self._check_finite("observation", observation)
        self._check_finite("reward", reward_32)
        self._elapsed += 1
        self._elapsed[first] = 0
        if self._step_limit is not None:
            truncated |= ~first & (self._elapsed >= self._step_limit)
        self._observation = observation
        self._restart = terminated | truncated
        return Step(
            observation=observation.copy(),
            reward=reward_32,
            terminated=terminated,
            truncated=truncated,
            first=first,
            ended=self._restart.copy(),
        )

    def state(self) -> dict[str, Any]:
        """Return the state of all games and their elapsed steps; see `Environments.state`."""
        if not self.can_save_state:
            return super().state()
        self._check_open()
        if self._observation is None:
            raise UnusableEnvironment(f"{self.id}: state came before the first reset")
        games = [
            {
                **self._saved(index),
                "observation": self._observation[index].tolist(),
                "elapsed": int(self._elapsed[index]),
                "restart": bool(self._restart[index]),
            }
            for index in range(self.count)
        ]
        return {"id": self.id, "games": games}

    def restore(self, state: dict[str, Any]) -> npt.NDArray[Any]:
        """Continue from a saved state bit for bit; see `Environments.restore`."""
        if not self._saves:
            return super().restore(state)
        self._check_open()
        games = check_state(self, state, len(state["games"]))["games"]
        for index, game in enumerate(games):
            self._restored(index, game)
        self._elapsed = np.array([game["elapsed"] for game in games], dtype=np.int64)
        self._restart = np.array([game["restart"] for game in games], dtype=np.bool_)
        self._seeded = True
        observation = np.array([game["observation"] for game in games], self.observation_dtype)
        self._set_current(observation)
        return observation.copy()

    def close(self) -> None:
        """Close every environment."""
        if not self._closed:
            self._closed = True
            close_all(self.id, [partial(self._end, index) for index in range(self.count)])

    def _check_open(self) -> None:
        if self._closed:
            raise UnusableEnvironment(f"{self.id}: closed")

    def _set_current(self, observation: npt.NDArray[Any]) -> None:
        """Set the current observations, and forget an earlier failure."""
        self._observation = observation
        self._failed = False
        self.can_save_state = self._saves

    def _empty(self) -> npt.NDArray[Any]:
        return np.empty((self.count, *self.observation_shape), self.observation_dtype)

    def _first(self, index: int, seed: int | None) -> npt.NDArray[Any]:
        return as_numbers(self._begin(index, seed), self.observation_shape, self.observation_dtype)

    def _next(self, index: int, action: int) -> tuple[npt.NDArray[Any], float, bool, bool]:
        seen, gain, terminated, truncated = self._play(index, action)
        row = as_numbers(seen, self.observation_shape, self.observation_dtype)
        return (
            row,
            _single("reward", gain, float),
            _single("terminated", terminated, bool),
            _single("truncated", truncated, bool),
        )

    def _ask(self, index: int, method: str, call: Callable[..., Answer], *arguments: Any) -> Answer:
        """Call a game; whatever it raises becomes an EnvironmentFailed."""
        return ask(partial(self.failure, index), method, call, *arguments)

    def _check_finite(self, what: str, values: npt.NDArray[Any]) -> None:
        if values.dtype.kind != "f":
            return
        finite = np.isfinite(values)
        if not finite.all():
            index, *place = (int(axis) for axis in np.argwhere(~finite)[0])
            where = f" at {place}" if place else ""
            value = values[(index, *place)]
            raise self.failure(index, f"{what}: got {value}{where}, expected finite numbers")

    def failure(self, index: int, what: str) -> EnvironmentFailed:
        """Return the error for a failed game, and note that no state can be saved any more."""
        self._failed = True
        self.can_save_state = False
        return EnvironmentFailed(f"{self.id}: environment {index} of {self.count} failed: {what}")


def close_all(environment_id: str, calls: Iterable[Callable[[], object]]) -> None:
    """Close all games; one that fails to close only causes a warning that names it."""
    for index, call in enumerate(calls):
        close(partial(_failed_to_close, environment_id, index), call)


def _failed_to_close(environment_id: str, index: int, what: str) -> EnvironmentFailed:
    return EnvironmentFailed(f"{environment_id}: environment {index}: {what}")


def _single(name: str, value: Any, kind: Callable[[Any], Answer]) -> Answer:
    """Return a value as one number or flag; raise Unfit if it is none, such as an array."""
    try:
        return kind(value)
    except (TypeError, ValueError):
        got = f"shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        wanted = "one number" if kind is float else "true or false"
        raise Unfit(f"{name}: got {got}, expected {wanted}") from None


def as_numbers(seen: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return one observation as an array of `dtype`; values too large for float32 become infinite.

    Raises Unfit for another shape, which numpy would silently broadcast, and for NaN or infinity if
    `dtype` is an integer type.
    """
    array = np.asarray(seen)
    if array.dtype != dtype:
        if dtype.kind != "f":
            check_finite("observation", array)
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
    if array.shape != shape:
        raise Unfit(f"observation: got shape {array.shape}, its own space says {shape}")
    return array
