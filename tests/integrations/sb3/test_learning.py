"""Do agents of Stable-Baselines3 learn CartPole by noise alone?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import numpy as np
from benchmarks.hosts import run as hosts
from benchmarks.hosts import sb3 as hosts_sb3

import noisynet

# A uniformly random player gets about 22, and one that always does the same about 10.
LEARNED = 100.0


def test_the_benchmark_leaves_nothing_but_noise_to_explore() -> None:
    for algorithm, settings in hosts_sb3.SETTINGS.items():
        options = settings["options"]
        if algorithm in ("dqn", "qrdqn"):
            assert options["exploration_initial_eps"] == options["exploration_final_eps"] == 0
        else:
            assert options["ent_coef"] == 0


def test_noise_alone_learns_cartpole_and_its_sigmas_move() -> None:
    model = hosts_sb3.build("ppo", seed=0)
    before = [one.detach().clone() for one in noisynet.sigma_parameters(model.policy)]
    model.learn(40_000)
    assert np.mean(hosts_sb3.play(model, seed=0, games=20)) >= LEARNED
    for was, now in zip(before, noisynet.sigma_parameters(model.policy), strict=True):
        assert (now - was).abs().mean() > 0.02 * was.mean()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", hosts_sb3.SETTINGS)
def test_noise_alone_solves_cartpole(algorithm: str) -> None:
    assert np.mean(hosts_sb3.play_trained(algorithm, 0, 100)) >= hosts.GOAL


def test_the_example_runs(run_example: Callable[..., Any], tmp_path: Path) -> None:
    done = run_example("sb3_dqn.py", "--steps", "1500")
    assert done.returncode == 0, done.stderr
    figures = dict(line.split(": ") for line in done.stdout.splitlines())
    assert 0 < float(figures["effective_epsilon"]) < 1
    assert float(figures["mean return of 50 games by the mean weights"].split()[0]) > 0
    assert not any(tmp_path.iterdir())


class Counted:
    """An agent that takes no time, to see how the rounds are run."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def run(self, steps: int) -> None:
        self.log.append(self.name)
        sum(range(200_000 if self.name == "noisy" else 100_000))


def test_overhead_is_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Twice:
        TIMED_STEPS = {"vector": 10}  # noqa: RUF012

        @staticmethod
        def agent(algorithm: str, *, noisy: bool, observations: str) -> Any:
            return Counted(log, "noisy" if noisy else "host")

    measured = hosts.measure_overhead(Twice, "dqn", "vector")
    # Once each to warm up, then both in every round, and each first in every other one.
    assert log[2:6] == ["host", "noisy", "noisy", "host"]
    assert len(log) == 2 * (hosts.ROUNDS + 1)
    assert 1.5 < measured["time_ratio_median"] < 2.7
