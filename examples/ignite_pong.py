"""Noisy DQN on Pong as an Ignite engine: the workflow of a well-known book.

    python examples/ignite_pong.py --steps 400000

The engine's `process_batch` is one update; a generator plays and yields batches; a handler copies
to the target network and measures the layers' signal-to-noise ratios (`snr_1`, `snr_2`), which
TensorBoard shows with loss and reward (`--logdir runs`). There is no ε-greedy. Install with
`pip install '.[atari,ignite]'`.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, EventEnum, Events
from ignite.handlers.tensorboard_logger import OutputHandler, TensorboardLogger

from noisynet.agents import QLearning
from noisynet.assemble import build_agent, make_environments
from noisynet.envs import Environments, EpisodeCounter
from noisynet.integrations.ignite import NoiseHandler
from noisynet.replay import Batch, FrameReplay
from noisynet.runs.config import Config, load

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=400_000, help="agent steps: 4 frames each")
parser.add_argument("--warmup-steps", type=int, default=10_000, help="uniformly random steps")
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--logs", type=Path, default=Path("runs/ignite-pong"))
NOISE_EVERY = 100  # iterations


class EpisodeEvents(EventEnum):
    """Events other than iterations."""

    EPISODE_COMPLETED = "episode_completed"
    SOLVED = "solved"


def configured(arguments: argparse.Namespace) -> Config:
    """Combine the preset of Pong with the command line."""
    chosen = {name: value for name, value in vars(arguments).items() if name != "logs"}
    fixed = {"learning_rate_steps": None, "device": "cpu", "precision": "float32"}
    return load("pong", chosen | fixed | {"replay_capacity": 100_000})


def batches(
    config: Config, environments: Environments, agent: QLearning, engine: Engine
) -> Iterator[Batch[Any]]:
    """Play; yield a batch for each update that is due, and fire the events of episodes."""
    learning, solved_return = config.learning, config.training.solved_return or np.inf
    state: Any = engine.state
    replay = FrameReplay(
        capacity=learning.replay_capacity,
        environments=environments.count,
        frame_shape=environments.observation_shape[1:],
        frame_dtype=environments.observation_dtype,
        stack=environments.stack,
        slack=0,
        seed=config.training.stream("replay"),
    )
    episodes, returns = EpisodeCounter(environments.count), deque[float](maxlen=100)
    observation, first = environments.reset(), np.ones(environments.count, bool)
    step = 0
    while step < config.training.steps:
        action = agent.act(observation, step, first)
        result = environments.step(action)
        replay.add(
            frame=observation[:, -1],
            action=action,
            reward=np.clip(result.reward, -1, 1),
            terminated=result.terminated,
            truncated=result.truncated,
            first=first,
            ignored=result.first,
        )
        observation, first = result.observation, result.first
        step += int(np.count_nonzero(~first))
        state.metrics["step"] = step
        for episode in episodes.update(result):
            returns.append(episode.reward_sum)
            mean_return = float(np.mean(returns))
            state.metrics |= {"reward": returns[-1], "avg_reward": mean_return}
            state.episode += 1
            engine.fire_event(EpisodeEvents.EPISODE_COMPLETED)
            if len(returns) == returns.maxlen and mean_return >= solved_return:
                engine.fire_event(EpisodeEvents.SOLVED)
        due = (step - learning.warmup_steps) // learning.update_every
        while agent.updates < due and replay.can_sample(learning.n_step):
            yield replay.sample(learning.batch_size, learning.n_step, learning.discount)


def main() -> None:
    """Build the engine, attach its handlers, and run it."""
    arguments = parser.parse_args()
    config = configured(arguments)
    updates = (arguments.steps - arguments.warmup_steps) // config.learning.update_every
    if updates < 1:
        parser.error(f"--steps: got {arguments.steps}, which leaves nothing after the warm-up")
    environments = make_environments(config)
    agent = build_agent(config, environments.observation_shape, environments.action_count)
    assert isinstance(agent, QLearning)

    def process_batch(_: Engine, batch: Batch[Any]) -> dict[str, float]:
        # Loss under ε, ε′ and ε″, gradient, step of the optimizer, new noise for acting.
        return {"loss": agent.update(batch).loss}

    engine = Engine(process_batch)
    engine.register_events(*EpisodeEvents, event_to_attr=dict.fromkeys(EpisodeEvents, "episode"))
    # The agent redraws by itself; in a loop without an agent, the handler does it.
    NoiseHandler(
        agent.online,
        agent.target,
        target_every=config.learning.target_every // config.learning.update_every,
        redraw=False,
        snr_every=NOISE_EVERY,
    ).attach(engine)

    @engine.on(EpisodeEvents.EPISODE_COMPLETED)
    def _() -> None:
        seen = {name: round(value, 2) for name, value in engine.state.metrics.items()}
        print(f"iteration {engine.state.iteration}: {seen}", flush=True)

    @engine.on(EpisodeEvents.SOLVED)
    def _() -> None:
        print(f"solved after {engine.state.metrics['step']} steps", flush=True)
        engine.terminate()

    with TensorboardLogger(log_dir=arguments.logs) as logger:
        seen = OutputHandler("train", ["snr_1", "snr_2"], output_transform=lambda output: output)
        logger.attach(engine, seen, Events.ITERATION_COMPLETED(every=NOISE_EVERY))
        reward = OutputHandler("episodes", metric_names=["reward", "avg_reward"])
        logger.attach(engine, reward, EpisodeEvents.EPISODE_COMPLETED)
        state: Any = engine.run(batches(config, environments, agent, engine), epoch_length=updates)
    environments.close()
    print(f"iterations: {state.iteration}")
    for name, value in (state.output | state.metrics).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
