"""Does DQN of TorchRL learn CartPole by noise alone?"""

from __future__ import annotations

import warnings

import pytest

# The host warns of its own deprecated classes while it is imported.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torchrl.collectors", reason="needs noisynet[torchrl]")

import numpy as np
from benchmarks.hosts import run as hosts
from benchmarks.hosts import torchrl as hosts_torchrl
from torch import nn
from torchrl.modules import EGreedyModule

import noisynet

# A uniformly random player gets about 22, and one that always does the same about 10.
LEARNED = 100.0


def exploration_of(policy: nn.Module) -> float:
    """The host's own ε, 0 where nothing is greedy by chance."""
    found = [float(part.eps) for part in policy.modules() if isinstance(part, EGreedyModule)]
    return round(sum(found), 6)


def test_noise_alone_learns_cartpole_and_its_sigmas_move() -> None:
    learner = hosts_torchrl.Learner(0)
    sigmas = noisynet.sigma_parameters(learner.actor)
    before = [one.detach().clone() for one in sigmas]
    assert exploration_of(learner.policy) == 0
    learner.run(9000)
    assert np.mean(hosts_torchrl.play(learner.actor, 0, 20)) >= LEARNED
    for was, now in zip(before, sigmas, strict=True):
        assert (now - was).abs().mean() > 0.02 * was.mean()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", hosts_torchrl.SETTINGS)
def test_noise_alone_solves_cartpole(algorithm: str) -> None:
    assert np.mean(hosts_torchrl.play_trained(algorithm, 0, 100)) >= hosts.GOAL


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("observations", ["vector", "image"])
def test_the_agents_that_are_timed_differ_in_their_exploration_alone(
    noisy: bool, observations: str
) -> None:
    agent = hosts_torchrl.agent("dqn", noisy=noisy, observations=observations)
    agent.run(16)
    assert bool(noisynet.noisy_layers(agent.actor)) is noisy
    assert exploration_of(agent.policy) == (0.0 if noisy else 0.05)
