"""Does the actor-critic learn? CartPole by noise alone, without an entropy bonus."""

from pathlib import Path

from noisynet.agents import ActorCritic
from noisynet.assemble import build_agent, start
from noisynet.evaluation.agent import evaluate_run
from noisynet.layers import noisy_layers
from noisynet.runs import checkpoint, config

# A uniformly random player gets about 22, and one that always does the same about 10.
LEARNED = 100.0


def test_noise_alone_learns_cartpole_and_its_sigmas_move(tmp_path: Path) -> None:
    run = tmp_path / "run"
    chosen = config.load("cartpole-noisy-a2c", {"steps": 40_000, "seed": 0, "device": "cpu"})
    assert chosen.actor_critic.entropy_bonus == 0
    start(chosen, run)
    assert evaluate_run(run, episodes=20)["mean"] >= LEARNED
    saved = checkpoint.read_newest(run / "checkpoints")
    assert saved is not None
    agent = build_agent(chosen, (4,), 2)
    assert isinstance(agent, ActorCritic)
    before = {
        name: layer.weight_sigma.detach().clone()
        for name, layer in noisy_layers(agent.network).items()
    }
    agent.load_acting(saved.arrays)
    for name, layer in noisy_layers(agent.network).items():
        moved = (layer.weight_sigma.detach() - before[name]).abs().mean() / before[name].mean()
        assert moved > 0.02, f"{name}: σ moved by {float(moved):.1%} of its initial value"
