"""Any Gymnasium environment with discrete actions and vector or image observations.

The environments are stepped here, one after the other, and not by `gymnasium.vector`: which of
them restart next, and how far each is from its time limit, is part of the saved state, and
Gymnasium keeps both in private fields. The trajectories are those of its SyncVectorEnv.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import numpy.typing as npt

from ..extras import cure
from .arguments import check_count_and_seed
from .raised import raised
from .sync import SyncEnvironments, as_numbers, close_all
from .vector import UnusableEnvironment

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.spaces import Space


_TAKEN = (
    "a Box of one dimension (a vector) or of three (an image); "
    "gymnasium.wrappers.FlattenObservation makes a vector of others"
)


@dataclass(frozen=True, slots=True)
class ObservationKind:
    """How observations of one space become arrays: vectors, or images with channels in front.

    Vectors are float32. Images are uint8 where their space says so, and float32 otherwise; of an
    image's first and last axis the shorter holds the channels, the last one if they are equal.
    """

    given: tuple[int, ...]
    """The shape that the space says."""
    shape: tuple[int, ...]
    """(size,) or (channels, height, width)."""
    dtype: np.dtype[Any]
    """Type of the numbers."""
    channels_last: bool
    """Whether the space has (height, width, channels)."""

    def read(self, seen: object) -> npt.NDArray[Any]:
        """Return one observation; raise Unfit unless it has the shape of its space."""
        array = as_numbers(seen, self.given, self.dtype)
        return array.transpose(2, 0, 1) if self.channels_last else array.reshape(self.shape)


def observation_kind(environment_id: str, space: "Space[Any] | None") -> ObservationKind:
    """Return how the observations of a space are read.

    Raises UnusableEnvironment for what is neither a vector nor an image, naming the space.
    """
    from gymnasium.spaces import Box

    if isinstance(space, Box) and math.prod(space.shape) > 0:
        given, bytes_ = space.shape, space.dtype == np.uint8
        if len(given) == 1:
            return ObservationKind(given, given, np.dtype(np.float32), channels_last=False)
        image = np.dtype(np.uint8 if bytes_ else np.float32)
        if len(given) == 3:
            last = given[2] <= given[0]
            shape = (given[2], *given[:2]) if last else given
            return ObservationKind(given, shape, image, channels_last=last)
        if len(given) == 2 and bytes_:  # a picture in grey
            return ObservationKind(given, (1, *given), image, channels_last=False)
    raise UnusableEnvironment(
        f"{environment_id}: observation space: got {_told(space)}, expected {_TAKEN}"
    )


def action_range(environment_id: str, space: "Space[Any] | None") -> tuple[int, int]:
    """Return the first action and the number of actions; raise UnusableEnvironment for others."""
    from gymnasium.spaces import Discrete

    if not isinstance(space, Discrete):
        raise UnusableEnvironment(
            f"{environment_id}: action space: got {_told(space)}, expected Discrete"
        )
    return int(space.start), int(space.n)


def _told(space: "Space[Any] | None") -> str:
    """Return a space on one line of bearable length: a Box prints whole arrays of bounds."""
    told = " ".join(str(space).split())
    return told if len(told) <= 160 else f"{told[:157]}…"


class GymnasiumEnvironments(SyncEnvironments):
    """N copies of one Gymnasium environment, given as so many objects.

    `step_limit` is the time limit in steps, for environments without Gymnasium's TimeLimit around
    them. CartPole, Acrobot and MountainCar can save their state. Closes the environments when they
    do not fit; raises UnusableEnvironment then.
    """

    def __init__(
        self,
        environment_id: str,
        environments: "list[gymnasium.Env[Any, Any]]",
        *,
        seed: int,
        step_limit: int | None = None,
    ) -> None:
        count, seed = check_count_and_seed(len(environments), seed)
        self._environments = environments
        try:
            spaces = [_spaces(environment_id, environment) for environment in environments]
            if any(other != spaces[0] for other in spaces):
                raise UnusableEnvironment(f"{environment_id}: its copies have different spaces")
        except UnusableEnvironment:
            close_all(environment_id, [one.close for one in environments])
            raise
        self._kind, (self._first_action, actions) = spaces[0]
        super().__init__(
            environment_id,
            count,
            seed=seed,
            observation_shape=self._kind.shape,
            observation_dtype=self._kind.dtype,
            action_count=actions,
            step_limit=step_limit,
            can_save_state=all(_is_classic(environment) for environment in environments),
        )

    def _begin(self, index: int, seed: int | None) -> object:
        seen, _ = self._environments[index].reset(seed=seed)
        return self._kind.read(seen)

    def _play(self, index: int, action: int) -> tuple[object, SupportsFloat, object, object]:
        step = self._environments[index].step(self._first_action + action)
        seen, reward, terminated, truncated, _ = step
        return self._kind.read(seen), reward, terminated, truncated

    def _end(self, index: int) -> None:
        self._environments[index].close()

    def _saved(self, index: int) -> dict[str, Any]:
        inside: Any = self._environments[index].unwrapped
        return {
            "physics": [float(value) for value in inside.state],
            "generator": inside.np_random.bit_generator.state,
        }

    def _restored(self, index: int, saved: dict[str, Any]) -> None:
        environment = self._environments[index]
        environment.reset(seed=0)  # Gymnasium wants one before a step; all of it is replaced
        inside: Any = environment.unwrapped
        inside.state = np.array(saved["physics"], dtype=np.float64)
        inside.np_random.bit_generator.state = saved["generator"]


def make_registered(
    environment_id: str, registered: str, count: int, *, seed: int
) -> GymnasiumEnvironments:
    """Make `count` environments of a registered id; `environment_id` is what they are called.

    Raises UnusableEnvironment if their own code fails, or for spaces that no agent here takes.
    """
    count, seed = check_count_and_seed(count, seed)
    gymnasium = imported_gymnasium()
    limit = gymnasium.registry[registered].max_episode_steps
    made: list[Any] = []
    try:
        for _ in range(count):
            made.append(  # noqa: PERF401 - those made before an error are closed
                gymnasium.make(registered, max_episode_steps=-1, disable_env_checker=True)
            )
    except (Exception, SystemExit) as error:
        close_all(environment_id, [one.close for one in made])
        raise UnusableEnvironment(f"{environment_id}: cannot be made: {raised(error)}") from error
    return GymnasiumEnvironments(environment_id, made, seed=seed, step_limit=limit)


def registered_ids() -> list[str]:
    """Return the registered ids, those of Atari in their present form (`ALE/…`) only.

    Raises UnusableEnvironment without Gymnasium.
    """
    return sorted(
        name
        for name, spec in imported_gymnasium().registry.items()
        if name.startswith("ALE/") or not str(spec.entry_point).startswith("ale_py.")
    )


def imported_gymnasium() -> Any:
    """Return Gymnasium; raise UnusableEnvironment where it is not installed."""
    try:
        import gymnasium
    except ImportError as error:
        raise UnusableEnvironment(f"noisynet.envs needs Gymnasium: {cure('train')}") from error
    return gymnasium


def _spaces(
    environment_id: str, environment: "gymnasium.Env[Any, Any]"
) -> tuple[ObservationKind, tuple[int, int]]:
    # A class that forgot its spaces has no such attributes at all.
    observed = getattr(environment, "observation_space", None)
    taken = getattr(environment, "action_space", None)
    return observation_kind(environment_id, observed), action_range(environment_id, taken)


def _is_classic(environment: "gymnasium.Env[Any, Any]") -> bool:
    """Return whether `state` and `np_random` are all that the environment remembers.

    CartPole's `steps_beyond_terminated` is no exception: it counts steps after a game's end, and
    here none are taken. A wrapper may remember anything, but for the one that wants a reset first.
    """
    from gymnasium.envs.classic_control import AcrobotEnv, CartPoleEnv, MountainCarEnv
    from gymnasium.wrappers import OrderEnforcing

    while type(environment) is OrderEnforcing:
        environment = environment.env
    return type(environment) in (AcrobotEnv, CartPoleEnv, MountainCarEnv)
