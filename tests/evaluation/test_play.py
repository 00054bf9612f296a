"""Quotas, order, redraws and refusals of an evaluation, on real environments."""

import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisynet.envs import AtariPreprocessing, EnvironmentFailed, GymnasiumEnvironments, make
from noisynet.evaluation.play import EpisodeResult, UnusableEvaluation, play


class Uneven(gymnasium.Env[Any, Any]):
    """Environments of an odd seed play games of 1 step, the others of 7; game k is worth k."""

    observation_space = gymnasium.spaces.Box(0.0, 100.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    game = -1
    length = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.length = 1 if seed % 2 else 7
        self.game += 1
        self.left = self.length
        return np.array([self.game], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        over = self.left == 0
        return np.array([self.game], dtype=np.float32), self.game * float(over), over, False, {}


class Broken(Uneven):
    """Returns NaN, in its third step: as an observation, or as a reward after action 1."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, information = super().step(action)
        if self.left == self.length - 3:
            if action == 1:
                reward = float("nan")
            else:
                observation[0] = np.nan
        return observation, reward, terminated, truncated, information


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    gymnasium.register("Uneven-v0", entry_point=Uneven)
    gymnasium.register("Broken-v0", entry_point=Broken)
    yield
    del gymnasium.registry["Uneven-v0"], gymnasium.registry["Broken-v0"]


def left(observation: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.zeros(len(observation), dtype=np.int64)


@given(count=st.integers(1, 5), episodes=st.integers(1, 12))
@settings(max_examples=30)
def test_each_environment_plays_its_quota_and_short_games_gain_nothing(
    count: int, episodes: int
) -> None:
    results = play(make("Uneven-v0", count, seed=0), left, episodes)
    assert results == [
        EpisodeResult(
            episode=number,
            environment=number % count,
            reward_sum=float(number // count),
            steps=1 if number % count % 2 else 7,
        )
        for number in range(episodes)
    ]


class Limited(Uneven):
    """Ends by itself after 3 steps, at its limit of 5, and never, in turn."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, _, _, information = super().step(action)
        taken = self.length - self.left
        over = taken == (3, 5, 1000)[self.game % 3]
        return observation, reward, over, taken >= 5, information


def test_a_game_is_cut_where_the_limit_ends_it_and_not_the_game_itself() -> None:
    limited = GymnasiumEnvironments("Limited", [Limited(), Limited()], seed=0)
    results = play(limited, left, 12)
    assert [(one.steps, one.cut) for one in results[::2]] == [
        (3, False), (5, False), (5, True),
        (3, False), (5, False), (5, True),
    ]  # fmt: skip
    assert [one.cut for one in results[1::2]] == [one.cut for one in results[::2]]


@pytest.mark.parametrize("how_many", [2, 7])
def test_cartpole_plays_alike_when_played_again(how_many: int) -> None:
    def results() -> list[EpisodeResult]:
        generator = np.random.default_rng(0)
        poles = make("CartPole-v1", 4, seed=3)
        return play(poles, lambda seen: generator.integers(2, size=len(seen)), how_many)

    first = results()
    assert first == results()
    assert [result.episode for result in first] == list(range(how_many))
    assert all(result.reward_sum == result.steps > 5 for result in first)


def test_on_first_marks_each_game_before_its_first_action() -> None:
    calls: list[tuple[str, list[float]]] = []

    def act(observation: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        calls.append(("act", observation[:, 0].tolist()))
        return left(observation)

    play(
        make("Uneven-v0", 2, seed=0),
        act,
        4,
        on_first=lambda mask: calls.append(("first", mask.tolist())),
    )
    assert calls[:6] == [
        ("first", [True, True]),
        ("act", [0.0, 0.0]),  # the game of environment 1 ends; the next step is its restart
        ("act", [0.0, 0.0]),
        ("first", [False, True]),
        ("act", [0.0, 1.0]),
        ("act", [0.0, 1.0]),
    ]


def test_a_game_of_breakout_is_all_of_its_lives() -> None:
    chosen = AtariPreprocessing(life_loss=True)
    pytest.importorskip("ale_py")
    generator = np.random.default_rng(0)
    breakout = make("ALE/Breakout-v5", 2, seed=1, atari=chosen)
    results = play(breakout, lambda seen: generator.integers(4, size=len(seen)), 3)
    assert [result.environment for result in results] == [0, 1, 0]
    # Five lives of random play; one alone is some 20 to 100 steps.
    assert all(result.steps > 100 for result in results)
    assert sum(result.reward_sum for result in results) > 0


@pytest.mark.parametrize(("action", "what"), [(0, "observation"), (1, "reward")])
def test_numbers_that_are_none_are_refused(action: int, what: str) -> None:
    with pytest.raises(EnvironmentFailed, match=f"Broken-v0: environment 0 of 2 failed: {what}"):
        play(make("Broken-v0", 2, seed=0), lambda seen: np.full(len(seen), action), 2)


@pytest.mark.parametrize("episodes", [0, -1, 1.5, True])
def test_a_number_of_games_that_is_none_is_refused(episodes: Any) -> None:
    with pytest.raises(UnusableEvaluation, match="episodes: got"):
        play(make("Uneven-v0", 1, seed=0), left, episodes)


def test_a_game_that_takes_longer_than_asked_ends_there_with_those_after_it() -> None:
    """Environments 0 and 2 play games of 7 steps, environment 1 games of 1."""
    found = play(make("Uneven-v0", 3, seed=0), left, 15, steps=6)
    # Environment 1 goes on after the others' games have ended by themselves: those do not count.
    assert [(one.episode, one.steps, one.cut) for one in found] == [
        (0, 6, True), (1, 1, False), (2, 6, True), (4, 1, False), (7, 1, False), (10, 1, False),
        (13, 1, False),
    ]  # fmt: skip
    assert len(play(make("Uneven-v0", 3, seed=0), left, 15, steps=7)) == 15


def test_what_is_played_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["noisynet.evaluation.play"], "TELL_SECONDS", 0.0)
    said: list[str] = []
    play(make("Uneven-v0", 1, seed=0), left, 1, tell=said.append)
    assert said[0] == "0 of 1 games after 1 steps of each environment …"
    assert len(said) == 7
