"""Atari, on the real emulator: restarts, lives, time limits, rewards, seeds and refusals."""

import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from noisynet.envs import (
    AtariPreprocessing,
    Environments,
    EpisodeCounter,
    FinishedEpisode,
    Step,
    UnusableEnvironment,
    make,
)

pytest.importorskip("ale_py")


def roll(environments: Environments, steps: int, seed: int = 0) -> Iterator[Step]:
    """Reset, then yield the steps of uniformly random actions."""
    environments.reset()
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        yield environments.step(
            generator.integers(environments.action_count, size=environments.count)
        )


def empty_frames(observation: npt.NDArray[np.uint8]) -> list[bool]:
    return [not frame.any() for frame in observation]


def test_what_pong_promises_and_returns() -> None:
    pong = make("ALE/Pong-v5", 2, seed=1)
    assert (pong.id, pong.count, pong.stack, pong.frames_per_step) == ("ALE/Pong-v5", 2, 4, 4)
    assert (pong.observation_shape, pong.observation_dtype) == ((4, 84, 84), np.dtype(np.uint8))
    assert pong.action_count == 6
    assert not pong.can_save_state
    first = pong.reset()
    assert first.shape == (2, 4, 84, 84)
    assert first.dtype == np.uint8
    assert empty_frames(first[0]) == [True, True, True, False]
    step = pong.step(np.array([0, 2]))
    assert step.observation.shape == (2, 4, 84, 84)
    assert step.reward.dtype == np.float32
    for flags in (step.terminated, step.truncated, step.first, step.ended):
        assert flags.shape == (2,)
        assert flags.dtype == np.bool_
        assert not flags.any()
    assert np.array_equal(step.observation[0, 2], first[0, 3])
    assert pong.frame_shape == (84, 84)
    assert np.array_equal(pong.newest_frame(first), first[:, 3])
    with pytest.raises(UnusableEnvironment, match="cannot be saved"):
        pong.state()
    with pytest.raises(UnusableEnvironment, match="cannot be restored"):
        pong.restore({})
    pong.close()
    with pytest.raises(UnusableEnvironment, match="closed"):
        pong.reset()


def test_a_whole_game_of_pong_restarts_by_a_step_that_is_no_experience() -> None:
    counter = EpisodeCounter(2)
    ends: list[FinishedEpisode] = []
    ended_before = np.zeros(2, dtype=bool)
    rewards = np.zeros(2)
    for step in roll(make("ALE/Pong-v5", 2, seed=1, threads=2), 1000):
        finished = counter.update(step)
        assert np.array_equal(step.first, ended_before)
        ended_before = step.ended
        rewards += np.where(np.isin(range(2), [end.environment for end in ends]), 0, step.reward)
        for index in np.flatnonzero(step.first):
            assert step.reward[index] == 0
            assert not step.terminated[index]
            assert empty_frames(step.observation[index]) == [True, True, True, False]
        for index in np.flatnonzero(step.ended):
            assert step.terminated[index]  # Pong has no lives: a game over is known at once
            assert empty_frames(step.observation[index]) == [False] * 4
        assert [end.environment for end in finished] == np.flatnonzero(step.ended).tolist()
        ends += finished
    assert [end.environment for end in ends] in ([0, 1], [1, 0])
    for end in ends:
        assert end.reward_sum == rewards[end.environment]
        assert -21 <= end.reward_sum <= -15
        assert end.steps > 700


@pytest.mark.parametrize("life_loss", [True, False])
def test_a_life_lost_in_breakout_is_no_end_of_the_game(life_loss: bool) -> None:
    breakout = make("ALE/Breakout-v5", 2, seed=3, atari=AtariPreprocessing(life_loss=life_loss))
    counter = EpisodeCounter(2)
    terminations = np.zeros(2, dtype=int)
    games: list[FinishedEpisode] = []
    ended_before = np.zeros(2, dtype=bool)
    for step in roll(breakout, 900):
        assert np.array_equal(step.first, ended_before)
        ended_before = step.ended
        terminations += step.terminated
        assert not step.truncated.any()
        for game in counter.update(step):
            assert step.ended[game.environment]
            assert terminations[game.environment] == (5 if life_loss else 1)
            terminations[game.environment] = 0
            games.append(game)
    assert len(games) >= 4
    assert sum(game.reward_sum for game in games) > 0


def test_lives_change_nothing_but_terminated() -> None:
    with_lives, without = (
        make("ALE/Breakout-v5", 2, seed=3, atari=AtariPreprocessing(life_loss=life_loss))
        for life_loss in (True, False)
    )
    differ = 0
    for one, other in zip(roll(with_lives, 400), roll(without, 400), strict=True):
        assert np.array_equal(one.observation, other.observation)
        assert np.array_equal(one.reward, other.reward)
        assert np.array_equal(one.first, other.first)
        assert np.array_equal(one.ended, other.ended)
        differ += int((one.terminated != other.terminated).sum())
    assert differ > 0


def test_rewards_are_not_clipped() -> None:
    rewards = {float(r) for s in roll(make("ALE/MsPacman-v5", 2, seed=0), 100) for r in s.reward}
    assert max(rewards) >= 10


@pytest.mark.parametrize(("noops", "limit"), [(0, 100), (30, 100), (30, 4), (30, 6)])
def test_the_time_limit_truncates_and_restarts(noops: int, limit: int) -> None:
    """Of 4 frames, every second step is a restart, and no-ops outweigh the game's own frames."""
    chosen = AtariPreprocessing(max_noops=noops, max_frames=limit)
    pong = make("ALE/Pong-v5", 3, seed=5, atari=chosen)
    length = -(-limit // 4)
    counter = EpisodeCounter(3)
    for number, step in enumerate(roll(pong, 120)):
        place = number % (length + 1)
        assert step.first.tolist() == [place == length] * 3
        assert step.truncated.tolist() == [place == length - 1] * 3
        assert np.array_equal(step.ended, step.truncated)
        assert not step.terminated.any()
        assert [end.steps for end in counter.update(step)] == [length] * 3 * (place == length - 1)


def test_a_life_lost_at_the_time_limit_still_ends_the_game() -> None:
    """ale-py then reports `terminated` alone, as it does for any life."""

    def at_limit(max_frames: int) -> tuple[Step, Step]:
        chosen = AtariPreprocessing(max_noops=0, max_frames=max_frames)
        steps = list(roll(make("ALE/Breakout-v5", 1, seed=3, atari=chosen), lost + 2))
        return steps[lost], steps[lost + 1]

    free = roll(make("ALE/Breakout-v5", 1, seed=3, atari=AtariPreprocessing(max_noops=0)), 200)
    lost = next(number for number, step in enumerate(free) if step.terminated[0])
    last, after = at_limit(4 * (lost + 1))
    assert (last.terminated[0], last.truncated[0], last.ended[0]) == (True, False, True)
    assert after.first[0]
    last, after = at_limit(4 * (lost + 2))
    assert (last.terminated[0], last.ended[0]) == (True, False)
    assert not after.first[0]
    assert after.truncated[0]


def trajectory(game: str, count: int, seed: int, threads: int) -> tuple[npt.NDArray[np.uint8], ...]:
    chosen = AtariPreprocessing(sticky_actions=0.25, max_frames=160)
    steps = list(roll(make(game, count, seed=seed, threads=threads, atari=chosen), 60))
    return np.stack([s.observation for s in steps]), np.stack([s.first for s in steps])


def test_the_seed_decides_the_trajectory_and_the_threads_do_not() -> None:
    seen, first = trajectory("ALE/Breakout-v5", 3, 7, 1)
    assert first.any()
    for threads in (2, 5):
        again, first_again = trajectory("ALE/Breakout-v5", 3, 7, threads)
        assert np.array_equal(seen, again)
        assert np.array_equal(first, first_again)
    other, _ = trajectory("ALE/Breakout-v5", 3, 8, 1)
    assert not np.array_equal(seen, other)


def test_environment_i_is_seeded_with_seed_plus_i() -> None:
    def played(count: int, seed: int) -> npt.NDArray[np.uint8]:
        breakout = make("ALE/Breakout-v5", count, seed=seed)
        breakout.reset()
        return np.stack([breakout.step(np.ones(count, int)).observation for _ in range(20)])

    three = played(3, 7)
    assert np.array_equal(three[:, 2], played(1, 9)[:, 0])
    assert not np.array_equal(three[:, 0], three[:, 1])


def test_a_second_reset_draws_on_instead_of_starting_over() -> None:
    first, second = (make("ALE/Pong-v5", 2, seed=7) for _ in range(2))
    starts = [first.reset() for _ in range(6)]
    assert all(np.array_equal(one, second.reset()) for one in starts)
    assert any(not np.array_equal(starts[0], other) for other in starts[1:])


def test_observations_are_the_callers_to_keep() -> None:
    steps, copies = [], []
    for step in roll(make("ALE/Pong-v5", 2, seed=1), 50):
        steps.append(step.observation)
        copies.append(step.observation.copy())
    assert all(np.array_equal(kept, copy) for kept, copy in zip(steps, copies, strict=True))


def test_every_field_of_the_preprocessing_is_read() -> None:
    def shown(**fields: object) -> tuple[npt.NDArray[np.uint8], int]:
        chosen = AtariPreprocessing(**fields)  # pyright: ignore[reportArgumentType]
        breakout = make("ALE/Breakout-v5", 2, seed=3, atari=chosen)
        return np.stack([s.observation for s in roll(breakout, 24)]), breakout.action_count

    plain, actions = shown()
    assert plain.shape == (24, 2, 4, 84, 84)
    assert actions == 4
    assert shown(stack=2)[0].shape == (24, 2, 2, 84, 84)
    assert np.array_equal(shown(stack=2)[0], plain[:, :, 2:])
    assert shown(height=40, width=50)[0].shape == (24, 2, 4, 40, 50)
    assert shown(grayscale=False)[0].shape == (24, 2, 4, 84, 84, 3)
    assert shown(full_action_space=True)[1] == 18
    for changed in ("sticky_actions", 0.25), ("max_noops", 0), ("fire_on_reset", True):
        assert not np.array_equal(shown(**dict([changed]))[0], plain)
    for changed in ("frame_skip", 2), ("max_pool", False), ("max_frames", 50):
        assert not np.array_equal(shown(**dict([changed]))[0], plain)


def test_no_op_starts_reach_the_maximum_that_is_named() -> None:
    """ale-py's own noop_max is never reached: it draws from 0 to noop_max - 1."""
    pong = make("ALE/Pong-v5", 4, seed=1, atari=AtariPreprocessing(max_noops=1))
    starts = {start.tobytes() for _ in range(4) for start in pong.reset()}
    assert len(starts) == 2


@pytest.mark.parametrize(
    "fields",
    [{"sticky_actions": 1.0}, {"sticky_actions": -0.1}, {"frame_skip": 0}, {"stack": 0},
     {"max_noops": -1}, {"max_frames": 0}, {"height": 0}, {"width": 1.5}],
)  # fmt: skip
def test_preprocessing_that_cannot_work_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UnusableEnvironment, match=f"{next(iter(fields))}: got .*, expected"):
        AtariPreprocessing(**fields)  # pyright: ignore[reportArgumentType]


def test_actions_that_do_not_fit_are_refused() -> None:
    """An action out of range would make ale-py 0.12.1 wait for ever."""
    pong = make("ALE/Pong-v5", 2, seed=1)
    with pytest.raises(UnusableEnvironment, match="before the first reset"):
        pong.step(np.zeros(2, int))
    pong.reset()
    for actions in (np.array([0, 6]), np.array([-1, 0]), np.zeros(3, int), np.zeros(2)):
        with pytest.raises(UnusableEnvironment, match=r"actions: got .*, expected"):
            pong.step(actions)
    assert pong.step([0, 5]).reward.shape == (2,)


@pytest.mark.parametrize(("name", "nearest"), [
    ("ALE/Pongg-v5", "ALE/Pong-v5"), ("ALE/ms_pacman-v5", "ALE/MsPacman-v5"),
    ("ALE/Breakout-v4", "ALE/Breakout-v5"),
])  # fmt: skip
def test_an_unknown_game_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(
        UnusableEnvironment, match=f"{name}: unknown environment; nearest: {nearest}"
    ):
        make(name, 1, seed=0)


def test_seeds_that_ale_would_misread_are_refused() -> None:
    for seed in (-1, 2**31 - 1, 0.5):
        with pytest.raises(UnusableEnvironment, match="seed: got"):
            make("ALE/Pong-v5", 2, seed=seed)  # pyright: ignore[reportArgumentType]


def test_without_ale_py_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py.vector_env", None)
    with pytest.raises(UnusableEnvironment, match=r"needs ale-py: pip install '.*\[atari\]'"):
        make("ALE/Pong-v5", 1, seed=0)
