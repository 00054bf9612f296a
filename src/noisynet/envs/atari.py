"""Atari games through ale-py's native vector environment, every preprocessing choice written out.

The games of ale-py are GPL-2.0-only code, so they are an extra: `atari`.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..extras import install_command
from .arguments import checked_actions, one_line, unknown_id, whole
from .vector import EnvironmentFailed, Environments, Step, UnusableEnvironment

if TYPE_CHECKING:
    from ale_py.vector_env import AtariVectorEnv

LARGEST_SEED = 2**31 - 1
"""ale-py keeps seeds in a C int, and reads negative ones as "unseeded"."""


@dataclass(frozen=True, kw_only=True)
class AtariPreprocessing:
    """The preprocessing of an Atari game. It never clips rewards: clip them when storing.

    The defaults are those of Mnih et al. 2015 (DQN), which the NoisyNet paper (Fortunato et al.,
    arXiv 1706.10295) follows: chance enters by no-op starts, not by sticky actions. The later
    recommendation of Machado et al. (arXiv 1709.06009) is `sticky_actions=0.25, max_noops=0,
    life_loss=False, full_action_space=True`; scores under the two are not comparable.
    Raises UnusableEnvironment for values that cannot work.
    """

    sticky_actions: float = 0.0
    """Probability, at every frame, that the emulator repeats the previous action."""
    max_noops: int = 30
    """A game starts with 0 to this many no-op frames, drawn uniformly."""
    frame_skip: int = 4
    """Frames per step; the action is held, the rewards are summed."""
    max_pool: bool = True
    """Whether a step's picture is the pixelwise maximum of its last two frames: sprites flicker."""
    stack: int = 4
    """Pictures in an observation, oldest first."""
    height: int = 84
    """Rows of a picture."""
    width: int = 84
    """Columns of a picture."""
    grayscale: bool = True
    """Whether a picture is (height, width); otherwise it is (height, width, 3)."""
    life_loss: bool = True
    """Whether a lost life counts as `terminated`, which stops bootstrapping. The game goes on."""
    fire_on_reset: bool = False
    """Whether a game's first frame presses FIRE, in games that have it."""
    full_action_space: bool = False
    """Whether all 18 actions are offered, rather than only those that the game reads."""
    max_frames: int = 108_000
    """The time limit, in frames after the no-op start: 30 minutes of play."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.sticky_actions < 1.0:
            raise UnusableEnvironment(
                f"sticky_actions: got {self.sticky_actions!r}, expected 0 up to, not including, 1"
            )
        for name in ("frame_skip", "stack", "height", "width", "max_frames"):
            whole(name, getattr(self, name), 1)
        whole("max_noops", self.max_noops, 0)


class AtariEnvironments(Environments):
    """N copies of one Atari game. Their state cannot be saved."""

    can_save_state = False

    def __init__(
        self,
        environment_id: str,
        count: int,
        *,
        seed: int,
        threads: int = 1,
        preprocessing: AtariPreprocessing | None = None,
    ) -> None:
        chosen = preprocessing or AtariPreprocessing()
        self.id = environment_id
        self.count = whole("count", count, 1)
        self._seed = whole("seed", seed, 0, LARGEST_SEED - self.count + 1)
        self.preprocessing = chosen
        self.stack = chosen.stack
        self.frames_per_step = chosen.frame_skip
        self._vector: AtariVectorEnv | None = _vector(
            environment_id, self.count, whole("threads", threads, 1), chosen
        )
        space = self._vector.single_observation_space
        assert space.shape is not None
        assert space.dtype is not None
        self.observation_shape = tuple(space.shape)
        self.observation_dtype = np.dtype(space.dtype)
        self.action_count = int(self._vector.action_space.nvec[0])  # pyright: ignore[reportAttributeAccessIssue]
        self._frames_before: npt.NDArray[np.int64] | None = None
        self._frames_at_first = np.zeros(self.count, dtype=np.int64)
        self._ended = np.zeros(self.count, dtype=np.bool_)

    def reset(self) -> npt.NDArray[Any]:
        """Start a new game in each environment; see `Environments.reset`."""
        vector = self._open()
        seed = self._seed if self._frames_before is None else None
        try:
            observation, information = vector.reset(seed=seed)
        except Exception as error:
            raise EnvironmentFailed(f"{self.id}: reset raised {one_line(error)}") from error
        self._frames_before = _frames_before(information)
        self._frames_at_first = information["episode_frame_number"].astype(np.int64)
        self._ended = np.zeros(self.count, dtype=np.bool_)
        return observation

    def step(self, actions: npt.ArrayLike) -> Step:
        """Take one action of `frames_per_step` frames in each game; see `Environments.step`."""
        vector = self._open()
        if self._frames_before is None:
            raise UnusableEnvironment(f"{self.id}: step came before the first reset")
        checked = checked_actions(self.id, actions, self.count, self.action_count)
        try:
            observation, reward, terminated, truncated, information = vector.step(checked)
        except Exception as error:
            raise EnvironmentFailed(f"{self.id}: step raised {one_line(error)}") from error

        # The frames played before the present game grow when, and only when, a new game starts.
        # (That the game's own frame number falls is no sure sign: a short game of few no-ops may
        # be followed by one with more.)
        frames_before = _frames_before(information)
        first = frames_before > self._frames_before
        self._frames_before = frames_before
        if (self._ended & ~first).any():
            raise EnvironmentFailed(
                f"{self.id}: a game that was over went on; this ale-py is not the one known here"
            )
        frame = information["episode_frame_number"]
        self._frames_at_first = np.where(first, frame, self._frames_at_first)
        self._ended = truncated | terminated
        if self.preprocessing.life_loss:
            # ale-py reports a lost life only while lives are left, so with none left the game is
            # over; and a life lost in the step that reaches the time limit hides `truncated`.
            no_lives = information["lives"] == 0
            out_of_time = frame - self._frames_at_first >= self.preprocessing.max_frames
            self._ended = truncated | (terminated & (no_lives | out_of_time))
        return Step(
            observation=observation,
            reward=reward.astype(np.float32),
            terminated=terminated,
            truncated=truncated,
            first=first,
            ended=self._ended.copy(),
        )

    def close(self) -> None:
        """End the emulators and their threads."""
        if self._vector is not None:
            self._vector.close()
            self._vector = None  # the threads end with the last reference

    def _open(self) -> "AtariVectorEnv":
        if self._vector is None:
            raise UnusableEnvironment(f"{self.id}: closed")
        return self._vector


def atari_ids() -> list[str]:
    """Return the ids of all games, `ALE/<Game>-v5`. Raises UnusableEnvironment without ale-py."""
    return sorted(_games("Atari"))


def _games(needed_by: str) -> dict[str, str]:
    """Return {id: name of the ROM} of the games that ale-py registers."""
    try:
        import gymnasium

        importlib.import_module("ale_py.vector_env")  # registers ale-py's games
    except ImportError as error:
        raise UnusableEnvironment(
            f"{needed_by} needs ale-py: {install_command('atari')}"
        ) from error
    return {
        name: str(spec.kwargs["game"])
        for name, spec in gymnasium.registry.items()
        if name.startswith("ALE/")
    }


def _vector(
    environment_id: str, count: int, threads: int, chosen: AtariPreprocessing
) -> "AtariVectorEnv":
    """Return ale-py's vector environment with every option given, as its defaults are traps."""
    games = _games(environment_id)
    if environment_id not in games:
        raise unknown_id(environment_id, games)
    from ale_py.vector_env import AtariVectorEnv
    from gymnasium.vector import AutoresetMode

    return AtariVectorEnv(
        games[environment_id],
        count,
        batch_size=0,
        num_threads=min(threads, count),
        max_num_frames_per_episode=chosen.max_frames,
        repeat_action_probability=chosen.sticky_actions,
        full_action_space=chosen.full_action_space,
        continuous=False,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        img_height=chosen.height,
        img_width=chosen.width,
        grayscale=chosen.grayscale,
        stack_num=chosen.stack,
        frameskip=chosen.frame_skip,
        maxpool=chosen.max_pool,
        noop_max=chosen.max_noops + 1,  # ale-py draws from 0 to noop_max - 1
        episodic_life=False,  # it would restart the whole game at each life
        life_loss_info=chosen.life_loss,
        reward_clipping=False,
        use_fire_reset=chosen.fire_on_reset,
    )


def _frames_before(information: dict[str, Any]) -> npt.NDArray[np.int64]:
    """Return, per environment, the frames that it had played when its present game began."""
    total = information["frame_number"].astype(np.int64)
    return total - information["episode_frame_number"]
