"""Does DQN of Tianshou learn CartPole by noise alone?"""

from __future__ import annotations

import pytest

pytest.importorskip("tianshou", reason="needs noisynet[tianshou]")

import numpy as np
from benchmarks.hosts import run as hosts
from benchmarks.hosts import tianshou as hosts_tianshou

import noisynet

# A uniformly random player gets about 22, and one that always does the same about 10.
LEARNED = 100.0


def test_noise_alone_learns_cartpole_and_its_sigmas_move() -> None:
    learner = hosts_tianshou.Learner("dqn", 0)
    sigmas = noisynet.sigma_parameters(learner.policy.model)
    before = [one.detach().clone() for one in sigmas]
    assert learner.policy.eps_training == 0
    learner.run(8000)
    assert np.mean(hosts_tianshou.play(learner.policy, 0, 20)) >= LEARNED
    for was, now in zip(before, sigmas, strict=True):
        assert (now - was).abs().mean() > 0.02 * was.mean()


@pytest.mark.slow
def test_noise_alone_solves_cartpole() -> None:
    assert np.mean(hosts_tianshou.play_trained("dqn", 0, 100)) >= hosts.GOAL


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("observations", ["vector", "image"])
def test_the_agents_that_are_timed_differ_in_their_exploration_alone(
    noisy: bool, observations: str
) -> None:
    agent = hosts_tianshou.agent("dqn", noisy=noisy, observations=observations)
    agent.run(16)
    assert bool(noisynet.noisy_layers(agent.policy.model)) is noisy
    assert agent.policy.eps_training == (0.0 if noisy else 0.05)
