"""The loop: what counts as a step, when it learns, when it ends, what it tells."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from noisynet.agents import QLearning
from noisynet.assemble import make_environments
from noisynet.replay import FrameReplay
from noisynet.runs import Config, RunError, checkpoint, read_metrics
from noisynet.assemble import start
from noisynet.training import (
    CheckpointDue,
    Diverged,
    Event,
    FiguresTaken,
    GameFinished,
    Outcome,
    TrainingEnded,
    TrainingLoop,
)
from noisynet.assemble.resolve import resolve
from noisynet.training.loop import replay_slack


def make_loop(config: Config) -> TrainingLoop:
    environments = make_environments(config)
    config = resolve(
        config,
        environments.observation_shape,
        np.dtype(environments.observation_dtype),
        environments.action_count,
    )
    agent = QLearning(config, environments.observation_shape, environments.action_count)
    replay = FrameReplay(
        capacity=config.learning.replay_capacity,
        environments=environments.count,
        frame_shape=environments.observation_shape,
        frame_dtype=environments.observation_dtype,
        stack=1,
        slack=0,
        seed=config.training.seed,
    )
    return TrainingLoop(config, environments, agent, replay)


def test_steps_are_decisions_and_pseudo_steps_are_none(
    small_config: Callable[..., Config],
) -> None:
    loop = make_loop(small_config(steps=1500))
    games = [event for event in loop.run() if isinstance(event, GameFinished)]
    in_flight = sum(loop.state()["episodes"]["steps"])
    assert sum(game.game_steps for game in games) + in_flight == loop.step
    # CartPole pays 1 a step: returns are true, and equal the steps.
    assert all(game.game_return == game.game_steps for game in games)
    assert [game.game for game in games] == list(range(1, len(games) + 1))


def test_it_learns_as_often_as_configured_and_copies_the_target_in_time(
    small_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(steps=1500, update_every=7, target_every=210)
    loop = make_loop(config)
    copies: list[int] = []
    copy = loop.agent.copy_to_target
    monkeypatch.setattr(
        loop.agent, "copy_to_target", lambda: (copies.append(loop.agent.updates), copy())
    )
    figures = [event for event in loop.run() if isinstance(event, FiguresTaken)]
    assert loop.agent.updates == (loop.step - config.learning.warmup_steps) // 7
    assert copies == list(range(30, loop.agent.updates + 1, 30))
    assert len(figures) == loop.agent.updates // config.training.log_every
    assert {"loss", "updates", "snr/q.0", "snr/q.2", "sigma/q.0"} <= set(figures[0].figures)
    assert all(np.isfinite(value) for event in figures for value in event.figures.values())


def test_updates_thin_out_once_ten_games_were_good_enough(
    small_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(
        steps=1500, warmup_steps=100, update_every=7, final_update_every=50,
        final_update_return=5.0, target_every=200,
    )  # fmt: skip
    loop = make_loop(config)
    copies: list[int] = []
    copy = loop.agent.copy_to_target
    monkeypatch.setattr(
        loop.agent, "copy_to_target", lambda: (copies.append(loop.agent.updates), copy())
    )
    tenth = [event for event in loop.run() if isinstance(event, GameFinished)][9]
    begin = loop.agent.schedule.thinned_from
    assert begin == tenth.step
    # The steps after the warm-up at which updates came due, counted out.
    due = [*range(7, begin - 100 + 1, 7), *range(begin - 50, loop.step - 100 + 1, 50)]
    assert 10 < len(due) == loop.agent.updates
    assert due[-1] > 1000
    rounds = [step // 200 for step in [0, *due]]
    assert copies == [
        number for number in range(1, len(rounds)) if rounds[number] > rounds[number - 1]
    ]


def test_noise_moves_and_epsilon_is_told_only_where_there_is_one(
    small_config: Callable[..., Config],
) -> None:
    def last(config: Config) -> dict[str, float]:
        events = list(make_loop(config).run())
        return [event for event in events if isinstance(event, FiguresTaken)][-1].figures

    noise, rival = last(small_config()), last(small_config("cartpole-epsilon"))
    assert noise["snr/q.0"] != pytest.approx(1 / np.sqrt(3) / 0.5, rel=1e-3)
    assert "epsilon" not in noise
    assert 0.02 <= rival["epsilon"] < 1
    assert not any(tag.startswith("snr/") for tag in rival)


def test_it_stops_when_solved_and_not_before_enough_games(
    small_config: Callable[..., Config],
) -> None:
    loop = make_loop(small_config(solved_return=1.0, solved_games=12))
    events: list[Event] = list(loop.run())
    ended = events[-1]
    assert isinstance(ended, TrainingEnded)
    assert ended.reason == "solved"
    assert 12 <= loop.games <= 12 + loop.environments.count


def test_checkpoints_come_due_by_steps(small_config: Callable[..., Config]) -> None:
    loop = make_loop(small_config(steps=1000, checkpoint_every=200))
    due = [event.step for event in loop.run() if isinstance(event, CheckpointDue)]
    assert len(due) in (4, 5)
    assert all(200 <= later - sooner < 210 for sooner, later in pairwise(due))


def test_rewards_are_clipped_for_learning_and_not_in_the_log(
    small_config: Callable[..., Config],
) -> None:
    loop = make_loop(small_config(reward_clip=0.25, steps=600, n_step=1))
    games = [event for event in loop.run() if isinstance(event, GameFinished)]
    batch = loop.replay.sample(64, 1, 0.99)
    assert set(batch.return_t.tolist()) == {0.25}
    assert all(game.game_return == game.game_steps for game in games)


def test_the_run_folder_holds_what_design_promises(finished: Outcome) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "replay"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    records = list(read_metrics(finished.folder))
    assert all("step" in record for record in records)
    assert records[-1]["step"] <= finished.step
    saved = checkpoint.read_newest(finished.folder / "checkpoints")
    assert saved is not None
    assert saved.step == finished.step


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_both_states(
    small_config: Callable[..., Config], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Diverged) as caught:
        start(small_config(learning_rate=1e30, warmup_steps=500, checkpoint_every=200), run)
    message = str(caught.value)
    assert "\n" not in message
    kept = [path for path in (run / "checkpoints").iterdir() if path.name.startswith("nan_")]
    assert len(kept) == 1
    assert str(kept[0]) in message
    assert checkpoint.read(kept[0]).arrays
    good = checkpoint.read_newest(run / "checkpoints")
    assert good is not None
    assert 200 <= good.step < 600
    assert all(np.isfinite(value).all() for name, value in good.arrays.items() if "online" in name)


def test_an_existing_run_is_never_overwritten(
    finished: Outcome, small_config: Callable[..., Config]
) -> None:
    before = (finished.folder / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="not empty"):
        start(small_config(), finished.folder)
    assert (finished.folder / "metrics.jsonl").read_bytes() == before


def test_a_replay_too_small_for_its_windows_leaves_no_run_behind(
    small_config: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="--replay-capacity, --n-step"):
        start(small_config(replay_capacity=64, n_step=20), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rare_checkpoints_reserve_no_more_than_the_replay_itself(
    small_config: Callable[..., Config],
) -> None:
    often, rarely = (
        small_config("pong", replay_capacity=100_000, checkpoint_every=every)
        for every in (10_000, 2_000_000_000)
    )
    assert replay_slack(often) == 1250 + 312 + 16
    assert replay_slack(rarely) == 12_500 + 16


def test_a_gpu_that_is_not_there_is_named(
    small_config: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"--device: got 'cuda:7', but torch finds \d GPUs"):
        start(small_config(device="cuda:7"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class BrokenPipe:
    """Listen to the first event, then have nobody to tell."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        pass

    def heard(self, event: Event, elapsed: float) -> None:
        raise self.error

    def closed(self) -> None:
        pass


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(1), OSError(28, "disk full")])
def test_a_listener_that_cannot_speak_ends_the_run_in_good_order(
    small_config: Callable[..., Config], tmp_path: Path, error: BaseException
) -> None:
    outcome = start(small_config(), tmp_path / "run", [BrokenPipe(error)])
    assert outcome.reason == "interrupted"
    saved = checkpoint.read_newest(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert saved.step == outcome.step > 0


def test_an_environment_that_no_network_takes_is_named(
    small_config: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="expected Discrete"):
        start(small_config("MountainCarContinuous-v0"), tmp_path / "run")
    with pytest.raises(RunError, match="nature torso: got observations of shape"):
        start(small_config(torso="nature"), tmp_path / "run")
    # No half-made run is left behind.
    assert not (tmp_path / "run").exists()
