"""Does it learn? CartPole by noise alone, and the faults that would let it seem to."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from noisynet.agents import QLearning
from noisynet.assemble import build_agent, start
from noisynet.evaluation.agent import evaluate_run
from noisynet.layers import noisy_layers
from noisynet.runs import checkpoint, config

BUDGET = {"steps": 20_000, "seed": 0}
# A uniformly random player gets about 22, and an agent that learns nothing about 10.
LEARNED = 100.0


def trained(folder: Path, **overrides: Any) -> dict[str, Any]:
    start(config.load("cartpole", {**BUDGET, **overrides}), folder)
    return evaluate_run(folder, episodes=20)


def test_noise_alone_learns_cartpole_and_its_sigmas_move(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert trained(run)["mean"] >= LEARNED
    chosen = config.load("cartpole", {**BUDGET, "device": "cpu"})
    assert not chosen.exploration.has_epsilon
    saved = checkpoint.read_newest(run / "checkpoints")
    assert saved is not None
    agent = build_agent(chosen, (4,), 2)
    assert isinstance(agent, QLearning)
    before = {
        name: layer.weight_sigma.detach().clone()
        for name, layer in noisy_layers(agent.online).items()
    }
    agent.load_acting(saved.arrays)
    for name, layer in noisy_layers(agent.online).items():
        moved = (layer.weight_sigma.detach() - before[name]).abs().mean() / before[name].mean()
        assert moved > 0.05, f"{name}: σ moved by {float(moved):.1%} of its initial value"


def test_the_acting_noise_changes_over_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    greedy = QLearning.greedy

    def watched(agent: QLearning, observation: Any) -> Any:
        layer = next(iter(noisy_layers(agent.online).values()))
        held = layer.noise_state.held
        assert held is not None
        seen.append(held.clone())
        return greedy(agent, observation)

    monkeypatch.setattr(QLearning, "greedy", watched)
    start(config.load("cartpole", {**BUDGET, "steps": 2000}), tmp_path / "run")
    assert len(seen) > 50
    assert all(not torch.equal(one, other) for one, other in pairwise(seen))
    # And no two environments act under the same noise.
    assert all(len({tuple(row.tolist()) for row in draw}) == len(draw) for draw in seen[:20])
