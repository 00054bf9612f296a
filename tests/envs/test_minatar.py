"""MinAtar, on its own code: trajectories, restarts, states, replay, refusals."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from noisynet.envs import (
    AtariPreprocessing,
    Environments,
    EpisodeCounter,
    MinAtarRules,
    UnusableEnvironment,
    make,
)
from noisynet.replay import FrameReplay

minatar = pytest.importorskip("minatar")

GAMES = {
    "Asterix": ("asterix", 4, 5),
    "Breakout": ("breakout", 4, 3),
    "Freeway": ("freeway", 7, 3),
    "Seaquest": ("seaquest", 10, 6),
    "SpaceInvaders": ("space_invaders", 6, 4),
}
"""Module, channels and number of actions that the game reads."""

FIELDS = ("observation", "reward", "terminated", "truncated", "first", "ended")


def walk(environments: Environments, steps: int, seed: int) -> list[tuple[bytes, ...]]:
    """Take random steps; return all that came back, as bytes."""
    generator = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        actions = generator.integers(environments.action_count, size=environments.count)
        step = environments.step(actions)
        seen.append(tuple(getattr(step, field).tobytes() for field in FIELDS))
    return seen


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_the_trajectory_is_that_of_minatars_own_loop(name: str, version: str) -> None:
    module, channels, minimal = GAMES[name]
    ours = make(f"MinAtar/{name}-{version}", 1, seed=3)
    assert ours.action_count == (minimal if version == "v1" else 6)
    assert (ours.observation_shape, ours.observation_dtype) == ((channels, 10, 10), np.uint8)
    assert (ours.stack, ours.frames_per_step, ours.can_save_state) == (1, 1, True)
    theirs = minatar.Environment(module)  # sticky actions 0.1 and ramping, by default
    theirs.seed(3)
    theirs.reset()
    actions = theirs.minimal_action_set() if version == "v1" else range(6)
    assert np.array_equal(ours.reset()[0], theirs.state().transpose(2, 0, 1))
    generator = np.random.default_rng(0)
    over, restarts = False, 0
    for _ in range(2600):
        action = int(generator.integers(ours.action_count))
        step = ours.step([action])
        assert step.first[0] == over
        if over:
            theirs.reset()
            reward, over = 0, False
            restarts += 1
        else:
            reward, over = theirs.act(actions[action])
        assert np.array_equal(step.observation[0], theirs.state().transpose(2, 0, 1))
        assert step.reward[0] == reward
        assert step.terminated[0] == step.ended[0] == over
        assert not step.truncated[0]
    assert restarts > 0


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("before", [0, 1, 150, 700])
def test_a_saved_state_continues_bit_for_bit(name: str, before: int) -> None:
    original, restored = (make(f"MinAtar/{name}-v1", 3, seed=seed) for seed in (5, 99))
    original.reset()
    walk(original, before, 0)
    saved = json.dumps(original.state(), allow_nan=False)
    now = restored.restore(json.loads(saved))
    assert now.dtype == np.uint8
    assert json.dumps(restored.state()) == saved
    assert walk(original, 300, 1) == walk(restored, 300, 1)
    assert np.array_equal(original.reset(), restored.reset())


def test_environment_i_is_seeded_with_seed_plus_i() -> None:
    three, one = make("MinAtar/Asterix-v1", 3, seed=7), make("MinAtar/Asterix-v1", 1, seed=9)
    three.reset()
    one.reset()
    differ = 0
    for _ in range(300):
        together, alone = three.step([0, 0, 0]), one.step([0])
        assert np.array_equal(together.observation[2], alone.observation[0])
        differ += not np.array_equal(together.observation[0], together.observation[1])
    assert differ > 100


def test_a_second_reset_draws_on_instead_of_starting_over() -> None:
    first, second = (make("MinAtar/Freeway-v1", 2, seed=7) for _ in range(2))
    starts = [first.reset() for _ in range(4)]
    assert all(np.array_equal(one, second.reset()) for one in starts)
    assert not np.array_equal(starts[0], starts[1])


def test_every_rule_is_read() -> None:
    def played(game: str, **rules: object) -> list[tuple[bytes, ...]]:
        chosen = MinAtarRules(**rules)  # pyright: ignore[reportArgumentType]
        environments = make(f"MinAtar/{game}-v1", 2, seed=1, minatar=chosen)
        environments.reset()
        return walk(environments, 600, 0)

    assert played("Breakout") == played("Breakout", sticky_actions=0.1, difficulty_ramping=True)
    assert played("Breakout") != played("Breakout", sticky_actions=0.0)
    assert played("Breakout") != played("Breakout", max_frames=4)
    # Asterix becomes faster after a hundred frames; whoever moves survives that long at times.
    assert played("Asterix") == played("Asterix", difficulty_ramping=True)
    assert played("Asterix") != played("Asterix", difficulty_ramping=False)


def test_the_time_limit_truncates_and_restarts() -> None:
    freeway = make("MinAtar/Freeway-v1", 2, seed=0, minatar=MinAtarRules(max_frames=5))
    counter = EpisodeCounter(2)
    freeway.reset()
    for number in range(24):
        step = freeway.step([0, 0])
        assert step.truncated.tolist() == [number % 6 == 4] * 2
        assert step.first.tolist() == [number % 6 == 5] * 2
        assert not step.terminated.any()
        assert [game.steps for game in counter.update(step)] == [5, 5] * (number % 6 == 4)


def test_freeway_ends_by_itself_after_its_2500_frames() -> None:
    freeway = make("MinAtar/Freeway-v1", 1, seed=0)
    freeway.reset()
    for number in range(2501):
        step = freeway.step([1])
        assert step.terminated[0] == (number == 2500)
        assert not step.truncated[0]


@pytest.mark.parametrize("in_files", [False, True])
def test_the_replay_gives_back_images_that_are_not_stacked(in_files: bool, tmp_path: Path) -> None:
    breakout = make("MinAtar/Breakout-v1", 2, seed=1)
    replay = FrameReplay(
        capacity=400,
        environments=2,
        frame_shape=breakout.frame_shape,
        frame_dtype=breakout.observation_dtype,
        stack=breakout.stack,
        slack=20,
        folder=tmp_path if in_files else None,
        seed=0,
    )
    observation, first = breakout.reset(), np.ones(2, bool)
    observations, generator = [observation], np.random.default_rng(0)
    for _ in range(100):
        actions = generator.integers(3, size=2)
        step = breakout.step(actions)
        replay.add(
            frame=breakout.newest_frame(observation),
            action=actions,
            reward=step.reward,
            terminated=step.terminated,
            truncated=step.truncated,
            first=first,
            ignored=step.first,
        )
        observation, first = step.observation, step.first
        observations.append(observation)
    if in_files:
        replay = FrameReplay.reopen(tmp_path, json.loads(json.dumps(replay.commit())))
    batch = replay.sample(64, 1, 0.9)
    assert batch.observation_tm1.dtype == np.uint8
    assert batch.observation_tm1.shape == (64, 4, 10, 10)
    for row, index in enumerate(batch.indices):
        step, environment = divmod(index, 2)
        assert np.array_equal(batch.observation_tm1[row], observations[step][environment])
        if batch.discount_t[row] > 0:
            assert np.array_equal(batch.observation_t[row], observations[step + 1][environment])


def test_a_state_of_another_minatar_is_refused() -> None:
    breakout = make("MinAtar/Breakout-v1", 1, seed=1)
    breakout.reset()
    state = breakout.state()
    del state["games"][0]["rules"]["strike"]
    with pytest.raises(UnusableEnvironment, match=r"Breakout-v1: state: got .*, expected .*strike"):
        breakout.restore(state)
    with pytest.raises(UnusableEnvironment, match="state: got one of 1 × MinAtar/Breakout-v1"):
        make("MinAtar/Breakout-v0", 1, seed=1).restore(breakout.state())


@pytest.mark.parametrize(("name", "nearest"), [
    ("MinAtar/Breakot-v1", "MinAtar/Breakout-v"), ("MinAtar/Pong-v1", ""),
    ("MinAtar/Space_Invaders-v1", "MinAtar/SpaceInvaders-v1"),
    ("minatar/breakout", ".*MinAtar/Breakout-v"), ("MinAtar/Breakout-v2", "MinAtar/Breakout-v"),
])  # fmt: skip
def test_an_unknown_game_names_the_nearest(name: str, nearest: str) -> None:
    message = f"unknown environment; {'nearest: ' + nearest if nearest else ''}"
    with pytest.raises(UnusableEnvironment, match=f"{name}: {message}"):
        make(name, 1, seed=0)


@pytest.mark.parametrize(
    "rules", [{"sticky_actions": 1.0}, {"sticky_actions": -0.1}, {"max_frames": 0}]
)
def test_rules_that_cannot_work_are_refused(rules: dict[str, float]) -> None:
    with pytest.raises(UnusableEnvironment, match=f"{next(iter(rules))}: got .*, expected"):
        MinAtarRules(**rules)  # pyright: ignore[reportArgumentType]


def test_options_of_other_kinds_are_refused() -> None:
    for name, options in (
        ("MinAtar/Breakout-v1", {"atari": AtariPreprocessing()}),
        ("ALE/Pong-v5", {"minatar": MinAtarRules()}),
        ("Chain-10", {"minatar": MinAtarRules()}),
        ("CartPole-v1", {"minatar": MinAtarRules()}),
    ):
        with pytest.raises(UnusableEnvironment, match=f"{name}: {next(iter(options))}: got"):
            make(name, 1, seed=0, **options)  # pyright: ignore[reportArgumentType]
    for seed in (-1, 2**32 - 1, 0.5):
        with pytest.raises(UnusableEnvironment, match="seed: got"):
            make("MinAtar/Breakout-v1", 2, seed=seed)  # pyright: ignore[reportArgumentType]


def test_without_minatar_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minatar", None)
    cure = r"MinAtar/Breakout-v1 needs MinAtar: pip install '.*\[minatar\]'"
    with pytest.raises(UnusableEnvironment, match=cure):
        make("MinAtar/Breakout-v1", 1, seed=0)
