"""Frames measured before a run: every network of the run has them, and whatever goes on with it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisynet import samplers
from noisynet.agents import ActorCritic, Agent, QLearning, measure_frames
from noisynet.assemble import build_agent, make_environments, resume, start
from noisynet.assemble.agents import measure_frames_of
from noisynet.networks import FramesTorso
from noisynet.runs import Config, RunError, checkpoint, config
from noisynet.samplers.messages import Assignment, Order
from noisynet.samplers.sampler import ReplaySampler, weights_of
from noisynet.training.a3c.shared import Shared

pytest.importorskip("ale_py")

SHAPE, ACTIONS = (4, 36, 36), 6
SMALL = {
    "standardise_frames": True, "frame_height": 36, "frame_width": 36, "environments": 2,
    "head_hidden": 8, "device": "cpu", "precision": "float32", "threads": 1, "seed": 4,
}  # fmt: skip
REPLAYED = {
    "steps": 120, "warmup_steps": 40, "batch_size": 8, "update_every": 10, "target_every": 1000,
    "replay_capacity": 200,
}  # fmt: skip


def small(preset: str = "pong", **overrides: Any) -> Config:
    replayed = {} if "a3c" in preset else REPLAYED
    return config.load(preset, {**SMALL, **replayed, **overrides})


def new_agent(chosen: Config) -> Agent:
    """Build the agent of a new run, its game's frames measured."""
    agent = build_agent(chosen, SHAPE, ACTIONS)
    measure_frames_of(chosen, agent)
    return agent


@pytest.fixture(scope="module")
def frames_of_pong() -> np.ndarray:
    """Random play of another seed, as the game itself shows it."""
    environments = make_environments(small(), count=4, seed=99)
    choose = np.random.default_rng(0)
    environments.reset()
    frames = [environments.step(choose.integers(6, size=4)).observation[:, -1] for _ in range(500)]
    environments.close()
    return np.concatenate(frames).astype(np.float64) / 255


def test_a_run_measures_its_game_once_and_keeps_it(
    tmp_path: Path, frames_of_pong: np.ndarray
) -> None:
    told: list[str] = []
    for name, steps in (("whole", 120), ("halves", 60)):
        start(small(steps=steps), tmp_path / name, tell=told.append)
    resume(tmp_path / "halves", changes={"steps": 120})
    assert told == ["measuring the mean frame of random play"] * 2
    whole, other = (
        checkpoint.read_newest(tmp_path / name / "checkpoints") for name in ("whole", "halves")
    )
    assert whole is not None
    assert other is not None
    assert (whole.step, other.step) == (120, 120)
    for which in ("online", "target"):
        for name in ("frame_mean", "frame_deviation"):
            tag = f"{which}.torso.{name}"
            assert np.array_equal(whole.arrays[tag], other.arrays[tag]), tag
    mean = whole.arrays["online.torso.frame_mean"]
    assert np.array_equal(mean, whole.arrays["target.torso.frame_mean"])
    assert np.abs(mean - frames_of_pong.mean(0)).mean() < 0.01
    deviation = np.sqrt(frames_of_pong.var(0).mean())
    assert whole.arrays["online.torso.frame_deviation"] == pytest.approx(deviation, rel=0.1)


def test_samplers_act_by_what_the_learner_measured(tmp_path: Path) -> None:
    chosen = small(actors=1, backend="in-process", fragment_steps=5)
    samplers.start(chosen, tmp_path / "run")
    found = checkpoint.read_newest(tmp_path / "run" / "checkpoints")
    assert found is not None
    sampler = ReplaySampler(
        Assignment(
            config=chosen,
            observation_shape=SHAPE,
            actions=ACTIONS,
            stack=4,
            number=0,
            life=0,
            steps_before=0,
        )
    )
    learner = new_agent(chosen)
    assert isinstance(learner, QLearning)
    sampler.play(Order(step=0, version=0), weights_of(learner.online))
    sampler.close()
    for name in ("torso.frame_mean", "torso.frame_deviation"):
        kept = found.arrays[f"online.{name}"]
        assert np.array_equal(sampler.agent.online.state_dict()[name].numpy(), kept), name
        assert kept.max() < 1


def test_the_workers_of_a3c_are_told() -> None:
    chosen = small("a3c", environment="ALE/Pong-v5", lstm_size=0)
    agent, worker = new_agent(chosen), build_agent(chosen, SHAPE, ACTIONS)
    assert isinstance(agent, ActorCritic)
    assert isinstance(worker, ActorCritic)
    Shared.of(agent, workers=2, steps_before=0, steps=100).copy_to(worker.network)
    torso = worker.network.torso
    assert isinstance(torso, FramesTorso)
    assert torso.frame_deviation < 0.2
    assert torch.equal(torso.frame_mean, agent.network.torso.frame_mean)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_what_has_no_frames_is_refused_in_one_line(tmp_path: Path, precision: str) -> None:
    """Also where the precision is chosen by trial updates, of agents that cannot be built."""
    chosen = config.load("cartpole", {"standardise_frames": True, "precision": precision})
    with pytest.raises(RunError, match=r"^CartPole-v1: standardise_frames: got true, expected"):
        start(chosen, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_config_that_takes_frames_as_they_are_measures_nothing() -> None:
    chosen = small(standardise_frames=False)
    agent = build_agent(chosen, SHAPE, ACTIONS)
    before = {name: value.clone() for name, value in agent.network.state_dict().items()}
    measure_frames_of(chosen, agent)
    assert all(
        torch.equal(value, before[name]) for name, value in agent.network.state_dict().items()
    )
    assert not any("frame" in name for name in before)


def test_environments_of_one_s_own_can_be_measured(frames_of_pong: np.ndarray) -> None:
    agent = build_agent(small(), SHAPE, ACTIONS)
    assert isinstance(agent, QLearning)
    with closing(make_environments(small(), count=4, seed=1)) as environments:
        measure_frames(agent, environments, seed=2)
    for torso in (agent.online.torso, agent.target.torso):
        assert isinstance(torso, FramesTorso)
        assert np.abs(torso.frame_mean.numpy() - frames_of_pong.mean(0)).mean() < 0.01
