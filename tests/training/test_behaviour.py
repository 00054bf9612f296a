"""What the noise does to the policy stands in every run's metrics, and changes nothing else."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from noisynet.agents import Agent
from noisynet.assemble import build_agent, start
from noisynet.runs import Config, read_metrics
from noisynet.runs.config import load
from noisynet.training import Outcome

from .small_runs import small_config

WHOLE = ("noise/effective_epsilon", "noise/action_entropy", "noise/q_spread", "noise/q_gap")


def noise_lines(folder: Path) -> list[dict[str, float]]:
    return [line for line in read_metrics(folder) if "noise/effective_epsilon" in line]


def agent_of(config: Config) -> Agent:
    chosen = config.replaced(device="cpu", precision="float32")
    return build_agent(chosen, (4,), 2)


def test_every_line_of_figures_has_them(finished: Outcome) -> None:
    lines = noise_lines(finished.folder)
    assert len(lines) == sum("loss" in line for line in read_metrics(finished.folder)) > 0
    for line in lines:
        assert set(WHOLE) <= set(line)
        each = [line[f"noise/effective_epsilon/env_{number}"] for number in range(8)]
        assert line["noise/effective_epsilon"] == pytest.approx(np.mean(each))
        assert line["noise/q_gap"] > 0
        assert 0 <= line["dormant/q.0"] <= 1
        assert line["norm/q.0"] > 0


@pytest.mark.parametrize("preset", ["cartpole-noisy-a2c", "cartpole-noisy-a3c"])
def test_an_actor_critic_s_lines_too(preset: str, tmp_path: Path) -> None:
    asynchronous = {"workers": 2, "lstm_size": 4, "threads": 2} if preset.endswith("a3c") else {}
    config = load(preset, {"steps": 800, "log_every": 5, "seed": 3, **asynchronous})
    lines = noise_lines(start(config, tmp_path / "run").folder)
    assert lines
    numbers = {
        int(tag.rpartition("_")[2]) for line in lines for tag in line if "epsilon/env_" in tag
    }
    assert len(numbers) >= config.environment.environments
    assert all(set(WHOLE) <= set(line) for line in lines)


def test_epsilon_greedy_has_none(tmp_path: Path) -> None:
    config = small_config("cartpole-epsilon", steps=600)
    lines = list(read_metrics(start(config, tmp_path / "run").folder))
    assert any("epsilon" in line for line in lines)
    assert not any(tag.startswith("noise/") for line in lines for tag in line)
    # Units die without noise, too.
    assert all("dormant/q.0" in line for line in lines if "loss" in line)


@pytest.mark.parametrize("preset", ["cartpole", "cartpole-noisy-a2c"])
@pytest.mark.parametrize("noise_in", ["last", "head", "all"])
def test_measuring_changes_nothing_of_the_agent(preset: str, noise_in: str) -> None:
    config = load(preset, {"noise_in": noise_in})
    agent = agent_of(config)
    count = config.environment.environments
    observation = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    first = np.zeros(count, bool)
    before, _ = copy.deepcopy(agent.state())
    state = torch.get_rng_state()

    def behaviour() -> dict[str, float]:
        return agent.behaviour(observation, first)

    figures = behaviour()
    assert 0 <= figures["noise/effective_epsilon"] <= 1
    assert behaviour() == figures
    after, _ = agent.state()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), state)
    # Without observations there is nothing to measure by.
    assert not any(tag.startswith("noise/") for tag in agent.figures())


@pytest.mark.parametrize("preset", ["cartpole", "cartpole-noisy-a2c"])
def test_a_figure_never_ends_a_training(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one action there is no second best, and so no gap: the others are kept."""
    (tmp_path / "one_action.py").write_text(ONE_ACTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    fields = {"environment": "one_action:make", "steps": 400, "log_every": 1, "threads": 1}
    off_policy = {"warmup_steps": 200, "batch_size": 16} if preset == "cartpole" else {}
    with pytest.warns(RuntimeWarning, match="no figures of the noise.* 2 actions"):
        outcome = start(load(preset, {**fields, **off_policy}), tmp_path / "run")
    assert outcome.reason == "steps"
    figures = [line for line in read_metrics(outcome.folder) if "updates" in line]
    assert any(tag.startswith("snr/") for line in figures for tag in line)
    assert not noise_lines(outcome.folder)


ONE_ACTION = """
import gymnasium
from gymnasium.spaces import Discrete
from gymnasium.wrappers import TransformAction

def make():
    return TransformAction(gymnasium.make("CartPole-v1"), lambda action: action, Discrete(1))
"""
