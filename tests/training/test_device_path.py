"""The path that a GPU takes, walked on the CPU: static buffers, frames on the device, overlap."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisynet.agents import QLearning, StaticUpdates, StepSize
from noisynet.agents.q_learning import AnyBatch
from noisynet.assemble import Assembler, build_agent, make_environments, resume, start
from noisynet.assemble import resolve as resolving
from noisynet.assemble.assembler import update_schedule
from noisynet.assemble.resolve import resolve, set_threads
from noisynet.envs import Environments, Step
from noisynet.replay import FrameReplay
from noisynet.replay.device import DeviceReplay
from noisynet.runs import Config, RunError, checkpoint, config
from noisynet.training import (
    Diverged,
    Outcome,
    Progress,
    ReplayLearner,
    ReplaySource,
    TrainingLoop,
)

from .same_run import Crash, CrashAt, assert_same_run
from .small_runs import small_config

DEVICE_PATH = {"execution": "graph", "replay_device": "device"}


@pytest.mark.parametrize("chosen", [{"execution": "graph"}, DEVICE_PATH], ids=str)
def test_the_run_is_the_plain_one(
    finished: Outcome, tmp_path: Path, chosen: dict[str, str]
) -> None:
    start(small_config(**chosen), tmp_path / "run")
    assert_same_run(tmp_path / "run", finished.folder)


def test_with_priorities_too(tmp_path: Path) -> None:
    start(small_config("cartpole-rainbow", steps=900), tmp_path / "plain")
    start(small_config("cartpole-rainbow", steps=900, **DEVICE_PATH), tmp_path / "device")
    assert_same_run(tmp_path / "plain", tmp_path / "device")


def test_a_crashed_run_goes_on_on_the_same_path(finished: Outcome, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Crash):
        start(small_config(**DEVICE_PATH), run, [CrashAt(1200)])
    resume(run)
    assert_same_run(run, finished.folder)


def assert_on_the_device(loop: object) -> None:
    assert isinstance(loop, TrainingLoop)
    assert isinstance(loop.learner, ReplayLearner)
    assert loop.learner._from_graph
    assert isinstance(loop.learner.replay, DeviceReplay)
    assert isinstance(loop.source, ReplaySource)
    assert loop.source.replay is loop.learner.replay


def test_the_parts_are_those_that_the_config_names(tmp_path: Path) -> None:
    from noisynet.runs import RunFolder

    run = tmp_path / "run"
    chosen = small_config(**DEVICE_PATH, device="cpu", precision="float32", threads=1)
    with RunFolder.create(run, chosen.to_yaml()) as folder, Assembler(chosen) as assembler:
        assembler.prepare()
        assert_on_the_device(assembler.loop(folder))
    start(small_config(**DEVICE_PATH, steps=600), tmp_path / "other")
    found = checkpoint.read_newest(tmp_path / "other" / "checkpoints")
    assert found is not None
    with Assembler(chosen) as assembler:
        assembler.prepare(found)
        loop = assembler.loop(RunFolder.open(tmp_path / "other"))
        assert_on_the_device(loop)
        assert loop.progress.step == found.step


def test_an_agent_may_be_restored_after_its_learner_was_built(tmp_path: Path) -> None:
    chosen = small_config(steps=600, device="cpu", precision="float32", threads=1)
    start(chosen, tmp_path / "run")
    found = checkpoint.read_newest(tmp_path / "run" / "checkpoints")
    assert found is not None
    with closing(make_environments(chosen)) as environments:
        shape, actions = environments.observation_shape, environments.action_count
    saved: list[dict[str, np.ndarray]] = []
    for from_graph in (False, True):
        agent = build_agent(chosen, shape, actions)
        assert isinstance(agent, QLearning)
        replay = FrameReplay.reopen(tmp_path / "run" / "replay", found.state["replay"])
        schedule = update_schedule(chosen)
        learner = ReplayLearner(
            agent,
            replay,
            schedule,
            step_size=StepSize(1e-3, 0.0, 2000),
            from_graph=from_graph,
        )
        agent.restore(found.arrays, found.state["agent"])
        before = agent.updates
        progress = Progress(steps=2000)
        progress.step = 1000
        list(learner.learn(progress, None, lambda: True))
        assert agent.updates > before + 50
        assert isinstance(learner._graph, StaticUpdates) == from_graph
        learner.state()
        saved.append(agent.state()[0])
    plain, static = saved
    assert plain.keys() == static.keys()
    for name, array in plain.items():
        assert np.array_equal(array, static[name]), name


def test_without_a_word_updates_are_plain_and_frames_stay_on_the_host(tmp_path: Path) -> None:
    from noisynet.runs import RunFolder

    with Assembler(small_config(device="cpu", precision="float32")) as assembler:
        chosen = assembler.prepare()
        with RunFolder.create(tmp_path / "run", chosen.to_yaml()) as folder:
            loop = assembler.loop(folder)
    assert isinstance(loop, TrainingLoop)
    assert isinstance(loop.learner, ReplayLearner)
    assert not loop.learner._from_graph
    assert not isinstance(loop.learner.replay, DeviceReplay)


@pytest.mark.parametrize("overrides", [{}, {"prioritised": True}], ids=str)
def test_a_loss_that_is_no_number_is_found_before_anything_is_saved(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    wild = {
        **overrides,
        "learning_rate": 1e30,
        "warmup_steps": 500,
        "checkpoint_every": 200,
        "log_every": 10**6,
    }
    with pytest.raises(Diverged) as caught:
        start(small_config(**wild, **DEVICE_PATH), run)
    assert "\n" not in str(caught.value)
    good = checkpoint.read_newest(run / "checkpoints")
    assert good is not None
    assert 200 <= good.step < 700
    assert all(np.isfinite(value).all() for name, value in good.arrays.items() if "online" in name)


def test_parameters_and_a_loss_that_are_no_numbers_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is still on the device when the parameters are found to be infinite."""
    plain = ReplayLearner._update

    def then_break(self: ReplayLearner, batch: AnyBatch) -> None:
        plain(self, batch)
        with torch.no_grad():
            next(self.agent.network.parameters()).fill_(torch.inf)

    monkeypatch.setattr(ReplayLearner, "_update", then_break)
    with pytest.raises(Diverged, match=r"became nan at update 2, at step .*, the state is kept in"):
        start(small_config(checkpoint_every=200, log_every=10**6, **DEVICE_PATH), tmp_path / "run")


# What is chosen


def resolved(chosen: Config) -> Config:
    with closing(make_environments(chosen)) as environments:
        return resolve(set_threads(chosen), environments)


def test_on_the_cpu_the_plain_path_is_chosen_and_written_down() -> None:
    chosen = resolved(small_config(precision="float32", device="cpu"))
    assert chosen.training.execution == "plain"
    assert chosen.learning.replay_device == "host"
    asked = resolved(small_config(precision="float32", device="cpu", **DEVICE_PATH))
    assert asked.training.execution == "graph"
    assert asked.learning.replay_device == "device"


def resolved_on_a_gpu(
    chosen: Config,
    monkeypatch: pytest.MonkeyPatch,
    update: Callable[[], None],
    tell: Callable[[str], object] = lambda _: None,
) -> Config:
    """Resolve a config as where there is a GPU, on which the made-up update is this one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(resolving, "trial_update", lambda *_: update)
    with closing(make_environments(chosen)) as environments:
        return resolve(set_threads(chosen), environments, tell)


def fails_to_capture() -> None:
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


@pytest.mark.parametrize("preset", ["cartpole", "pqn-cartpole"])
def test_a_gpu_gets_a_graph_where_it_can_be_captured(
    monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    small = config.load(preset, {"precision": "float32", "device": "auto"})
    chosen = resolved_on_a_gpu(small, monkeypatch, lambda: None)
    assert chosen.training.device == "cuda"
    assert (chosen.learning.replay_device, chosen.training.execution) == ("host", "graph")
    told: list[str] = []
    chosen = resolved_on_a_gpu(small, monkeypatch, fails_to_capture, told.append)
    assert chosen.training.execution == "plain"
    (line,) = told
    assert line.startswith("updates run plainly: no CUDA graph can be captured here")
    assert line.endswith("(operation not permitted when stream is capturing)")
    chosen = resolved_on_a_gpu(small.replaced(execution="plain"), monkeypatch, lambda: None)
    assert chosen.training.execution == "plain"


def test_an_actor_critic_on_a_gpu_has_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    small = config.load("cartpole-a2c", {"precision": "float32", "device": "cuda"})
    assert resolved_on_a_gpu(small, monkeypatch, lambda: None).training.execution == "plain"


def test_a_graph_that_cannot_be_captured_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = small_config(device="cuda", precision="float32", execution="graph")
    with pytest.raises(RunError, match=r"--execution: got graph, .*capturing$"):
        resolved_on_a_gpu(asked, monkeypatch, fails_to_capture)


def test_a_run_from_before_the_choice_existed_goes_on_as_it_was(
    finished: Outcome, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Crash):
        start(small_config(), run, [CrashAt(700)])
    file = run / "config.yaml"
    lines = file.read_text().splitlines(keepends=True)
    new = ("  execution:", "  overlap:", "  replay_device:")
    file.write_text("".join(line for line in lines if not line.startswith(new)))
    resume(run)
    assert_same_run(run, finished.folder)


@pytest.mark.parametrize(
    "asked", [{"replay_device": "device"}, {"execution": "graph"}, {"overlap": True}], ids=str
)
def test_what_an_actor_critic_does_not_have_is_refused(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    option = "--" + next(iter(asked)).replace("_", "-")
    with pytest.raises(RunError, match=f"{option}: .*rollouts"):
        start(config.load("cartpole-noisy-a2c", asked), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Overlap


def dawdle(monkeypatch: pytest.MonkeyPatch, config: Config, seed: int) -> None:
    """Let the environments take now a moment, now longer, by another chance each time."""
    from noisynet.envs import generic

    generator = np.random.Generator(np.random.PCG64(seed))
    kind = next(
        one
        for one in vars(generic).values()
        if isinstance(one, type) and issubclass(one, Environments) and one is not Environments
    )
    step = kind.step

    def slow(self: Environments, actions: Any) -> Step:
        time.sleep(0.004 * generator.random() * (generator.random() < 0.3))
        return step(self, actions)

    monkeypatch.setattr(kind, "step", slow)


@pytest.mark.parametrize("path", [{}, DEVICE_PATH], ids=str)
def test_overlapping_runs_repeat_however_long_a_step_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: dict[str, str]
) -> None:
    chosen = small_config(steps=1000, overlap=True, **path)
    runs = [tmp_path / name for name in ("one", "other")]
    for seed, run in enumerate(runs):
        with monkeypatch.context() as patch:
            dawdle(patch, chosen, seed)
            start(chosen, run)
    assert_same_run(*runs)


def test_an_overlapping_run_that_crashed_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    chosen = small_config(steps=1500, overlap=True)
    start(chosen, tmp_path / "whole")
    with pytest.raises(Crash):
        start(chosen, tmp_path / "cut", [CrashAt(1000)])
    resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_updates_learn_from_what_they_would_have_without_a_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Update by update: the steps that were stored when it was sampled for.
    seen: dict[bool, list[int]] = {False: [], True: []}
    from noisynet.replay import FrameReplay

    sample = FrameReplay.sample
    for overlap, heads in seen.items():

        def note(
            self: FrameReplay, *arguments: Any, heads: list[int] = heads, **options: Any
        ) -> Any:
            heads.append(self.head)
            return sample(self, *arguments, **options)

        monkeypatch.setattr(FrameReplay, "sample", note)
        chosen = small_config(
            "cartpole-epsilon", steps=400, overlap=overlap, epsilon_start=1.0, epsilon_end=1.0
        )
        start(chosen, tmp_path / str(overlap))
    # Actions are random throughout, so both play the same games.
    assert seen[True] == seen[False][: len(seen[True])]
    lag = len(seen[False]) - len(seen[True])
    # Those that the last vector step made due are not done any more.
    assert 0 < lag <= chosen.environment.environments // chosen.learning.update_every + 1


def test_actions_come_from_the_weights_before_the_updates_of_a_vector_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Agent steps at which an action was chosen, and the updates that had been done by then.
    seen: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    act = QLearning.act
    for overlap, choices in seen.items():

        def note(
            self: QLearning,
            observation: np.ndarray,
            step: int,
            first: np.ndarray,
            choices: list[tuple[int, int]] = choices,
        ) -> np.ndarray:
            choices.append((step, self.updates))
            return act(self, observation, step, first)

        monkeypatch.setattr(QLearning, "act", note)
        chosen = small_config(
            "cartpole-epsilon", steps=400, overlap=overlap, epsilon_start=1.0, epsilon_end=1.0
        )
        start(chosen, tmp_path / str(overlap))
    steps = [[step for step, _ in choices] for choices in seen.values()]
    assert steps[0] == steps[1]
    updates = {overlap: [done for _, done in choices] for overlap, choices in seen.items()}
    assert updates[True][1:] == updates[False][:-1]
    assert updates[False][-1] > 0


def test_an_environment_that_fails_on_its_thread_ends_the_run_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noisynet.envs import EnvironmentFailed, generic

    kind = next(
        one
        for one in vars(generic).values()
        if isinstance(one, type) and issubclass(one, Environments) and one is not Environments
    )
    step, calls = kind.step, iter(range(10**6))

    def fails(self: Environments, actions: Any) -> Step:
        if next(calls) == 90:
            raise EnvironmentFailed("CartPole-v1, environment 2: it broke")
        return step(self, actions)

    monkeypatch.setattr(kind, "step", fails)
    with pytest.raises(RunError, match="it broke; the run was saved at step"):
        start(small_config(overlap=True), tmp_path / "run")
