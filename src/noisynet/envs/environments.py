"""What every vector of environments promises, and what one step of it returns."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


class UnusableEnvironment(ValueError):
    """An environment cannot be made or used as asked: what was asked, what came, what is taken."""


class EnvironmentFailed(UnusableEnvironment):
    """An environment that was in use raised an error, or returned what cannot be used.

    It names the environment's id, which of the N it was, and what happened; the environment's own
    error, where there is one, is its `__cause__`. The games are undefined until the next `reset`
    or `restore`, and cannot be saved (`can_save_state` is false).
    """


class Unfit(Exception):
    """Say what does not fit about what a single game returned; becomes an EnvironmentFailed."""


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
    """(N,): the time limit; the game is over, but bootstrapping goes on from this observation."""
    first: npt.NDArray[np.bool_]
    """(N,): this observation is the first of a new game; the action given was ignored."""
    ended: npt.NDArray[np.bool_]
    """(N,): the game is over for certain, and the next step is `first`. The converse held in all
    63 Atari games that random play finishes, but is not promised: a game that ended unseen shows
    by the `first` that follows."""


class Environments(ABC):
    """N copies of one environment that step together."""

    id: str
    """What `make` was asked for."""
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

    @abstractmethod
    def reset(self) -> npt.NDArray[Any]:
        """Start a new game in each environment; return the observations, (N, *shape).

        The first call seeds environment i with `seed + i`; later calls draw on from there.
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


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return `value` as an int from `least` to `most`; raise UnusableEnvironment otherwise."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or value < least
        or (most is not None and value > most)
    ):
        expected = f"at least {least}" if most is None else f"from {least} to {most}"
        raise UnusableEnvironment(f"{name}: got {value!r}, expected a whole number {expected}")
    return int(value)


def first_line(error: Exception) -> str:
    """Return an error's type and the first line of what it says: `KeyError: 'speed'`."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def as_numbers(seen: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return one observation as an array, what float32 cannot hold as infinite.

    Raises Unfit for another shape, which numpy would stretch without a word.
    """
    array = np.asarray(seen)
    if array.dtype != dtype:
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
    if array.shape != shape:
        raise Unfit(f"observation: got shape {array.shape}, its own space says {shape}")
    return array


def checked_actions(
    environment: str, actions: npt.ArrayLike, count: int, action_count: int
) -> npt.NDArray[np.int64]:
    """Return `actions` as (N,) int64; raise UnusableEnvironment where they do not fit.

    Needed, not polite: ale-py 0.12.1 hangs for ever on an action out of range.
    """
    given = np.asarray(actions)
    if given.shape != (count,) or given.dtype.kind not in "iu":
        raise UnusableEnvironment(
            f"{environment}: actions: got {given.dtype} of shape {given.shape}, "
            f"expected whole numbers of shape ({count},)"
        )
    if given.min() < 0 or given.max() >= action_count:
        raise UnusableEnvironment(
            f"{environment}: actions: got {given.tolist()}, expected 0 to {action_count - 1}"
        )
    return given.astype(np.int64)


def unknown_id(environment_id: str, known: Iterable[str]) -> UnusableEnvironment:
    """Return the error for an id that nobody registered, with the ids nearest to it."""
    nearest = nearest_names(environment_id, known)
    hint = (
        f"nearest: {', '.join(nearest)}"
        if nearest
        else "expected a registered Gymnasium id, or module:function"
    )
    return UnusableEnvironment(f"{environment_id}: unknown environment; {hint}")


def nearest_names(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known ids nearest to `name`, best first; namespace and version may be missing."""

    def likeness(candidate: str) -> tuple[float, float]:
        whole_id = difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio()
        bare = difflib.SequenceMatcher(None, _bare(name), _bare(candidate)).ratio()
        return max(whole_id, bare), whole_id

    scored = sorted(((likeness(candidate), candidate) for candidate in known), reverse=True)
    return [candidate for (best, _), candidate in scored[:most] if best >= 0.6]


def _bare(name: str) -> str:
    """Return an id without namespace, version and old suffix: `PongNoFrameskip-v4` is `pong`."""
    bare = name.rsplit("/", 1)[-1].rsplit("-v", 1)[0].replace("_", "").lower()
    return bare.removesuffix("noframeskip").removesuffix("deterministic")
