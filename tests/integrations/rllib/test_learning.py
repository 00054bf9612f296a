"""Do RLlib's DQN and PPO learn CartPole by noise alone? Do the page and the example run?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "ray.rllib", reason="needs noisynet[rllib], which has an environment of its own"
)

import numpy as np
import ray
from benchmarks.hosts import rllib as hosts_rllib
from benchmarks.hosts import run as hosts

import noisynet

# A uniformly random player gets about 22, and one that always does the same about 10.
LEARNED = 100.0

# The host warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_benchmark_leaves_nothing_but_noise_to_explore() -> None:
    assert "rllib" in hosts.HOSTS
    assert hosts_rllib.SETTINGS["dqn"]["training"]["epsilon"] == 0
    assert hosts_rllib.SETTINGS["ppo"]["training"]["entropy_coeff"] == 0


def test_the_page_runs(run_page: Callable[[str], dict[str, Any]], no_cluster_left: None) -> None:
    names = run_page("rllib.md")
    assert names["after"].ok
    assert not names["before"].ok
    assert not ray.is_initialized()


def test_the_example_runs(run_example: Callable[..., Any], tmp_path: Path) -> None:
    done = run_example("rllib_dqn.py", "--steps", "1200")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if ": " in line]
    figures = dict(line.rsplit(": ", 1) for line in lines)
    assert float(figures["snr/af.net.mlp.2"]) > 0
    assert float(figures["mean return of 20 games by the mean weights"]) >= 8
    assert not any(tmp_path.iterdir())


def test_noise_alone_learns_cartpole_and_its_sigmas_move(cluster: None) -> None:
    agent = hosts_rllib.build("ppo", seed=0)
    module = agent.algorithm.get_module()
    before = [one.detach().clone() for one in noisynet.sigma_parameters(module)]
    agent.run(20_000)
    assert np.mean(hosts_rllib.play(agent, seed=0, games=20)) >= LEARNED
    for was, now in zip(before, noisynet.sigma_parameters(module), strict=True):
        assert (now - was).abs().mean() > 0.02 * was.mean()
    agent.stop()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", hosts_rllib.SETTINGS)
def test_noise_alone_solves_cartpole(algorithm: str, cluster: None) -> None:
    assert np.mean(hosts_rllib.play_trained(algorithm, 0, 100)) >= hosts.GOAL
