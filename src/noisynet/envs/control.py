"""Classic control, and any Gymnasium environment with discrete actions and vector observations.

The environments are stepped here, one after the other, and not by `gymnasium.vector`: which of
them restart next, and how far each is from its time limit, is part of the saved state, and
Gymnasium keeps both in private fields. The trajectories are those of its SyncVectorEnv.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from noisynet.envs.environments import (
    Environments,
    Step,
    UnusableEnvironment,
    checked_actions,
    unknown_id,
    whole,
)

if TYPE_CHECKING:
    import gymnasium


class ControlEnvironments(Environments):
    """N copies of one environment with discrete actions and float32 vector observations.

    CartPole, Acrobot and MountainCar can save their state.
    """

    stack = 1
    frames_per_step = 1

    def __init__(self, environment_id: str, count: int, *, seed: int) -> None:
        self.id = environment_id
        self.count = whole("count", count, 1)
        self._seed = whole("seed", seed, 0)
        made = [_made(environment_id) for _ in range(self.count)]
        self._environments = [environment for environment, _ in made]
        self._step_limit = made[0][1]
        self.observation_shape = _vector_shape(environment_id, self._environments[0])
        self.observation_dtype = np.dtype(np.float32)
        self._first_action, self.action_count = _actions(environment_id, self._environments[0])
        self.can_save_state = _is_classic(self._environments[0])
        self._observation: npt.NDArray[np.float32] | None = None
        self._elapsed = np.zeros(self.count, dtype=np.int64)
        self._restart = np.zeros(self.count, dtype=np.bool_)
        self._closed = False

    def reset(self) -> npt.NDArray[np.float32]:
        """Start a new game in each environment; see `Environments.reset`."""
        self._check_open()
        unseeded = self._observation is not None
        observation = np.empty((self.count, *self.observation_shape), dtype=np.float32)
        for index, environment in enumerate(self._environments):
            seed = None if unseeded else self._seed + index
            self._write(observation, index, environment.reset(seed=seed)[0])
        self._elapsed[:] = 0
        self._restart[:] = False
        self._observation = observation
        return observation.copy()

    def step(self, actions: npt.ArrayLike) -> Step:
        """Take one action in each environment; see `Environments.step`."""
        self._check_open()
        if self._observation is None:
            raise UnusableEnvironment(f"{self.id}: step came before the first reset")
        checked = checked_actions(self.id, actions, self.count, self.action_count)
        observation = np.empty((self.count, *self.observation_shape), dtype=np.float32)
        reward = np.zeros(self.count, dtype=np.float32)
        terminated = np.zeros(self.count, dtype=np.bool_)
        truncated = np.zeros(self.count, dtype=np.bool_)
        first = self._restart
        for index, environment in enumerate(self._environments):
            if first[index]:
                seen = environment.reset()[0]
                self._elapsed[index] = 0
            else:
                action = self._first_action + int(checked[index])
                seen, gain, terminated[index], cut, _ = environment.step(action)
                reward[index] = float(gain)
                self._elapsed[index] += 1
                truncated[index] = cut or (
                    self._step_limit is not None and self._elapsed[index] >= self._step_limit
                )
            self._write(observation, index, seen)
        self._observation = observation
        self._restart = terminated | truncated
        return Step(
            observation=observation.copy(),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            first=first,
            ended=self._restart.copy(),
        )

    def state(self) -> dict[str, Any]:
        """Return physics, generators and time limits of all environments; see `Environments`."""
        if not self.can_save_state:
            return super().state()
        self._check_open()
        if self._observation is None:
            raise UnusableEnvironment(f"{self.id}: state came before the first reset")
        games: list[dict[str, Any]] = []
        for index, environment in enumerate(self._environments):
            inside: Any = environment.unwrapped
            games.append(
                {
                    "physics": [float(value) for value in inside.state],
                    "generator": inside.np_random.bit_generator.state,
                    "observation": self._observation[index].tolist(),
                    "elapsed": int(self._elapsed[index]),
                    "restart": bool(self._restart[index]),
                }
            )
        return {"id": self.id, "games": games}

    def restore(self, state: dict[str, Any]) -> npt.NDArray[np.float32]:
        """Continue from a saved state bit for bit; see `Environments.restore`."""
        if not self.can_save_state:
            return super().restore(state)
        self._check_open()
        games = state["games"]
        if (state["id"], len(games)) != (self.id, self.count):
            raise UnusableEnvironment(
                f"state: got one of {len(games)} × {state['id']}, "
                f"expected one of {self.count} × {self.id}"
            )
        for environment, game in zip(self._environments, games, strict=True):
            environment.reset(seed=0)  # Gymnasium wants one before a step; all of it is replaced
            inside: Any = environment.unwrapped
            inside.state = np.array(game["physics"], dtype=np.float64)
            inside.np_random.bit_generator.state = game["generator"]
        self._elapsed = np.array([game["elapsed"] for game in games], dtype=np.int64)
        self._restart = np.array([game["restart"] for game in games], dtype=np.bool_)
        observation = np.array([game["observation"] for game in games], dtype=np.float32)
        self._observation = observation
        return observation.copy()

    def close(self) -> None:
        """Close every environment."""
        if not self._closed:
            self._closed = True
            for environment in self._environments:
                environment.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UnusableEnvironment(f"{self.id}: closed")

    def _write(self, observation: npt.NDArray[np.float32], index: int, seen: object) -> None:
        """Put one environment's observation in its row; numpy alone would stretch a wrong shape."""
        row = np.asarray(seen, dtype=np.float32)
        if row.shape != self.observation_shape:
            raise UnusableEnvironment(
                f"{self.id}: observation: got shape {row.shape}, its own space says "
                f"{self.observation_shape}"
            )
        observation[index] = row


def registered_ids() -> list[str]:
    """Return the registered ids, those of Atari in their present form (`ALE/…`) only.

    Raises UnusableEnvironment without Gymnasium.
    """
    gymnasium = _gymnasium()
    return sorted(
        name
        for name, spec in gymnasium.registry.items()
        if name.startswith("ALE/") or not str(spec.entry_point).startswith("ale_py.")
    )


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise UnusableEnvironment(
            "noisynet.envs needs Gymnasium: pip install 'noisynet[train]'"
        ) from error
    return gymnasium


def _made(environment_id: str) -> "tuple[gymnasium.Env[Any, Any], int | None]":
    """Return an environment without its time limit, and that limit in steps."""
    gymnasium = _gymnasium()
    if environment_id not in gymnasium.registry:
        raise unknown_id(environment_id, registered_ids())
    limit = gymnasium.registry[environment_id].max_episode_steps
    try:
        environment = gymnasium.make(environment_id, max_episode_steps=-1, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        raise UnusableEnvironment(f"{environment_id}: cannot be made: {error}") from error
    return environment, limit


def _vector_shape(environment_id: str, environment: "gymnasium.Env[Any, Any]") -> tuple[int, ...]:
    from gymnasium.spaces import Box

    space = environment.observation_space
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise UnusableEnvironment(
            f"{environment_id}: observation space: got {space}, expected a Box of one dimension "
            "(of Atari games, ALE/<Game>-v5)"
        )
    return space.shape


def _actions(environment_id: str, environment: "gymnasium.Env[Any, Any]") -> tuple[int, int]:
    """Return the environment's first action and the number of its actions."""
    from gymnasium.spaces import Discrete

    space = environment.action_space
    if not isinstance(space, Discrete):
        raise UnusableEnvironment(f"{environment_id}: action space: got {space}, expected Discrete")
    return int(space.start), int(space.n)


def _is_classic(environment: "gymnasium.Env[Any, Any]") -> bool:
    """Return whether `state` and `np_random` are all that the environment remembers.

    CartPole's `steps_beyond_terminated` is no exception: it counts steps after a game's end, and
    here none are taken.
    """
    from gymnasium.envs.classic_control import AcrobotEnv, CartPoleEnv, MountainCarEnv

    return type(environment.unwrapped) in (AcrobotEnv, CartPoleEnv, MountainCarEnv)
