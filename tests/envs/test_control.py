"""Classic control and other vector observations: Gymnasium's trajectories, states, refusals."""

import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisynet.envs import (
    AtariPreprocessing,
    Environments,
    EpisodeCounter,
    UnusableEnvironment,
    make,
)

CLASSIC = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0"]


class Countdown(gymnasium.Env[Any, Any]):
    """Ends after `length` steps; the reward of a step is the action itself; actions start at 5."""

    length: ClassVar[int] = 3
    observation_space = gymnasium.spaces.Box(-1.0, 9.0, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(2, start=5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = self.length
        return np.array([self.left], dtype=np.float64), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.left -= 1
        return np.array([self.left], dtype=np.float64), float(action), self.left == 0, False, {}


class WrongShape(Countdown):
    """Returns one number where its space promises two."""

    observation_space = gymnasium.spaces.Box(-1.0, 9.0, (2,), np.float64)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    for name, entry, limit in (
        ("Countdown-v0", Countdown, None),
        ("CountdownCut-v0", Countdown, 2),
        ("CountdownBoth-v0", Countdown, 3),
        ("WrongShape-v0", WrongShape, None),
    ):
        gymnasium.register(name, entry_point=entry, max_episode_steps=limit)
    yield
    for name in ("Countdown-v0", "CountdownCut-v0", "CountdownBoth-v0", "WrongShape-v0"):
        del gymnasium.registry[name]


@pytest.mark.parametrize("name", CLASSIC)
def test_the_trajectory_is_that_of_gymnasiums_own_vector(name: str) -> None:
    ours = make(name, 3, seed=11)
    theirs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(name)] * 3)
    assert ours.observation_shape == theirs.single_observation_space.shape
    assert np.array_equal(ours.reset(), theirs.reset(seed=11)[0])
    generator = np.random.default_rng(0)
    over = np.zeros(3, dtype=bool)
    restarts = 0
    for _ in range(520):
        actions = generator.integers(ours.action_count, size=3)
        step = ours.step(actions)
        observation, reward, terminated, truncated, _ = theirs.step(actions)
        assert np.array_equal(step.observation, observation)
        assert step.observation.dtype == np.float32
        assert np.array_equal(step.reward, reward)
        assert np.array_equal(step.terminated, terminated)
        assert np.array_equal(step.truncated, truncated)
        assert np.array_equal(step.first, over)
        over = terminated | truncated
        assert np.array_equal(step.ended, over)
        restarts += int(step.first.sum())
    assert restarts > 0
    theirs.close()
    ours.close()


def test_what_cartpole_promises() -> None:
    pole = make("CartPole-v1", 2, seed=0)
    assert (pole.stack, pole.frames_per_step, pole.action_count) == (1, 1, 2)
    assert (pole.observation_shape, pole.observation_dtype) == ((4,), np.dtype(np.float32))
    assert pole.can_save_state


def walk(environments: Environments, steps: int, seed: int) -> list[tuple[bytes, ...]]:
    """Take random steps; return all that came back, as bytes."""
    generator = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        actions = generator.integers(environments.action_count, size=environments.count)
        step = environments.step(actions)
        fields = ("observation", "reward", "terminated", "truncated", "first", "ended")
        seen.append(tuple(getattr(step, field).tobytes() for field in fields))
    return seen


@given(
    name=st.sampled_from(CLASSIC),
    count=st.integers(1, 4),
    before=st.integers(0, 60) | st.sampled_from([199, 200, 201]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=25)
def test_a_saved_state_continues_bit_for_bit(name: str, count: int, before: int, seed: int) -> None:
    """At any step: at a fresh reset, in a game, on its last step, at the time limit."""
    original = make(name, count, seed=seed)
    original.reset()
    walk(original, before, seed)
    saved = json.dumps(original.state(), allow_nan=False)
    restored = make(name, count, seed=seed + 1)
    now = restored.restore(json.loads(saved))
    assert json.dumps(restored.state()) == saved
    assert walk(original, 60, seed + 2) == walk(restored, 60, seed + 2)
    assert now.shape == (count, *original.observation_shape)
    assert np.array_equal(original.reset(), restored.reset())  # the generators draw on alike


def test_restoring_returns_the_current_observation_and_undoes_a_closed_game() -> None:
    pole = make("CartPole-v1", 2, seed=4)
    pole.reset()
    while True:  # stop at the very step at which a game ends
        step = pole.step([1, 1])
        if step.ended.any():
            break
    state = pole.state()
    other = make("CartPole-v1", 2, seed=99)
    assert np.array_equal(other.restore(state), step.observation)
    after = other.step([0, 0])
    assert np.array_equal(after.first, step.ended)
    assert np.array_equal(after.observation, pole.step([0, 0]).observation)


def test_a_state_of_other_environments_is_refused() -> None:
    pole = make("CartPole-v1", 2, seed=4)
    with pytest.raises(UnusableEnvironment, match="before the first reset"):
        pole.state()
    pole.reset()
    for other in (make("CartPole-v1", 3, seed=4), make("Acrobot-v1", 2, seed=4)):
        with pytest.raises(
            UnusableEnvironment, match="state: got one of 2 × CartPole-v1, expected"
        ):
            other.restore(pole.state())


@pytest.mark.parametrize(("name", "terminated", "truncated", "length"), [
    ("Countdown-v0", True, False, 3), ("CountdownCut-v0", False, True, 2),
    ("CountdownBoth-v0", True, True, 3),
])  # fmt: skip
def test_ends_restarts_and_action_offsets(
    name: str, terminated: bool, truncated: bool, length: int
) -> None:
    environments = make(name, 2, seed=0)
    assert environments.reset().tolist() == [[3.0], [3.0]]
    assert environments.reset().dtype == np.float32
    counter = EpisodeCounter(2)
    for _ in range(3):
        for place in range(length):
            step = environments.step([0, 1])
            assert step.reward.tolist() == [5.0, 6.0]
            over = place == length - 1
            assert step.terminated.tolist() == [terminated and over] * 2
            assert step.truncated.tolist() == [truncated and over] * 2
            assert not step.first.any()
            games = counter.update(step)
            assert [(g.environment, g.reward_sum, g.steps) for g in games] == (
                [(0, 5.0 * length, length), (1, 6.0 * length, length)] if over else []
            )
        step = environments.step([0, 1])
        assert step.first.tolist() == [True, True]
        assert step.reward.tolist() == [0.0, 0.0]
        assert step.observation.tolist() == [[3.0], [3.0]]
        assert counter.update(step) == []
    assert not environments.can_save_state
    with pytest.raises(UnusableEnvironment, match="cannot be saved"):
        environments.state()


def test_a_wrong_shape_is_not_stretched() -> None:
    with pytest.raises(UnusableEnvironment, match=re.escape("got shape (1,)")):
        make("WrongShape-v0", 1, seed=0).reset()


@pytest.mark.parametrize(("name", "message"), [
    ("cartpole", "cartpole: unknown environment; nearest: CartPole-v"),
    ("CartPole-v9", "CartPole-v9: unknown environment; nearest: CartPole-v"),
    ("xyzzy", "xyzzy: unknown environment; expected a registered Gymnasium id"),
    ("MyGrid-v0", "unknown environment; .*, or module:MyGrid-v0 where its module registers it"),
    ("Pendulum-v1", r"Pendulum-v1: action space: got Box\(.*\), expected Discrete"),
    ("Reacher-v2", "Reacher-v2: cannot be made: "),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*out of date:UserWarning")
@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_what_cannot_be_played_says_why(name: str, message: str) -> None:
    with pytest.raises(UnusableEnvironment, match=message):
        make(name, 1, seed=0)


def test_games_are_among_the_nearest_names() -> None:
    pytest.importorskip("ale_py")
    for name in ("Pong-v4", "pong", "PongNoFrameskip-v4"):
        with pytest.raises(UnusableEnvironment, match=r"nearest: .*ALE/Pong-v5"):
            make(name, 1, seed=0)


def test_options_that_nothing_would_read_are_refused() -> None:
    with pytest.raises(UnusableEnvironment, match="CartPole-v1: atari: got"):
        make("CartPole-v1", 1, seed=0, atari=AtariPreprocessing())
    for count in (0, True, 1.5):
        with pytest.raises(UnusableEnvironment, match="count: got"):
            make("CartPole-v1", count, seed=0)  # pyright: ignore[reportArgumentType]


def test_closing_twice_is_fine_and_stepping_then_is_not() -> None:
    pole = make("CartPole-v1", 1, seed=0)
    with pytest.raises(UnusableEnvironment, match="before the first reset"):
        pole.step([0])
    pole.reset()
    with pytest.raises(UnusableEnvironment, match="actions: got"):
        pole.step([2])
    pole.close()
    pole.close()
    with pytest.raises(UnusableEnvironment, match="closed"):
        pole.step([0])
