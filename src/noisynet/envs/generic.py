"""Any Gymnasium environment with discrete actions, and observations that become arrays.

The environments are stepped here, one after the other, and not by `gymnasium.vector`: which of
them restart next, and how far each is from its time limit, is part of the saved state, and
Gymnasium keeps both in private fields. The trajectories are those of its SyncVectorEnv.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from ..extras import install_command
from .arguments import check_count_and_seed
from .calls import Unfit
from .raised import raised
from .spaces import ObservationKind, action_range, observation_kind
from .sync import SyncEnvironments, close_all
from .vector import Environments, UnusableEnvironment

if TYPE_CHECKING:
    import gymnasium


class GymnasiumEnvironments(SyncEnvironments):
    """N copies of one Gymnasium environment, given as N objects.

    `step_limit` is the time limit in steps, for environments without Gymnasium's TimeLimit around
    them. CartPole, Acrobot and MountainCar can save their state. If the spaces are not accepted or
    differ between copies, the environments are closed and UnusableEnvironment is raised.
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
        self.kind, (self.first_action, actions) = spaces[0]
        super().__init__(
            environment_id,
            count,
            seed=seed,
            observation_shape=self.kind.shape,
            observation_dtype=self.kind.dtype,
            action_count=actions,
            step_limit=step_limit,
            can_save_state=all(_is_classic(environment) for environment in environments),
        )

    @property
    def rendering(self) -> "gymnasium.Env[Any, Any] | None":
        """The first environment if it was made to render pictures."""
        first = self._environments[0]
        return first if first.render_mode == "rgb_array" else None

    def _begin(self, index: int, seed: int | None) -> object:
        returned = self._environments[index].reset(seed=seed)
        seen, _ = _parts(returned, "observation, info")
        return self.kind.read(seen)

    def _play(self, index: int, action: int) -> tuple[object, SupportsFloat, object, object]:
        returned = self._environments[index].step(np.int64(self.first_action + action))
        seen, reward, terminated, truncated, _ = _parts(
            returned, "observation, reward, terminated, truncated, info"
        )
        return self.kind.read(seen), reward, terminated, truncated

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
        environment.reset(seed=0)  # required before a step; overwritten below
        inside: Any = environment.unwrapped
        inside.state = np.array(saved["physics"], dtype=np.float64)
        inside.np_random.bit_generator.state = saved["generator"]


def observation_kind_and_first_action(environments: Environments) -> tuple[ObservationKind, int]:
    """Return how a game's observations become arrays, and the game's number of action 0."""
    if isinstance(environments, GymnasiumEnvironments):
        return environments.kind, environments.first_action
    shape = environments.observation_shape
    return ObservationKind(shape, shape, environments.observation_dtype), 0


def make_registered(
    environment_id: str, registered: str, count: int, *, seed: int
) -> GymnasiumEnvironments:
    """Make `count` environments of the id `registered`, and call them `environment_id`.

    Raises UnusableEnvironment if their own code fails, or for spaces that no agent here accepts.
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
    """Return the registered ids; Atari games are included only in their current form, `ALE/…`.

    Raises UnusableEnvironment without Gymnasium.
    """
    return sorted(
        name
        for name, spec in imported_gymnasium().registry.items()
        if name.startswith("ALE/") or not str(spec.entry_point).startswith("ale_py.")
    )


def imported_gymnasium() -> Any:
    """Return Gymnasium; raise UnusableEnvironment if it is not installed."""
    try:
        import gymnasium
    except ImportError as error:
        raise UnusableEnvironment(
            f"noisynet.envs needs Gymnasium: {install_command('train')}"
        ) from error
    return gymnasium


def _spaces(
    environment_id: str, environment: "gymnasium.Env[Any, Any]"
) -> tuple[ObservationKind, tuple[int, int]]:
    # A class that forgot its spaces has no such attributes at all.
    observed = getattr(environment, "observation_space", None)
    taken = getattr(environment, "action_space", None)
    return observation_kind(environment_id, observed), action_range(environment_id, taken)


def _parts(returned: object, names: str) -> Sequence[Any]:
    """Return what `reset` or `step` returned; raise Unfit unless it has the parts in `names`."""
    if isinstance(returned, tuple | list) and len(returned) == names.count(",") + 1:
        return returned
    got = (
        f"{len(returned)} values" if isinstance(returned, tuple | list) else type(returned).__name__
    )
    raise Unfit(f"returned {got}, expected {names}")


def _is_classic(environment: "gymnasium.Env[Any, Any]") -> bool:
    """Return whether `state` and `np_random` are the environment's whole state.

    CartPole's `steps_beyond_terminated` is no exception: it counts steps after a game's end, and
    here none are taken. Wrappers may have any state, except OrderEnforcing, which only requires a
    reset first.
    """
    from gymnasium.envs.classic_control import AcrobotEnv, CartPoleEnv, MountainCarEnv
    from gymnasium.wrappers import OrderEnforcing

    while type(environment) is OrderEnforcing:
        environment = environment.env
    return type(environment) in (AcrobotEnv, CartPoleEnv, MountainCarEnv)
