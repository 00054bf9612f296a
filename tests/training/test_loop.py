"""The loop: what counts as a step, when it learns, when it ends, what it tells."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisynet.agents import LossNotFinite, QLearning, adam
from noisynet.assemble import Assembler, start, train
from noisynet.assemble.replay import slack_of
from noisynet.envs import make
from noisynet.networks import NoiseSettings, build_q_network
from noisynet.replay import FrameReplay
from noisynet.runs import Config, RunError, RunFolder, checkpoint, read_metrics
from noisynet.training import (
    CheckpointDue,
    Diverged,
    Event,
    FiguresTaken,
    GameFinished,
    Outcome,
    Progress,
    ReplayLearner,
    ReplaySource,
    TrainingEnded,
    TrainingLoop,
    UpdateSchedule,
)

from .small_runs import small_config

MakeLoop = Callable[[Config], TrainingLoop]


@pytest.fixture
def make_loop(tmp_path: Path) -> Iterator[MakeLoop]:
    """Build the loops of configs, each in a folder of its own, and end what they opened."""
    with ExitStack() as opened:

        def make(config: Config) -> TrainingLoop:
            assembler = opened.enter_context(Assembler(config))
            folder = RunFolder.create(tmp_path / f"loop{len(folders)}", config.to_yaml())
            folders.append(opened.enter_context(folder))
            assembler.prepare()
            loop = assembler.loop(folder)
            assert isinstance(loop, TrainingLoop)
            return loop

        folders: list[RunFolder] = []
        yield make


def learner_of(loop: TrainingLoop) -> ReplayLearner:
    assert isinstance(loop.learner, ReplayLearner)
    return loop.learner


def test_steps_are_decisions_and_pseudo_steps_are_none(make_loop: MakeLoop) -> None:
    loop = make_loop(small_config(steps=1500))
    games = [event for event in loop.run() if isinstance(event, GameFinished)]
    in_flight = sum(loop.state()["episodes"]["steps"])
    assert sum(game.game_steps for game in games) + in_flight == loop.progress.step
    # CartPole pays 1 a step: returns are true, and equal the steps.
    assert all(game.game_return == game.game_steps for game in games)
    assert [game.game for game in games] == list(range(1, len(games) + 1))


def target_copies(loop: TrainingLoop, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of updates at each copy to the target net."""
    agent = learner_of(loop).agent
    copies: list[int] = []
    copy = agent.copy_to_target
    monkeypatch.setattr(agent, "copy_to_target", lambda: (copies.append(agent.updates), copy()))
    return copies


def test_it_learns_as_often_as_configured_and_copies_the_target_in_time(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(steps=1500, update_every=7, target_every=210)
    loop = make_loop(config)
    copies = target_copies(loop, monkeypatch)
    figures = [event for event in loop.run() if isinstance(event, FiguresTaken)]
    assert loop.agent.updates == (loop.progress.step - config.learning.warmup_steps) // 7
    assert copies == list(range(30, loop.agent.updates + 1, 30))
    assert len(figures) == loop.agent.updates // config.training.log_every
    assert {"loss", "updates", "snr/q.0", "snr/q.2", "sigma/q.0"} <= set(figures[0].figures)
    assert all(np.isfinite(value) for event in figures for value in event.figures.values())


def test_noise_moves_and_epsilon_is_told_only_where_there_is_one(make_loop: MakeLoop) -> None:
    def last(config: Config) -> dict[str, float]:
        events = list(make_loop(config).run())
        return [event for event in events if isinstance(event, FiguresTaken)][-1].figures

    noise, rival = last(small_config()), last(small_config("cartpole-epsilon"))
    assert noise["snr/q.0"] != pytest.approx(1 / np.sqrt(3) / 0.5, rel=1e-3)
    assert "epsilon" not in noise
    assert 0.02 <= rival["epsilon"] < 1
    assert not any(tag.startswith("snr/") for tag in rival)


def test_it_stops_when_solved_and_not_before_enough_games(make_loop: MakeLoop) -> None:
    config = small_config(solved_return=1.0, solved_games=12)
    loop = make_loop(config)
    events: list[Event] = list(loop.run())
    ended = events[-1]
    assert isinstance(ended, TrainingEnded)
    assert ended.reason == "solved"
    assert 12 <= loop.progress.games <= 12 + config.environment.environments


def test_checkpoints_come_due_by_steps(make_loop: MakeLoop) -> None:
    loop = make_loop(small_config(steps=1000, checkpoint_every=200))
    due = [event.step for event in loop.run() if isinstance(event, CheckpointDue)]
    assert len(due) in (4, 5)
    assert all(200 <= later - sooner < 210 for sooner, later in pairwise(due))


def test_rewards_are_clipped_for_learning_and_not_in_the_log(make_loop: MakeLoop) -> None:
    loop = make_loop(small_config(reward_clip=0.25, steps=600, n_step=1))
    games = [event for event in loop.run() if isinstance(event, GameFinished)]
    batch = learner_of(loop).replay.sample(64, 1, 0.99)
    assert batch is not None
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


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_both_states(tmp_path: Path) -> None:
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


def test_an_existing_run_is_never_overwritten(finished: Outcome) -> None:
    before = (finished.folder / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="not empty"):
        start(small_config(), finished.folder)
    assert (finished.folder / "metrics.jsonl").read_bytes() == before


def test_a_replay_too_small_for_its_windows_leaves_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--replay-capacity, --n-step"):
        start(small_config(replay_capacity=64, n_step=20), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rare_checkpoints_reserve_no_more_than_the_replay_itself() -> None:
    often, rarely = (
        small_config("pong", replay_capacity=100_000, checkpoint_every=every)
        for every in (10_000, 2_000_000_000)
    )
    assert slack_of(often) == 1250 + 312 + 16
    assert slack_of(rarely) == 12_500 + 16


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--device: got 'cuda:7', but torch finds \d GPUs"):
        start(small_config(device="cuda:7"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class BrokenPipe:
    """Listen to the first event, then have nobody to tell."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        pass

    def on_event(self, event: Event, elapsed: float) -> None:
        raise self.error

    def closed(self) -> None:
        pass


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(1), OSError(28, "disk full")])
def test_a_listener_that_cannot_speak_ends_the_run_in_good_order(
    tmp_path: Path, error: BaseException
) -> None:
    outcome = start(small_config(), tmp_path / "run", [BrokenPipe(error)])
    assert outcome.reason == "interrupted"
    saved = checkpoint.read_newest(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert saved.step == outcome.step > 0


def test_an_environment_that_no_network_takes_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected Discrete"):
        start(small_config("MountainCarContinuous-v0"), tmp_path / "run")
    with pytest.raises(RunError, match="nature torso: got observations of shape"):
        start(small_config(torso="nature"), tmp_path / "run")
    # No half-made run is left behind.
    assert not (tmp_path / "run").exists()


def test_a_loop_can_be_built_by_hand() -> None:
    """From the parts alone, without a config or a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_q_network((4,), 2, torso_hidden=[16], noise=NoiseSettings())
    agent = QLearning(
        network, adam(network.parameters()), actions=2, environments=4, warmup_steps=64
    )
    with closing(make("CartPole-v1", 4, seed=0)) as environments:
        replay = FrameReplay(
            capacity=400, environments=4, frame_shape=(4,), frame_dtype=np.float32, stack=1,
            slack=16, seed=0,
        )  # fmt: skip
        schedule = UpdateSchedule(warmup_steps=64, update_every=8)
        learner = ReplayLearner(agent, replay, schedule, n_step=3, log_every=10)
        source = ReplaySource(environments, agent, replay)
        loop = TrainingLoop(Progress(steps=400, checkpoint_every=10**6), source, learner)
        events = list(loop.run())
    assert loop.progress.step >= 400
    assert agent.updates == (loop.progress.step - 64) // 8
    assert sum(isinstance(event, FiguresTaken) for event in events) == agent.updates // 10
    assert loop.progress.games == sum(isinstance(event, GameFinished) for event in events) > 0
    assert events[-1] == TrainingEnded(step=loop.progress.step, reason="steps")


def test_a_loop_that_is_left_says_why_it_cannot_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step in progress is finished, and its updates may fail as those before."""

    def fails(*_: object) -> None:
        raise LossNotFinite("the loss became nan at update 7")

    events = train(small_config(update_every=1), tmp_path / "run")
    for event in events:
        if isinstance(event, GameFinished) and event.step > 300:
            break
    monkeypatch.setattr(QLearning, "update", fails)
    with pytest.raises(Diverged, match="the loss became nan at update 7, at step"):
        events.close()
    assert list((tmp_path / "run" / "checkpoints").glob("nan_*"))


class Remover(BrokenPipe):
    """A user who removes the run's folder at its first event, or a part of it."""

    def __init__(self, part: str) -> None:
        self.part = part

    def on_event(self, event: Any, elapsed: float) -> None:
        shutil.rmtree(self.folder / self.part, ignore_errors=True)

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        self.folder = folder


@pytest.mark.parametrize(
    ("part", "gone"), [("", "config.yaml, metrics.jsonl, replay"), ("replay", "replay")]
)
def test_a_folder_that_is_removed_while_it_trains_is_not_said_to_be_saved(
    tmp_path: Path, part: str, gone: str
) -> None:
    with pytest.raises(RunError, match=f"run: {gone} was removed while the run trained"):
        start(small_config(), tmp_path / "run", [Remover(part)])
    assert checkpoint.newest_step(tmp_path / "run" / "checkpoints") in (None, 0)
