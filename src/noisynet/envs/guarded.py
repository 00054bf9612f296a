"""A guard around a user's own vector environments, which reports errors in their code."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .calls import Unfit, ask, check_finite, close
from .vector import EnvironmentFailed, Environments, Step

Answer = TypeVar("Answer")


class GuardedEnvironments(Environments):
    """A user's own vector environments, under the id that was passed to `make`.

    Whatever they raise becomes an EnvironmentFailed, and so do a hang, a wrong shape or type, and a
    NaN or infinite number. Rewards, and observations of other floats, become float32. All arrays
    are copied: they are the caller's to keep, but a user may write every step into the same memory.
    """

    def __init__(self, environment_id: str, inside: Environments) -> None:
        """Take the environments to guard."""
        self.id = environment_id
        self.inside = inside
        self.count = inside.count
        self.observation_shape = tuple(inside.observation_shape)
        self._given_dtype = np.dtype(inside.observation_dtype)
        is_float = self._given_dtype.kind == "f"
        self.observation_dtype = np.dtype(np.float32) if is_float else self._given_dtype
        self.action_count = inside.action_count
        self.stack = inside.stack
        self.frames_per_step = inside.frames_per_step
        self.can_save_state = inside.can_save_state
        self._closed = False

    def reset(self) -> npt.NDArray[Any]:
        """Start new games; see `Environments.reset`."""
        return self._ask("reset", lambda: self._observation(self.inside.reset()))

    def step(self, actions: npt.ArrayLike) -> Step:
        """Take one action in each environment; see `Environments.step`."""
        return self._ask("step", lambda: self._step(self.inside.step(actions)))

    def state(self) -> dict[str, Any]:
        """Return the state of the games; see `Environments.state`."""
        if not self.can_save_state:
            return super().state()
        return self._ask("state", self.inside.state)

    def restore(self, state: dict[str, Any]) -> npt.NDArray[Any]:
        """Continue from a saved state; see `Environments.restore`."""
        return self._ask("restore", lambda: self._observation(self.inside.restore(state)))

    def close(self) -> None:
        """Close the environments; if that fails, warn."""
        if not self._closed:
            self._closed = True
            close(self._failure, self.inside.close)

    def _ask(self, method: str, call: Callable[[], Answer]) -> Answer:
        answer = ask(self._failure, method, call)
        self.can_save_state = self.inside.can_save_state
        return answer

    def _failure(self, what: str) -> EnvironmentFailed:
        self.can_save_state = False
        return EnvironmentFailed(f"{self.id}: failed: {what}")

    def _step(self, step: object) -> Step:
        if not isinstance(step, Step):
            raise Unfit(f"returned {type(step).__name__}, expected noisynet.envs.Step")
        observation = self._observation(step.observation)
        reward = _copy("reward", _check(step.reward, "reward", (self.count,)), np.float32)
        flags = {
            name: _check(getattr(step, name), name, (self.count,), np.bool_).copy()
            for name in ("terminated", "truncated", "first", "ended")
        }
        return Step(observation=observation, reward=reward, **flags)

    def _observation(self, seen: Any) -> npt.NDArray[Any]:
        _check(seen, "observation", (self.count, *self.observation_shape), self._given_dtype)
        return _copy("observation", seen, self.observation_dtype)


def _copy(name: str, values: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a copy in another type; raise Unfit for NaN, infinity, or floats too large for it."""
    with np.errstate(over="ignore"):  # an overflow becomes infinite
        copied = values.astype(dtype)
    check_finite(name, copied)
    return copied


def _check(
    got: object, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None
) -> npt.NDArray[Any]:
    """Return an array; raise Unfit for anything else, or another shape or type."""
    if not isinstance(got, np.ndarray) or got.shape != shape:
        what = f"shape {got.shape}" if isinstance(got, np.ndarray) else type(got).__name__
        raise Unfit(f"{name}: got {what}, expected an array of shape {shape}")
    if dtype is not None and got.dtype != dtype:
        raise Unfit(f"{name}: got {got.dtype}, expected {np.dtype(dtype)}")
    return got
