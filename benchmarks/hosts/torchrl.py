"""TorchRL's agents, as run.py measures them."""

from __future__ import annotations

import copy
import os
import statistics
from typing import Any

# The host warns of a target updated by hand when a loss is built before its updater.
os.environ.setdefault("RL_WARNINGS", "False")

import torch
from tensordict.nn import TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.data.postprocs import MultiStep
from torchrl.envs import GymEnv, GymWrapper, SerialEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, HardUpdate

import noisynet
from noisynet.integrations.torchrl import NoisyPolicy, attach

from .images import Images, frame_network

PACKAGES = ("torchrl", "tensordict", "gymnasium")

SETTINGS: dict[str, dict[str, Any]] = {
    "dqn": {
        "steps": 80_000,
        "environments": 8,
        "steps_a_batch": 16,
        "warm_up": 1024,
        "hidden_sizes": [128, 128],
        "sigma0": 0.2,
        "learning_rate": [1e-3, 1e-4],
        "n_steps": 10,
        "buffer_size": 50_000,
        "batch_size": 128,
        "steps_per_update": 4,
        "target_update_interval": 125,
        "gamma": 0.99,
        "double_dqn": True,
    },
}
TIMED_STEPS = {"vector": 512, "image": 64}


def environments(count: int, seed: int, *, images: bool = False) -> SerialEnv:
    """Make environments that step one after the other in this process."""
    make = (
        (lambda: GymWrapper(Images(), categorical_action_encoding=True))
        if images
        else (lambda: GymEnv("CartPole-v1", categorical_action_encoding=True))
    )
    games = SerialEnv(count, make)
    games.set_seed(seed)
    return games


def network(hidden_sizes: list[int], *, images: bool = False) -> nn.Sequential:
    """Build a multi-layer perceptron for CartPole, or DQN's network for frames."""
    if images:
        return frame_network(6)
    layers: list[nn.Module] = []
    for inputs, outputs in zip([4, *hidden_sizes], [*hidden_sizes, 2], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Learner:
    """A DQN agent of the host with its collector; it continues where it stopped."""

    def __init__(self, seed: int, *, noisy: bool = True, images: bool = False) -> None:
        self.settings = settings = SETTINGS["dqn"]
        torch.manual_seed(seed)
        games = environments(settings["environments"], seed, images=images)
        net = network(settings["hidden_sizes"], images=images)
        if noisy:
            # As in the paper, convolutions stay plain.
            noisynet.noisify(
                net, lambda _, layer: isinstance(layer, nn.Linear), sigma0=settings["sigma0"]
            )
        spec = games.action_spec_unbatched
        self.actor = QValueActor(
            net,
            in_keys=["observation"],
            spec=spec,
            action_space="categorical",
        )
        self.loss = DQNLoss(
            self.actor, action_space="categorical", double_dqn=settings["double_dqn"]
        )
        self.loss.make_value_estimator(gamma=settings["gamma"])
        self._target = HardUpdate(
            self.loss, value_network_update_interval=settings["target_update_interval"]
        )
        # Both agents use the fused Adam: σ doubles the parameters, and a loop over them is slow.
        self._optimizer = torch.optim.Adam(
            self.loss.parameters(), lr=settings["learning_rate"][0], fused=True
        )
        if noisy:
            self.policy: nn.Module = NoisyPolicy(self.actor)
            attach(self._optimizer, self.loss, self.policy)
        else:
            greedy = EGreedyModule(spec=spec, eps_init=0.05, eps_end=0.05)
            both: list[Any] = [self.actor, greedy]
            self.policy = TensorDictSequential(*both)
        self._replay = ReplayBuffer(
            storage=LazyTensorStorage(4096 if images else settings["buffer_size"]),
            batch_size=settings["batch_size"],
        )
        self._steps_a_batch = settings["environments"] * settings["steps_a_batch"]
        self._collector: Any = Collector(
            games,
            self.policy,
            frames_per_batch=self._steps_a_batch,
            total_frames=-1,
            init_random_frames=settings["warm_up"],
            postproc=MultiStep(settings["gamma"], settings["n_steps"]),
            auto_register_policy_transforms=False,
        )
        self._collected = iter(self._collector)
        for _ in range(0, settings["warm_up"], self._steps_a_batch):
            self._replay.extend(next(self._collected).reshape(-1))

    def run(self, steps: int) -> None:
        """Continue acting and learning for this many agent steps."""
        settings = self.settings
        for _ in range(0, steps, self._steps_a_batch):
            self._replay.extend(next(self._collected).reshape(-1))
            for _ in range(self._steps_a_batch // settings["steps_per_update"]):
                loss = self.loss(self._replay.sample())["loss"]
                self._optimizer.zero_grad()
                loss.backward()
                self._optimizer.step()
                self._target.step()

    def train(self, steps: int, seed: int) -> None:
        """Train for this many agent steps, and keep the best of the policies tested on the way."""
        best, kept = -1.0, self.actor.state_dict()
        first, last = self.settings["learning_rate"]
        for done in range(0, steps, 5000):
            for group in self._optimizer.param_groups:
                group["lr"] = first + (last - first) * done / steps
            self.run(min(steps, 5000))
            score = statistics.fmean(play(self.actor, 20_000 + seed, 10))
            if score > best:
                best, kept = score, copy.deepcopy(self.actor.state_dict())
        self.actor.load_state_dict(kept)


@torch.no_grad()
def play(actor: QValueActor, seed: int, games: int) -> list[float]:
    """Play whole games with the mean weights, each in its own environment."""
    environment = environments(games, seed)
    with noisynet.mean_weights(actor), set_exploration_type(ExplorationType.DETERMINISTIC):
        rollout = environment.rollout(500, actor, break_when_all_done=True)
    rewards, done = rollout["next", "reward"].squeeze(-1), rollout["next", "done"].squeeze(-1)
    playing = done.cumsum(1) - done.long() == 0
    return (rewards * playing).sum(1).tolist()


def play_trained(algorithm: str, seed: int, games: int) -> list[float]:
    """Train CartPole by noise alone; return the returns of games with the mean weights."""
    torch.set_num_threads(1)
    learner = Learner(seed)
    learner.train(SETTINGS[algorithm]["steps"], seed)
    return play(learner.actor, 10_000 + seed, games)


def agent(algorithm: str, *, noisy: bool, observations: str) -> Learner:
    """Build the noisy agent or the host's own with ε = 0.05, to be timed on the same work.

    Vectors are CartPole's, with the settings above; images are 84 × 84 × 4, with DQN's network.
    """
    assert algorithm == "dqn"
    torch.set_num_threads(1)
    return Learner(0, noisy=noisy, images=observations == "image")
