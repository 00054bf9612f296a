"""Tianshou's agents, as run.py measures them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from tianshou.algorithm import C51, DQN, RainbowDQN
from tianshou.algorithm.modelfree.c51 import C51Policy
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import LRSchedulerFactoryLinear, TorchOptimizerFactory
from tianshou.data import Collector, CollectStats, PrioritizedVectorReplayBuffer, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainer, OffPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.torch_utils import policy_within_training_step

from noisynet.integrations.tianshou import NoisyC51Policy, NoisyDiscreteQLearningPolicy

from .images import Images, frame_network

PACKAGES = ("tianshou", "gymnasium")

_DISTRIBUTIONAL = {"num_atoms": 51, "v_min": 0.0, "v_max": 100.0}
_COMMON: dict[str, Any] = {
    "steps": 80_000,
    "environments": 8,
    "steps_a_batch": 16,  # the acting noise is held over them
    "warm_up": 1024,
    "hidden_sizes": [128, 128],
    "sigma0": 0.2,
    "learning_rate": [1e-3, 1e-4],
    "buffer_size": 50_000,
    "batch_size": 128,
    "updates_per_step": 0.25,
    "algorithm": {"gamma": 0.99, "target_update_freq": 125, "n_step_return_horizon": 10},
}
# The host bootstraps from the distribution of the next state, whatever the horizon is.
_ONE_STEP = {**_COMMON, "algorithm": {**_COMMON["algorithm"], "n_step_return_horizon": 1}}
SETTINGS: dict[str, dict[str, Any]] = {
    "dqn": {
        **_COMMON,
        "policy": {},
        "algorithm": {**_COMMON["algorithm"], "huber_loss_delta": 1.0},
    },
    "c51": {**_ONE_STEP, "policy": _DISTRIBUTIONAL},
    "rainbow": {
        **_ONE_STEP,
        "policy": _DISTRIBUTIONAL,
        "prioritized": {"alpha": 0.5, "beta": 0.4},
    },
}
TIMED_STEPS = {"vector": 512, "image": 128}

CLASSES: dict[str, tuple[Any, Any, Any]] = {
    "dqn": (DQN, NoisyDiscreteQLearningPolicy, DiscreteQLearningPolicy),
    "c51": (C51, NoisyC51Policy, C51Policy),
    "rainbow": (RainbowDQN, NoisyC51Policy, C51Policy),
}


class Frames(torch.nn.Module):
    """DQN's convolutional network, as the host's policies call it."""

    def __init__(self, actions: int, atoms: int) -> None:
        super().__init__()
        self._shape = (actions, atoms) if atoms > 1 else (actions,)
        self._layers = frame_network(actions * atoms)

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
        """Return values (B, A), or probabilities (B, A, atoms)."""
        del info
        values = self._layers(torch.as_tensor(obs))
        values = values.unflatten(-1, self._shape)
        return (values.softmax(-1) if len(self._shape) > 1 else values), state


class Learner:
    """An agent of the host with its collector; it continues where it stopped."""

    def __init__(
        self,
        name: str,
        seed: int,
        *,
        noisy: bool = True,
        images: bool = False,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        settings = {**SETTINGS[name], **(changes or {})}
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the host draws from it
        environments = settings["environments"]
        make = Images if images else lambda: gymnasium.make("CartPole-v1")
        self._environments = DummyVectorEnv([make for _ in range(environments)])
        self._environments.seed(seed)
        action_space: Any = self._environments.action_space[0]
        observation_space: Any = self._environments.observation_space[0]
        atoms = settings["policy"].get("num_atoms", 1)
        net = (
            Frames(action_space.n, atoms)
            if images
            else Net(
                state_shape=observation_space.shape,
                action_shape=action_space.n,
                hidden_sizes=settings["hidden_sizes"],
                softmax=atoms > 1,
                num_atoms=atoms,
            )
        )
        algorithm, noisy_policy, own_policy = CLASSES[name]
        policy: Any = noisy_policy if noisy else own_policy
        exploration = (
            {"sigma0": settings["sigma0"], "eps_training": 0.0} if noisy else {"eps_training": 0.05}
        )
        self.policy = policy(
            model=net,
            action_space=action_space,
            observation_space=observation_space,
            **exploration,
            **settings["policy"],
        )
        # Both agents use the fused Adam: σ doubles the parameters, and a loop over them is slow.
        first, last = settings["learning_rate"]
        # The host's schedule falls to 0, so it runs long enough to end at `last` after `steps`.
        steps = round(settings["steps"] * first / (first - last))
        optimizer = TorchOptimizerFactory(
            torch.optim.Adam, lr=first, fused=True
        ).with_lr_scheduler_factory(
            # The schedule counts updates, and there is one update for this many steps.
            LRSchedulerFactoryLinear(1, steps, round(1 / settings["updates_per_step"]))
        )
        self.algorithm = algorithm(policy=self.policy, optim=optimizer, **settings["algorithm"])
        size = 4096 if images else settings["buffer_size"]
        buffer = (
            PrioritizedVectorReplayBuffer(size, environments, **settings["prioritized"])
            if "prioritized" in settings
            else VectorReplayBuffer(size, environments)
        )
        self.collector = Collector[CollectStats](
            self.policy, self._environments, buffer, exploration_noise=True
        )
        self.collector.reset()
        self.collector.collect(n_step=settings["warm_up"], random=True)
        self._settings = settings

    def run(self, steps: int) -> None:
        """Continue acting and learning for this many agent steps."""
        settings = self._settings
        each = _batch(settings)
        updates = int(each * settings["updates_per_step"])
        with policy_within_training_step(self.policy):
            for _ in range(0, steps, each):
                self.collector.collect(n_step=each)
                for _ in range(updates):
                    self.algorithm.update(
                        sample_size=settings["batch_size"], buffer=self.collector.buffer
                    )

    def train(self, steps: int) -> None:
        """Train with the host's own trainer for this many agent steps, and keep the last policy."""
        settings = self._settings
        trainer = OffPolicyTrainer(
            self.algorithm,
            OffPolicyTrainerParams(
                training_collector=self.collector,
                test_collector=None,
                max_epochs=1,
                epoch_num_steps=steps,
                collection_step_num_env_steps=_batch(settings),
                update_step_num_gradient_steps_per_sample=settings["updates_per_step"],
                batch_size=settings["batch_size"],
                verbose=False,
                show_progress=False,
            ),
        )
        # After a reset, n-step returns of the last warm-up games would cross into new ones.
        trainer.run(reset_collectors=False)


def _batch(settings: dict[str, Any]) -> int:
    return int(settings["environments"] * settings["steps_a_batch"])


def _collector(policy: Any, environments: int, seed: int) -> Collector[CollectStats]:
    games = DummyVectorEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(environments)])
    games.seed(seed)
    return Collector[CollectStats](policy, games)


def play(policy: Any, seed: int, games: int) -> list[float]:
    """Play games with the mean weights, in environments that training did not see."""
    collector = _collector(policy, 10, 10_000 + seed)
    collector.reset()
    return [float(one) for one in collector.collect(n_episode=games).returns]


def play_trained(algorithm: str, seed: int, games: int) -> list[float]:
    """Train CartPole by noise alone; return the returns of games with the mean weights."""
    torch.set_num_threads(1)
    learner = Learner(algorithm, seed)
    learner.train(SETTINGS[algorithm]["steps"])
    return play(learner.policy, seed, games)


def agent(algorithm: str, *, noisy: bool, observations: str) -> Learner:
    """Build the noisy agent or the host's own with ε = 0.05, to be timed on the same work.

    Vectors are CartPole's, with the settings above; images are 84 × 84 × 4, with DQN's network.
    """
    torch.set_num_threads(1)
    return Learner(algorithm, 0, noisy=noisy, images=observations == "image")
