"""Does each small preset learn its task, and does σ move in those that have noise?"""

from pathlib import Path
from typing import Any

import pytest

from noisynet import noisy_layers
from noisynet.assemble import build_agent, start
from noisynet.evaluation.agent import evaluate_run
from noisynet.runs import checkpoint, config

# A uniformly random player of CartPole gets about 22, and one that always does the same about 10.
CARTPOLE = 100.0
# The best return is 11; staying at the near reward pays 0.02.
CHAIN = 10.0
# The treasure's 1 less what the way to it costs; every other way pays 0 or less.
DEEP_SEA = 0.98

PRESETS: dict[str, tuple[dict[str, Any], float]] = {
    "cartpole": ({"steps": 8_000}, CARTPOLE),
    "cartpole-epsilon": ({"steps": 8_000, "epsilon_steps": 2_000}, CARTPOLE),
    "cartpole-dqn": ({"steps": 8_000, "epsilon_steps": 2_000}, CARTPOLE),
    "cartpole-noisy-dqn": ({"steps": 8_000}, CARTPOLE),
    "cartpole-double": ({"steps": 8_000, "epsilon_steps": 2_000}, CARTPOLE),
    "cartpole-dueling": ({"steps": 8_000, "epsilon_steps": 2_000}, CARTPOLE),
    "cartpole-noisy-dueling": ({"steps": 8_000}, CARTPOLE),
    "cartpole-c51": ({"steps": 8_000, "epsilon_steps": 2_000}, CARTPOLE),
    "cartpole-rainbow": ({"steps": 8_000}, CARTPOLE),
    "cartpole-iqn": ({"steps": 8_000}, CARTPOLE),
    "cartpole-munchausen": ({"steps": 8_000}, CARTPOLE),
    "cartpole-btr": ({"steps": 8_000}, CARTPOLE),
    "pqn-cartpole": ({"steps": 50_000, "learning_rate": 0.002}, CARTPOLE),
    "cartpole-a2c": ({"steps": 40_000}, CARTPOLE),
    "cartpole-noisy-a2c": ({"steps": 40_000}, CARTPOLE),
    # Its workers are asynchronous: on a busy machine they learn from older parameters.
    "cartpole-noisy-a3c": ({"steps": 90_000}, CARTPOLE),
    "chain": ({"steps": 8_000, "environment": "Chain-8"}, CHAIN),
    "chain-epsilon": ({"steps": 8_000, "environment": "Chain-8", "epsilon_steps": 2_000}, CHAIN),
    "deep-sea": ({"steps": 6_000, "environment": "DeepSea-5"}, DEEP_SEA),
    "deep-sea-epsilon": (
        {"steps": 6_000, "environment": "DeepSea-5", "epsilon_steps": 2_000},
        DEEP_SEA,
    ),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_it_learns(preset: str, tmp_path: Path) -> None:
    overrides, learned = PRESETS[preset]
    run = tmp_path / "run"
    chosen = config.load(preset, {**overrides, "seed": 0, "device": "cpu"})
    start(chosen, run)
    played = evaluate_run(run, episodes=10)
    assert played["mean"] >= learned
    if not chosen.exploration.has_noise:
        return
    assert not chosen.exploration.has_epsilon
    assert chosen.actor_critic.entropy_bonus == 0
    saved = checkpoint.read_newest(run / "checkpoints")
    assert saved is not None
    shape = {"CartPole-v1": (4,), "Chain-8": (8,), "DeepSea-5": (25,)}[
        chosen.environment.environment
    ]
    agent = build_agent(chosen, shape, 2)
    layers = noisy_layers(agent.network)
    before = {name: layer.weight_sigma.detach().clone() for name, layer in layers.items()}
    agent.load_acting(saved.arrays)
    for name, layer in layers.items():
        moved = (layer.weight_sigma.detach() - before[name]).abs().mean() / before[name].mean()
        assert moved > 0.02, f"{name}: σ moved by {float(moved):.1%} of its initial value"
