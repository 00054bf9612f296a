"""The synchronous actor-critic's loop: steps, ends, figures, and exact resumption."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisynet.agents import ActorCritic, ParallelQLearning, Rollout
from noisynet.assemble import Assembler, build_agent, make_environments, resume, start
from noisynet.runs import Config, RunError, RunFolder, checkpoint, config
from noisynet.training import (
    CheckpointDue,
    Diverged,
    Event,
    FiguresTaken,
    GameFinished,
    RolloutLearner,
    RolloutSource,
    TrainingEnded,
    TrainingLoop,
)
from noisynet.training.player import Player, play_rollout

from .same_run import Crash, CrashAt, assert_same_run

SMALL = {
    "steps": 1500, "environments": 4, "rollout_steps": 8, "checkpoint_every": 400, "log_every": 10,
    "seed": 3, "device": "cpu", "torso_hidden": [16], "head_hidden": 16,
}  # fmt: skip
PQN = {"minibatches": 5, "epochs": 2}


def small(preset: str = "cartpole-noisy-a2c", **overrides: Any) -> Config:
    return config.load(preset, {**SMALL, **overrides})


MakeLoop = Callable[[Config], TrainingLoop]


@pytest.fixture
def make_loop(tmp_path: Path) -> Iterator[MakeLoop]:
    """Build the loops of configs, which keep nothing on the disk, and end what they opened."""
    with ExitStack() as opened:

        def make(chosen: Config) -> TrainingLoop:
            assembler = opened.enter_context(Assembler(chosen))
            assembler.prepare()
            loop = assembler.loop(RunFolder(tmp_path / "nothing", chosen.to_yaml()))
            assert isinstance(loop, TrainingLoop)
            assert isinstance(loop.source, RolloutSource)
            assert isinstance(loop.learner, RolloutLearner)
            return loop

        yield make


def test_steps_are_decisions_and_games_are_told_at_their_own_step(make_loop: MakeLoop) -> None:
    loop = make_loop(small())
    events: list[Event] = list(loop.run())
    games = [event for event in events if isinstance(event, GameFinished)]
    assert [game.game for game in games] == list(range(1, len(games) + 1))
    assert [game.step for game in games] == sorted(game.step for game in games)
    in_flight = sum(loop.state()["episodes"]["steps"])
    assert sum(game.game_steps for game in games) + in_flight == loop.progress.step
    assert 1500 <= loop.progress.step < 1500 + 4 * 8
    ended = events[-1]
    assert isinstance(ended, TrainingEnded)
    assert ended.reason == "steps"
    due = [event.step for event in events if isinstance(event, CheckpointDue)]
    assert len(due) == 3
    figures = [event.figures for event in events if isinstance(event, FiguresTaken)]
    assert len(figures) == loop.agent.updates // 10
    assert {"loss", "policy_loss", "value_loss", "entropy", "updates"} <= set(figures[0])
    assert {"snr/hidden", "snr/policy", "snr/value", "sigma/policy"} <= set(figures[0])


def test_it_ends_when_solved_and_when_it_is_asked_to(make_loop: MakeLoop) -> None:
    loop = make_loop(small(solved_return=1.0, solved_games=6))
    ended = list(loop.run())[-1]
    assert isinstance(ended, TrainingEnded)
    assert ended.reason == "solved"
    loop = make_loop(small())
    for event in loop.run():
        if isinstance(event, GameFinished):
            loop.progress.stop()
        last = event
    assert isinstance(last, TrainingEnded)
    assert last.reason == "interrupted"


def test_a_rollout_holds_what_was_played_the_last_observations_of_games_included() -> None:
    chosen = small(environments=2, rollout_steps=300, reward_clip=0.5)
    agent = build_agent(chosen, (4,), 2)
    assert isinstance(agent, ActorCritic)
    with closing(make_environments(chosen)) as environments:
        player = Player(environments, reward_clip=0.5)
        played = play_rollout(player, agent, steps=300, discount=chosen.learning.discount)
    rollout: Rollout = played.rollout
    assert rollout.observation.shape == (301, 2, 4)
    assert set(rollout.reward_t.ravel().tolist()) == {0.0, 0.5}
    assert played.steps == rollout.taken_t.sum()
    assert all(game.reward_sum == game.steps for _, game in played.games)
    assert rollout.first[0].all()
    restarts = np.argwhere(~rollout.taken_t)
    assert len(restarts) >= len(played.games) - 2
    for t, environment in restarts:
        # CartPole terminates; what a game ends with is out of bounds, what it begins with is not.
        assert rollout.discount_t[t - 1, environment] == 0
        assert not rollout.goes_on_t[t - 1, environment]
        ended, begun = rollout.observation[t : t + 2, environment]
        assert abs(ended[0]) > 2.4 or abs(ended[2]) > 0.2
        assert abs(begun).max() <= 0.05
        assert rollout.first[t + 1, environment]


def test_each_update_learns_from_the_draw_that_acted(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    differences: list[float] = []
    acted: list[Any] = []
    policy, update = ActorCritic.policy, ActorCritic.update

    def watched_policy(agent: ActorCritic, observation: Any, first: Any) -> Any:
        acted.append(policy(agent, observation, first))
        return acted[-1]

    def watched_update(agent: ActorCritic, rollout: Rollout, step_size: float | None) -> Any:
        logits, _ = agent.evaluate(rollout)
        for one, other in zip(logits[:-1], acted, strict=True):
            log_ratio = one.log_softmax(-1) - other.log_softmax(-1)
            differences.append(float(log_ratio.detach().abs().max()))
        acted.clear()
        return update(agent, rollout, step_size)

    monkeypatch.setattr(ActorCritic, "policy", watched_policy)
    monkeypatch.setattr(ActorCritic, "update", watched_update)
    list(make_loop(small(lstm_size=8, steps=600)).run())
    assert len(differences) >= 100
    assert max(differences) < 1e-6


def test_with_overlap_each_vector_step_takes_an_equal_share_of_the_rollout_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Twenty updates over eight vector steps: two or three beside each, none for the first."""
    happened: list[str] = []
    update, act = ParallelQLearning.update, ParallelQLearning.act

    def watched_update(agent: ParallelQLearning, step_size: float | None = None) -> Any:
        happened.append("update")
        return update(agent, step_size)

    def watched_act(agent: ParallelQLearning, *arguments: Any) -> Any:
        happened.append("act")
        return act(agent, *arguments)

    monkeypatch.setattr(ParallelQLearning, "update", watched_update)
    monkeypatch.setattr(ParallelQLearning, "act", watched_act)
    start(small("pqn-cartpole", minibatches=5, overlap=True, steps=90), tmp_path / "run")
    shares = [len(one.split()) for one in " ".join(happened).split("act")[1:]]
    assert shares[:8] == [0] * 8
    assert shares[8:16] == shares[16:24] == [2, 3, 2, 3, 2, 3, 2, 3]


@pytest.mark.parametrize(
    ("preset", "parts"),
    [
        ("cartpole-noisy-a2c", {}),
        ("cartpole-noisy-a2c", {"lstm_size": 8, "noise_kind": "independent"}),
        ("cartpole-a2c", {"optimizer": "rmsprop"}),
        ("pqn-cartpole", PQN),
        ("pqn-cartpole", {**PQN, "redraw": "update"}),
        ("pqn-cartpole", {**PQN, "execution": "graph"}),
        (
            "pqn-cartpole",
            {**PQN, "overlap": True, "redraw": "update", "learning_draw": "acted"},
        ),
        ("pqn-cartpole-epsilon", {**PQN, "overlap": True, "optimizer": "adam"}),
    ],
)
def test_a_crashed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, preset: str, parts: dict[str, Any]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    chosen = small(preset, **parts)
    # A signal, such as that of `timeout`, would end either in good order, and short of lines.
    assert start(chosen, whole).reason == "steps"
    with pytest.raises(Crash):
        start(chosen, cut, [CrashAt(600)])
    with pytest.raises(Crash):
        resume(cut, [CrashAt(1200)])
    assert resume(cut).reason == "steps"
    assert_same_run(whole, cut)
    one = checkpoint.read_newest(whole / "checkpoints")
    assert one is not None
    assert "replay" not in one.state
    assert not (whole / "replay").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_state(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="nan_"):
        start(small(learning_rate=1e30, optimizer="rmsprop"), tmp_path / "run")


def test_precision_is_chosen_by_updates_on_rollouts(tmp_path: Path) -> None:
    start(small(precision="auto", device="auto", steps=100), tmp_path / "run")
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "precision: float32" in text or "precision: bfloat16" in text


def test_a_checkpoint_of_another_agent_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(small(steps=100), run)
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("lstm_size: 0", "lstm_size: 8"))
    with pytest.raises(RunError, match="lstm_size was 0, is 8"):
        resume(run)
