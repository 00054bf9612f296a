"""What a config assembles is what anyone can build by hand from the same parts and seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from noisynet import envs
from noisynet.agents import QLearning, StepSize, adam
from noisynet.assemble import start
from noisynet.networks import NoiseSettings, build_q_network
from noisynet.replay import FrameReplay, PrioritySettings
from noisynet.runs import checkpoint, config
from noisynet.training import (
    GameFinished,
    Progress,
    ReplayLearner,
    ReplaySource,
    TrainingLoop,
    UpdateSchedule,
)


def test_a_run_is_its_parts_built_by_hand(tmp_path: Path) -> None:
    """Bit for bit: parameters, the optimizer's statistics, generators, games."""
    fields = {"steps": 1600, "device": "cpu", "prioritised": True, "dueling": True, "seed": 3}
    chosen = config.load("cartpole", fields)
    start(chosen, tmp_path / "run")
    saved = checkpoint.read_newest(tmp_path / "run" / "checkpoints")
    assert saved is not None

    environments = envs.make("CartPole-v1", 8, seed=3)
    shape, actions = environments.observation_shape, environments.action_count
    torch.manual_seed(chosen.training.stream("network"))
    noise = NoiseSettings(sigma0=0.2)
    network = build_q_network(
        shape, actions, torso_hidden=[128], head_hidden=128, dueling=True, noise=noise
    )
    optimizer = adam(network.parameters(), learning_rate=1e-3)
    agent = QLearning(
        network, optimizer, actions=actions, environments=8, warmup_steps=1000, seed=3
    )
    learning = chosen.learning
    replay = FrameReplay(
        capacity=50_000,
        environments=8,
        frame_shape=shape,
        frame_dtype="float32",
        seed=chosen.training.stream("replay"),
        priority=PrioritySettings(
            exponent=learning.priority_exponent, epsilon=learning.priority_epsilon
        ),
    )
    learner = ReplayLearner(
        agent,
        replay,
        UpdateSchedule(warmup_steps=1000, update_every=4),
        batch_size=128,
        n_step=10,
        discount=0.99,
        target_every=500,
        step_size=StepSize(1e-3, 1e-4, 600),
        beta=learning.priority_beta,
    )
    progress = Progress(steps=1600)
    loop = TrainingLoop(progress, ReplaySource(environments, agent, replay), learner)
    games = [event for event in loop.run() if isinstance(event, GameFinished)]

    assert progress.step == saved.step
    assert [game.game_return for game in games][-100:] == saved.state["loop"]["returns"]
    arrays, plain = agent.state()
    assert plain == saved.state["agent"]
    assert arrays.keys() == saved.arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, saved.arrays[name]), name
