"""Runs with samplers in this process: what the flow promises, checkpoints, and bad input."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisynet import samplers
from noisynet.agents import ActorCritic
from noisynet.assemble import build_agent, make_environments, resume, start
from noisynet.envs import Environments
from noisynet.layers import hold, noisy_layers
from noisynet.runs import Config, RunError, RunFolder, checkpoint, config
from noisynet.samplers import SamplersAssembler, assembler
from noisynet.samplers.backend import InProcessSamplers
from noisynet.samplers.messages import Assignment, Order, RolloutFragment, restacked
from noisynet.samplers.replay_source import SampledReplaySource
from noisynet.samplers.rollout_source import SampledRolloutSource, joined, joined_draws
from noisynet.samplers.sampler import ReplaySampler, RolloutSampler, weights_of
from noisynet.samplers.sharded_replay import LocalHost, ShardLost
from noisynet.training import (
    Event,
    GameFinished,
    TrainingLoop,
    WorkerRestarted,
    session,
)

from ..training.same_run import metrics

SMALL = {
    "actors": 2, "backend": "in-process", "environments": 4, "steps": 1200, "warmup_steps": 200,
    "replay_capacity": 1000, "batch_size": 16, "update_every": 8, "target_every": 200,
    "fragment_steps": 8, "checkpoint_every": 500, "log_every": 10, "torso_hidden": [16],
    "head_hidden": 16, "seed": 3,
}  # fmt: skip
SMALL_ROLLOUTS = {
    "actors": 2, "backend": "in-process", "environments": 3, "steps": 900, "rollout_steps": 8,
    "checkpoint_every": 300, "log_every": 5, "torso_hidden": [16], "head_hidden": 16, "seed": 3,
}  # fmt: skip


def small(preset: str = "cartpole", **overrides: Any) -> Config:
    base = SMALL_ROLLOUTS if "a2c" in preset or "pqn" in preset else SMALL
    return config.load(preset, {**base, **overrides})


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("cartpole", {}),
        ("cartpole", {"replay_shards": 2, "prioritised": True}),
        ("cartpole-epsilon", {"epsilon_steps": 500, "max_staleness": 0}),
        ("cartpole-noisy-a2c", {}),
        ("pqn-cartpole", {"minibatches": 4}),
    ],
)
def test_a_seed_repeats_a_run_exactly(
    tmp_path: Path, preset: str, overrides: dict[str, Any]
) -> None:
    chosen = small(preset, **overrides)
    for name in ("one", "other"):
        samplers.start(chosen, tmp_path / name)
    one, other = (metrics(tmp_path / name) for name in ("one", "other"))
    assert one == other
    assert any("scale/staleness" in record for record in one)
    saved = [checkpoint.read_newest(tmp_path / name / "checkpoints") for name in ("one", "other")]
    assert saved[0] is not None
    assert saved[1] is not None
    assert all(
        np.array_equal(saved[0].arrays[name], saved[1].arrays[name]) for name in saved[0].arrays
    )


class Watched(session.Listener):
    """Look at the loop at every event."""

    def __init__(self) -> None:
        self.games: list[GameFinished] = []

    def started(self, folder: Path, config: Config, step: int, notes: list[str]) -> None:
        self.notes = notes

    def on_event(self, event: Event, elapsed: float) -> None:
        if isinstance(event, GameFinished):
            self.games.append(event)

    def closed(self) -> None:
        pass


class Keeping(SamplersAssembler):
    """Keep the loop."""

    kept: TrainingLoop

    def loop(self, folder: RunFolder) -> TrainingLoop:
        loop = super().loop(folder)
        assert isinstance(loop, TrainingLoop)
        self.kept = loop
        return loop


def run(chosen: Config, folder: Path) -> tuple[TrainingLoop, list[GameFinished]]:
    """Train to the end; return the loop, and the games."""
    keeping, watched = Keeping(chosen), Watched()
    session.finish(session.train(keeping, folder, [watched]))
    return keeping.kept, watched.games


@pytest.mark.parametrize("bound", [None, 0, 7])
def test_updates_follow_steps_and_no_fragment_is_older_than_the_bound(
    tmp_path: Path, bound: int | None
) -> None:
    chosen = small(max_staleness=bound, weights_every=5)
    loop, games = run(chosen, tmp_path / "run")
    assert isinstance(loop.source, SampledReplaySource)
    # By default four rounds of fragments, of 8 updates each, and what weights are sent late.
    limit = 4 * 8 + 5 if bound is None else bound
    assert loop.source.max_staleness == limit
    records = [record for record in metrics(tmp_path / "run") if "scale/staleness" in record]
    assert len(records) > 5
    assert max(record["scale/staleness_max"] for record in records) <= limit
    assert all(record["scale/lost_fragments"] == 0 for record in records)
    # Within what two fragments of each make due.
    due = (loop.progress.step - 200) // 8
    assert due - 2 * 2 * 8 * 4 // 8 <= loop.agent.updates <= due
    assert records[-1]["scale/updates_per_step"] == pytest.approx(1 / 8, rel=0.2)
    # Frames of 16 bytes, and 13 of action, reward and flags: nothing is stacked, nothing twice.
    assert all(28 <= record["scale/fragment_bytes_per_step"] < 33 for record in records)
    assert all(game.game_return == game.game_steps for game in games)
    assert {game.environment for game in games} == set(range(8))
    assert sum(game.game_steps for game in games) <= loop.progress.step


def test_updates_that_wait_for_a_whole_transition_do_not_hold_up_the_samplers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = InProcessSamplers.take

    def taken(backend: InProcessSamplers, timeout: float) -> Any:
        happened = take(backend, timeout)
        assert happened is not None, "no sampler was asked, so nothing will ever arrive"
        return happened

    monkeypatch.setattr(InProcessSamplers, "take", taken)
    # Rounds of two updates, of which some thirty are due before the first transition is whole.
    chosen = small(
        environments=1,
        fragment_steps=1,
        n_step=20,
        batch_size=8,
        warmup_steps=8,
        update_every=1,
        steps=200,
    )
    loop, _ = run(chosen, tmp_path / "run")
    assert loop.progress.step >= 200
    assert 0 <= loop.progress.step - 8 - loop.agent.updates <= 2 * 2


def test_the_run_is_an_ordinary_one(tmp_path: Path) -> None:
    from noisynet.evaluation.agent import evaluate_run

    chosen = small()
    samplers.start(chosen, tmp_path / "run")
    tags = {tag for record in metrics(tmp_path / "run") for tag in record}
    assert {"snr/q.0", "sigma/q.2", "loss", "noise/effective_epsilon"} <= tags
    assert {f"noise/effective_epsilon/env_{i}" for i in range(8)} <= tags
    assert len(evaluate_run(tmp_path / "run", episodes=3)["returns"]) == 3


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [("cartpole", {"replay_shards": 2}), ("cartpole-noisy-a2c", {"max_staleness": 1})],
)
def test_a_run_that_was_stopped_goes_on(
    tmp_path: Path, preset: str, overrides: dict[str, Any]
) -> None:
    chosen = small(preset, **overrides)
    folder = tmp_path / "run"
    for event in samplers.train(chosen, folder):
        if isinstance(event, GameFinished) and event.step > 600:
            break
    saved = checkpoint.read_newest(folder / "checkpoints")
    assert saved is not None
    assert 600 < saved.step < chosen.training.steps
    with pytest.raises(RunError, match="--actors: got 2"):
        resume(folder)
    listener = Watched()
    outcome = samplers.resume(folder, [listener])
    assert outcome.reason == "steps"
    assert listener.notes == ["sampler actors start new games"]
    steps = [record["step"] for record in metrics(folder)]
    assert all(sooner <= later for sooner, later in pairwise(steps))
    numbers = [r["game/number"] for r in metrics(folder) if "game/number" in r]
    assert numbers == list(range(1, len(numbers) + 1))


def test_another_backend_is_where_the_samplers_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(address: str | None, *, cpus: int) -> Any:
        raise RunError(f"connecting {cpus} CPUs")

    folder = samplers.start(small(steps=200), tmp_path / "run").folder
    monkeypatch.setattr(assembler, "connect", connect)
    with pytest.raises(RunError, match="connecting 2 CPUs"):
        samplers.resume(folder, changes={"backend": "ray", "steps": 400})


def test_the_address_is_checked_against_the_backend_that_a_resumed_run_changes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(address: str | None, *, cpus: int) -> Any:
        raise RunError(f"connecting to {address}, {cpus} CPUs")

    monkeypatch.setattr(assembler, "connect", connect)
    folder = samplers.start(small(steps=200), tmp_path / "run").folder
    with pytest.raises(RunError, match="connecting to here:1"):
        samplers.resume(folder, address="here:1", changes={"backend": "ray", "steps": 400})
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("backend: in-process", "backend: ray"))
    changes = {"backend": "in-process", "steps": 400}
    with pytest.raises(RunError, match="--ray: got 'here:1', expected none with --backend in-proc"):
        samplers.resume(folder, address="here:1", changes=changes)


def test_a_resumed_run_leaves_cores_to_its_samplers_if_threads_are_open_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = samplers.start(small(steps=200), tmp_path / "run").folder
    found = checkpoint.read_newest(folder / "checkpoints")
    monkeypatch.setattr(assembler, "local_cpus", lambda: 3)
    building = SamplersAssembler(small(steps=400, backend="ray", threads=0))
    threads = torch.get_num_threads()
    try:
        assert building.prepare(found).training.threads == 1
        building.environments.close()
    finally:
        torch.set_num_threads(threads)


def test_a_shard_that_dies_in_the_last_round_is_reported(tmp_path: Path) -> None:
    deaths: list[int] = []

    class Mortal(LocalHost):
        """A shard that dies at its first batch once no more is played."""

        def call(self, method: str, *arguments: Any) -> Any:
            progress = keeping.kept.progress if hasattr(keeping, "kept") else None
            if method == "sample" and progress is not None and progress.end and not deaths:
                deaths.append(progress.step)
                return self.die
            return super().call(method, *arguments)

        def die(self) -> Any:
            raise ShardLost("killed")

    class Assembling(Keeping):
        def __enter__(self) -> Assembling:
            super().__enter__()
            self._make_shard = partial(Mortal, fetch=self.samplers.open)
            return self

    keeping = Assembling(small(replay_shards=2))
    events = list(session.train(keeping, tmp_path / "run"))
    (restarted,) = [event for event in events if isinstance(event, WorkerRestarted)]
    assert deaths == [restarted.step]
    assert restarted.step >= SMALL["steps"]
    assert (restarted.worker, restarted.restarts) == (2, 1)
    assert restarted.reason == "replay shard 0: killed"
    assert [one["worker/restarts"] for one in metrics(tmp_path / "run") if "worker/restarts" in one]


def test_a_shard_that_dies_for_good_ends_the_run_in_one_line(tmp_path: Path) -> None:
    class Mortal(LocalHost):
        """A shard that cannot live once there is a checkpoint."""

        def call(self, method: str, *arguments: Any) -> Any:
            if checkpoint.newest_step(tmp_path / "run" / "checkpoints") is None:
                return super().call(method, *arguments)
            return self.die

        def die(self) -> Any:
            raise ShardLost("killed")

    class Assembling(SamplersAssembler):
        def __enter__(self) -> Assembling:
            super().__enter__()
            self._make_shard = partial(Mortal, fetch=self.samplers.open)
            return self

    said = r"^shard \d died 3 times without an answer: killed; nothing was saved since the last"
    with pytest.raises(RunError, match=said):
        list(session.train(Assembling(small(replay_shards=2)), tmp_path / "run"))
    assert samplers.resume(tmp_path / "run").step >= SMALL["steps"]


def make_assignment(chosen: Config, environments: Environments, number: int = 0) -> Assignment:
    return Assignment(
        config=chosen.replaced(device="cpu", precision="float32"),
        observation_shape=environments.observation_shape,
        actions=environments.action_count,
        stack=environments.stack,
        number=number,
        life=0,
        steps_before=0,
    )


def test_every_sampler_and_every_life_of_one_has_seeds_of_its_own() -> None:
    seeds = set()
    for number in range(2):
        for life in range(2):
            for before in (0, 100):
                own = Assignment(
                    config=small(), observation_shape=(4,), actions=2, stack=1, number=number,
                    life=life, steps_before=before,
                ).own_config()  # fmt: skip
                assert (own.training.threads, own.training.device) == (1, "cpu")
                seeds |= {own.training.seed, own.training.stream("acting")}
    assert len(seeds) == 16


def test_samplers_explore_apart_and_redraw_as_updates_come_due(tmp_path: Path) -> None:
    chosen = small(update_every=40, warmup_steps=100)
    environments = make_environments(chosen)
    two = [ReplaySampler(make_assignment(chosen, environments, n)) for n in range(2)]
    draws: list[list[torch.Tensor]] = []
    for sampler in two:
        seen: list[torch.Tensor] = []
        layer = next(iter(noisy_layers(sampler.agent.network).values()))
        greedy = sampler.agent.greedy

        def watched(
            observation: Any, layer: Any = layer, seen: Any = seen, greedy: Any = greedy
        ) -> Any:
            seen.append(layer.noise_state.held.clone())
            return greedy(observation)

        sampler.agent.greedy = watched  # type: ignore[method-assign]
        # 8 vector steps of 4 environments, and as many of the other sampler.
        sampler.play(Order(step=200, version=0), None)
        draws.append(seen)
    for seen in draws:
        assert len(seen) == 8
        assert all(len({tuple(row.tolist()) for row in draw}) == 4 for draw in seen)
        redrawn = sum(not torch.equal(one, other) for one, other in pairwise(seen))
        # Steps 200 to 256: updates 2 and 3 come due before the first and at step 240 or so.
        assert redrawn == 1
    assert not torch.equal(draws[0][0], draws[1][0])


@pytest.mark.parametrize("per_environment", [True, False])
def test_learning_is_under_the_very_noise_that_acted(per_environment: bool) -> None:
    chosen = small("cartpole-noisy-a2c", draw_per_environment=per_environment)
    environments = make_environments(chosen)
    two = [RolloutSampler(make_assignment(chosen, environments, n)) for n in range(2)]
    learner = build_agent(
        chosen.replaced(device="cpu", precision="float32"), environments.observation_shape, 2
    )
    assert isinstance(learner, ActorCritic)
    acted: list[torch.Tensor] = []
    fragments: list[RolloutFragment] = []
    for sampler in two:
        said: list[torch.Tensor] = []
        policy = sampler.agent.policy

        def heard(observation: Any, first: Any, policy: Any = policy, said: Any = said) -> Any:
            said.append(policy(observation, first))
            return said[-1]

        sampler.agent.policy = heard  # type: ignore[method-assign]
        report, fragment = sampler.play(Order(step=0, version=0), weights_of(learner.network))
        acted.append(torch.stack(said))
        # As it travels between processes.
        fragments.append(pickle.loads(pickle.dumps(fragment)))
        assert report.nbytes > 0
    drawn = [one.drawn for one in fragments if one.drawn is not None]
    hold(learner.network, drawn=joined_draws(drawn, 3))
    rollout = joined(fragments, stack=1)
    logits, _ = learner.evaluate(rollout)
    together = torch.cat(acted, dim=1)
    assert logits.shape[:2] == (9, 6)
    assert (logits[:-1] - together).abs().max() < 1e-5
    # Any other draw would be seen.
    hold(learner.network, drawn=joined_draws(drawn[::-1], 3))
    assert (learner.evaluate(rollout)[0][:-1] - together).abs().max() > 1e-3


def test_an_actor_critic_learns_from_every_sampler_under_the_newest_weights(
    tmp_path: Path,
) -> None:
    loop, games = run(small("cartpole-noisy-a2c"), tmp_path / "run")
    assert isinstance(loop.source, SampledRolloutSource)
    records = [record for record in metrics(tmp_path / "run") if "scale/staleness" in record]
    assert {record["scale/staleness_max"] for record in records} == {0.0}
    # 2 samplers, 3 environments, 8 steps, less the steps that restarted a game.
    assert 0.8 < loop.progress.step / (loop.agent.updates * 48) <= 1
    assert {game.environment for game in games} == set(range(6))
    loop, _ = run(small("cartpole-noisy-a2c", max_staleness=2), tmp_path / "ahead")
    records = [record for record in metrics(tmp_path / "ahead") if "scale/staleness" in record]
    assert max(record["scale/staleness_max"] for record in records) == 2.0


def test_pqn_learns_every_sampler_s_rollout_in_its_minibatches(tmp_path: Path) -> None:
    chosen = small("pqn-cartpole", minibatches=4, epochs=3)
    loop, games = run(chosen, tmp_path / "run")
    assert isinstance(loop.source, SampledRolloutSource)
    records = [record for record in metrics(tmp_path / "run") if "scale/staleness" in record]
    assert {record["scale/staleness_max"] for record in records} == {0.0}
    assert 0.8 < loop.progress.step / (loop.agent.updates / 12 * 48) <= 1
    assert {game.environment for game in games} == set(range(6))
    loop, _ = run(chosen.replaced(max_staleness=2), tmp_path / "ahead")
    records = [record for record in metrics(tmp_path / "ahead") if "scale/staleness" in record]
    assert max(record["scale/staleness_max"] for record in records) == 2.0
    assert loop.agent.updates % 12 == 0


def test_the_draw_that_acted_last_travels_where_each_step_has_its_own() -> None:
    chosen = small("pqn-cartpole", minibatches=4)
    sampler = RolloutSampler(make_assignment(chosen, make_environments(chosen)))
    layers = noisy_layers(sampler.agent.network).values()
    acted: list[list[torch.Tensor | None]] = []
    act = sampler.agent.act

    def watched(*arguments: Any) -> Any:
        action = act(*arguments)
        acted.append([layer.noise_state.held for layer in layers])
        return action

    sampler.agent.act = watched  # type: ignore[method-assign]
    _, fragment = sampler.play(Order(step=0, version=0), weights_of(sampler.agent.network))
    assert len(acted) == chosen.rollouts.rollout_steps
    for flat, last, before in zip(fragment.drawn.flats, acted[-1], acted[-2], strict=True):
        assert torch.equal(flat, last)
        assert not torch.equal(flat, before)


def test_stacks_are_put_together_as_the_environment_had_them() -> None:
    pytest.importorskip("ale_py", reason="Atari is an extra")
    chosen = config.load(
        "ALE/Breakout-v5",
        {"environments": 2, "max_frames": 60, "max_noops": 0, "threads": 1, "frame_height": 20,
         "frame_width": 20},
    )  # fmt: skip
    environments = make_environments(chosen)
    observation = [environments.reset()]
    first = [np.ones(2, bool)]
    generator = np.random.default_rng(0)
    for _ in range(40):
        step = environments.step(generator.integers(environments.action_count, size=2))
        observation.append(step.observation)
        first.append(step.first)
    environments.close()
    whole, began = np.stack(observation), np.stack(first)
    assert began[1:].sum() >= 4
    for start_ in (0, 3):
        again = restacked(whole[start_], whole[start_ + 1 :, :, -1], began[start_:], 4)
        assert np.array_equal(again, whole[start_:])


@pytest.mark.parametrize(
    ("preset", "overrides", "said"),
    [
        (
            "cartpole",
            {"actors": 0},
            ["--actors: got 0, expected a whole number from 1 to 4096, or none ("],
        ),
        ("cartpole", {"actors": "many"}, ["--actors", "'many'"]),
        ("cartpole-noisy-a3c", {"actors": 2}, ["a3c", "--workers", "pqn and a2c"]),
        ("cartpole-noisy-a2c", {"actors": 2, "lstm_size": 8}, ["actors", "lstm_size 8"]),
        ("cartpole", {"actors": 2, "replay_shards": 3}, ["replay_shards", "3", "actors (2)"]),
        ("cartpole", {"replay_shards": 1}, ["--replay-shards", "actors is empty"]),
        ("cartpole", {"max_staleness": 1}, ["--max-staleness", "actors is empty"]),
        (
            "cartpole-a2c",
            {"actors": 2, "fragment_steps": 4},
            ["--fragment-steps", "fragments are rollouts"],
        ),
        (
            "cartpole",
            {"actors": 2, "backend": "threads"},
            ["--backend: got 'threads', expected ray or in-process"],
        ),
    ],
)
def test_bad_configs_are_named(preset: str, overrides: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(RunError) as caught:
        config.load(preset, overrides)
    assert all(part in str(caught.value) for part in said), caught.value


def test_what_cannot_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RunError, match="--actors: got 2, expected none here"):
        start(small(), folder)
    with pytest.raises(RunError, match="--actors: got none"):
        samplers.start(config.load("cartpole"), folder)
    with pytest.raises(RunError, match="--ray: got 'here:1', expected none with --backend"):
        samplers.start(small(), folder, address="here:1")
    with pytest.raises(RunError, match="--replay-capacity, --n-step"):
        samplers.start(small(n_step=60, replay_capacity=400), folder)
    with pytest.raises(RunError, match="unknown environment"):
        samplers.start(small(environment="CartPoel-v1"), folder)
    assert not folder.exists()


def test_the_command_line_takes_it_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from noisynet.cli import main

    options = [
        text
        for name, value in SMALL.items()
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    folder = str(tmp_path / "run")
    assert main(["train", "cartpole", *options, "--out", folder]) == 0
    assert "Done: 1,2" in capsys.readouterr().out
    assert main(["resume", folder]) == 0
    capsys.readouterr()
    assert main(["resume", folder, "--ray", "here:1"]) == 2
    assert "--ray: got 'here:1', expected none with --backend" in capsys.readouterr().err
    assert main(["train", "cartpole", "--ray", "here:1"]) == 2
    assert "--ray: got 'here:1', expected none without --actors" in capsys.readouterr().err


def test_without_ray_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"pip install '.*\[ray\]'"):
        samplers.start(small(backend="ray"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_breaks_off_the_start_ends_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does while Ray's backend is being imported."""
    living: list[str] = []

    @contextmanager
    def connect(address: str | None, *, cpus: int) -> Iterator[None]:
        living.append(f"{address}, {cpus} CPUs")
        try:
            yield
        finally:
            living.pop()

    class Interrupted:
        def __getattr__(self, name: str) -> Any:
            assert living == ["here:1, 2 CPUs"]
            raise KeyboardInterrupt

    monkeypatch.setattr(assembler, "connect", connect)
    monkeypatch.setitem(sys.modules, "noisynet.samplers.ray_backend", Interrupted())
    with pytest.raises(KeyboardInterrupt), SamplersAssembler(small(backend="ray"), "here:1"):
        pass
    assert living == []


def test_samplers_in_this_process_play_in_the_order_they_were_asked(tmp_path: Path) -> None:
    chosen = small()
    environments = make_environments(chosen)
    backend = InProcessSamplers()
    assert backend.take(0.0) is None
    for number in range(3):
        backend.start(make_assignment(chosen.replaced(actors=3), environments, number))
    for number in (2, 0, 2):
        backend.ask(number, Order(step=0, version=0), None)
    arrived = [backend.take(0.0) for _ in range(3)]
    assert [(one.sampler, one.report.number) for one in arrived if one] == [(2, 0), (0, 0), (2, 1)]
    backend.close()
