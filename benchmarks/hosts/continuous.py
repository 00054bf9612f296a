"""Compare ways to explore in Stable-Baselines3 with continuous actions, and with a memory.

    python -m benchmarks.hosts.continuous --machine "…"            runs what is missing, in turn
    python -m benchmarks.hosts.continuous --only pendulum-td3      the tasks whose names begin so
    python -m benchmarks.hosts.continuous --table                  only the table and plots
    python -m benchmarks.hosts.continuous --trial pendulum-td3     a tenth of the steps, one seed
    python -m benchmarks.hosts.continuous --overhead td3 --machine "…"   the time of learned noise

Every finished run is one line of results/hosts/continuous.jsonl, so that an interrupted series
continues where it stopped. Seeds are paired: seed i of every arm plays the same environments. The
MuJoCo tasks need `pip install 'gymnasium[mujoco]' 'mujoco<4'`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

from noisynet.evaluation.scores import bootstrap_interval, interquartile_mean, interquartile_means
from noisynet.integrations.sb3 import (
    NoiseControl,
    NoisyPPOPolicy,
    NoisyRecurrentPPO,
    NoisyRecurrentPPOPolicy,
    NoisyRolloutBuffer,
    NoisySACPolicy,
    NoisyTD3Policy,
)

from ..provenance import RESULTS, provenance
from ..tables import markdown_table
from .run import keep, measure_overhead, versions
from .sb3 import PACKAGES, Timed

FILE = RESULTS / "hosts" / "continuous.jsonl"
SEEDS = 5
GAMES = 20
POINTS = 50
DEVIATION = 0.1
"""Standard deviation of the host's Gaussian and OU noise, and the target of the adaptive one."""

Options = dict[str, Any]


class WithoutVelocities(gymnasium.ObservationWrapper[Any, Any, Any]):
    """CartPole that shows position and angle, so that an agent needs a memory."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return position and angle."""
        return observation[[0, 2]]


@dataclass(frozen=True)
class Task:
    """An environment, the agent that plays it, and for how long."""

    environment: str
    algorithm: str
    steps: int
    options: Options = field(default_factory=dict)
    environments: int = 1
    wrapper: Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]] | None = None


# The network of SAC's paper for all, so that arms and tasks differ in nothing else.
_REPLAY: Options = {"learning_starts": 1000, "policy_kwargs": {"net_arch": [256, 256]}}
# The host's RL Zoo has these for RecurrentPPO on CartPole without velocities.
_MEMORY: Options = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "learning_rate": 1e-3,
    "policy_kwargs": {"lstm_hidden_size": 64, "enable_critic_lstm": True},
}
_PPO: Options = {"n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "learning_rate": 1e-3}
TASKS = {
    "pendulum-td3": Task("Pendulum-v1", "td3", 20_000, _REPLAY),
    "pendulum-sac": Task("Pendulum-v1", "sac", 20_000, _REPLAY),
    "pendulum-ppo": Task("Pendulum-v1", "ppo", 100_000, _PPO, environments=4),
    "mountaincar-td3": Task("MountainCarContinuous-v0", "td3", 50_000, _REPLAY),
    "mountaincar-sac": Task("MountainCarContinuous-v0", "sac", 50_000, _REPLAY),
    "halfcheetah-td3": Task("HalfCheetah-v5", "td3", 100_000, _REPLAY),
    "halfcheetah-sac": Task("HalfCheetah-v5", "sac", 100_000, _REPLAY),
    "hopper-td3": Task("Hopper-v5", "td3", 100_000, _REPLAY),
    "hopper-sac": Task("Hopper-v5", "sac", 100_000, _REPLAY),
    "memory-ppo": Task(
        "CartPole-v1", "recurrent", 100_000, _MEMORY, environments=8, wrapper=WithoutVelocities
    ),
}


@dataclass(frozen=True)
class Arm:
    """A way to explore: the policy, what it adds to a task's options, and whether noise adapts."""

    policy: Any = "MlpPolicy"
    options: Options = field(default_factory=dict)
    policy_kwargs: Options = field(default_factory=dict)
    algorithm: Any = None
    adapts: bool = False


_ROWS: Options = {"draw_per_environment": True}


def _noisy(policy: Any, **policy_kwargs: Any) -> Arm:
    return Arm(policy, policy_kwargs=policy_kwargs)


ARMS: dict[str, dict[str, Arm]] = {
    "td3": {
        "no noise": Arm(),
        "Gaussian": Arm(options={"action_noise": NormalActionNoise}),
        "OU": Arm(options={"action_noise": OrnsteinUhlenbeckActionNoise}),
        "learned": _noisy(NoisyTD3Policy),
        "learned, redrawn at updates": _noisy(NoisyTD3Policy, redraw="update"),
        "learned, last layer": _noisy(NoisyTD3Policy, noise_in="last"),
        "learned, critics too": _noisy(NoisyTD3Policy, critic_noise=True),
        "adaptive": Arm(NoisyTD3Policy, policy_kwargs={"learned": False}, adapts=True),
    },
    "sac": {
        "squashed Gaussian": Arm(),
        "Gaussian": Arm(options={"action_noise": NormalActionNoise}),
        "gSDE": Arm(options={"use_sde": True}),
        "learned": _noisy(NoisySACPolicy),
        "learned, last layer": _noisy(NoisySACPolicy, noise_in="last"),
        "adaptive": Arm(NoisySACPolicy, policy_kwargs={"learned": False}, adapts=True),
    },
    "ppo": {
        "Gaussian": Arm(),
        "gSDE": Arm(options={"use_sde": True, "sde_sample_freq": 4}),
        "learned": Arm(
            NoisyPPOPolicy, {"rollout_buffer_class": NoisyRolloutBuffer}, policy_kwargs=_ROWS
        ),
        "adaptive": Arm(
            NoisyPPOPolicy,
            {"rollout_buffer_class": NoisyRolloutBuffer},
            policy_kwargs={**_ROWS, "learned": False},
            adapts=True,
        ),
    },
    "recurrent": {
        "neither": Arm("MlpLstmPolicy"),
        "entropy bonus": Arm("MlpLstmPolicy", {"ent_coef": 0.01}),
        "learned": Arm(NoisyRecurrentPPOPolicy),
        "learned, per environment": Arm(
            NoisyRecurrentPPOPolicy, policy_kwargs=_ROWS, algorithm=NoisyRecurrentPPO
        ),
        "learned, last layer": _noisy(NoisyRecurrentPPOPolicy, noise_in="last"),
    },
}
_ALGORITHMS: dict[str, Any] = {"td3": TD3, "sac": SAC, "ppo": PPO, "recurrent": RecurrentPPO}


class Curve(BaseCallback):
    """A callback that records the return of each training game and the step at which it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.games: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.games.append((self.num_timesteps, float(info["episode"]["r"])))
        return True

    def points(self, steps: int) -> list[float | None]:
        """Return the mean return of the games that ended in each part of the training."""
        found: list[float | None] = []
        for part in range(POINTS):
            begin, end = part * steps / POINTS, (part + 1) * steps / POINTS
            ended = [value for step, value in self.games if begin < step <= end]
            found.append(round(float(np.mean(ended)), 3) if ended else None)
        return found


def build(task: Task, arm: Arm, seed: int) -> tuple[Any, list[BaseCallback]]:
    """Build an agent and the callbacks that it needs."""
    torch.set_num_threads(1)
    environments = _environments(task, seed, task.environments)
    options = {**task.options, **arm.options}
    kwargs = {**options.pop("policy_kwargs", {}), **arm.policy_kwargs}
    noise = options.get("action_noise")
    if noise is not None:
        shape = environments.action_space.shape
        options["action_noise"] = noise(np.zeros(shape), np.full(shape, DEVIATION))
    kind = arm.algorithm or _ALGORITHMS[task.algorithm]
    model = kind(arm.policy, environments, seed=seed, device="cpu", policy_kwargs=kwargs, **options)
    # Agent steps between two measurements, each on the last 256 observations.
    every = 2048 if task.algorithm == "ppo" else 50
    control = NoiseControl(action_deviation=DEVIATION, every=every) if arm.adapts else None
    return model, [] if control is None else [control]


TIMED_STEPS = {"vector": 1024}
_HOSTS_OWN = {
    "td3": "Gaussian",
    "sac": "squashed Gaussian",
    "ppo": "Gaussian",
    "recurrent": "entropy bonus",
}


def agent(algorithm: str, *, noisy: bool, observations: str) -> Timed:  # noqa: ARG001
    """Build the agent to time: learned noise or the host's own, on the algorithm's first task."""
    task = next(one for one in TASKS.values() if one.algorithm == algorithm)
    arm = ARMS[algorithm]["learned" if noisy else _HOSTS_OWN[algorithm]]
    return Timed(build(task, arm, seed=0)[0])


def overhead(algorithm: str, machine: str) -> None:
    """Time learned noise and the host's own agent in turns, and keep it with the other times."""
    this: Any = sys.modules[__name__]
    measured = [measure_overhead(this, algorithm, one) for one in TIMED_STEPS]
    result = {**provenance(machine), **versions(PACKAGES), "measured": measured}
    print(json.dumps(result, indent=1, ensure_ascii=False))
    keep("sb3", "overhead", "pendulum-ppo" if algorithm == "ppo" else algorithm, result)


def _environments(task: Task, seed: int, number: int) -> Any:
    return make_vec_env(task.environment, number, seed=seed, wrapper_class=task.wrapper)


def run(name: str, arm: str, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Train and evaluate one agent; return its line of the results."""
    task = TASKS[name]
    steps = task.steps if steps is None else steps
    began = time.perf_counter()
    model, callbacks = build(task, ARMS[task.algorithm][arm], seed)
    curve = Curve()
    model.learn(steps, callback=[curve, *callbacks])
    unseen = _environments(task, 10_000 + seed, 10)
    played, _ = evaluate_policy(
        model, unseen, GAMES, deterministic=True, return_episode_rewards=True
    )
    points = curve.points(steps)
    known = [value for value in points if value is not None]
    return {
        "task": name,
        "arm": arm,
        "seed": seed,
        "steps": steps,
        "final": round(float(np.mean(played)), 2),
        "area": round(float(np.mean(known)), 2) if known else None,
        "curve": points,
        "seconds": round(time.perf_counter() - began, 1),
    }


def missing(only: str, seeds: int) -> Iterator[tuple[str, str, int]]:
    """Yield the runs that have no line yet, seed by seed, so that all arms grow together."""
    done = {(one["task"], one["arm"], one["seed"]) for one in read()}
    for seed in range(seeds):
        for name, task in TASKS.items():
            for arm in ARMS[task.algorithm]:
                if name.startswith(only) and (name, arm, seed) not in done:
                    yield name, arm, seed


def read(file: Path | None = None) -> list[dict[str, Any]]:
    """Read the finished runs."""
    file = FILE if file is None else file
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(runs: list[dict[str, Any]]) -> str:
    """Return a table for each task: interquartile means and their 95 % bootstrap intervals."""
    lines: list[str] = []
    for name, task in TASKS.items():
        rows: list[list[str]] = []
        for arm in ARMS[task.algorithm]:
            mine = [one for one in runs if one["task"] == name and one["arm"] == arm]
            if mine:
                rows.append([
                    arm,
                    str(len(mine)),
                    *(_figure([one[key] for one in mine]) for key in ("final", "area")),
                    f"{np.median([one['seconds'] for one in mine]):.0f}",
                ])  # fmt: skip
        if rows:
            heads = ("explores by", "seeds", "games by the mean weights", "training games", "s")
            words = f"{task.environment}, {_ALGORITHMS[task.algorithm].__name__}"
            lines += [f"### {words}, {task.steps:,} steps", ""]
            lines += [*markdown_table(heads, rows, left=1), ""]
    return "\n".join(lines)


def _figure(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    found = bootstrap_interval(interquartile_means, [known])
    spread = "" if found is None else f" [{found[0]:.4g}, {found[1]:.4g}]"
    return f"{interquartile_mean(known):.4g}{spread}"


def plot(runs: list[dict[str, Any]], file: Path) -> None:
    """Draw the returns of training games: the mean over seeds of each arm."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [name for name in TASKS if any(one["task"] == name for one in runs)]
    if not shown:
        return
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4 * columns, 3 * lines), squeeze=False)
    for place in axes.flat[len(shown) :]:
        place.set_axis_off()
    for place, name in zip(axes.flat, shown, strict=False):
        for arm in ARMS[TASKS[name].algorithm]:
            mine = [one for one in runs if one["task"] == name and one["arm"] == arm]
            if mine:
                curves = np.array([one["curve"] for one in mine], float)
                counted = np.isfinite(curves)
                mean = np.where(counted, curves, 0).sum(0) / np.maximum(counted.sum(0), 1)
                at = np.flatnonzero(counted.any(0))
                place.plot((at + 1) * mine[0]["steps"] / POINTS, mean[at], label=arm)
        place.set_title(name, fontsize=9)
        place.tick_params(labelsize=7)
        place.legend(fontsize=6, frameon=False)
    figure.supxlabel("steps", fontsize=8)
    figure.supylabel("return of training games", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run what is missing, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="the beginning of the tasks' names")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--trial", metavar="TASK", choices=TASKS)
    parser.add_argument("--overhead", metavar="ALGORITHM", choices=_HOSTS_OWN)
    parser.add_argument("--machine", help="in words: processor, cores, what else ran")
    arguments = parser.parse_args()
    if arguments.trial:
        task = TASKS[arguments.trial]
        for arm in ARMS[task.algorithm]:
            found = run(arguments.trial, arm, 0, task.steps // 10)
            print(json.dumps(found, ensure_ascii=False), flush=True)
        return
    machine: str = arguments.machine or ""
    if not machine and not arguments.table:
        parser.error("--machine: missing, expected the machine in words")
    if arguments.overhead:
        overhead(arguments.overhead, machine)
        return
    if not arguments.table:
        for name, arm, seed in missing(arguments.only, arguments.seeds):
            found = {**run(name, arm, seed), **provenance(machine)}
            FILE.parent.mkdir(parents=True, exist_ok=True)
            with FILE.open("a") as file:
                file.write(json.dumps(found, ensure_ascii=False) + "\n")
            print(f"{name}, {arm}, seed {seed}: {found['final']}", flush=True)
    runs = read()
    FILE.with_suffix(".md").write_text(table(runs))
    plot(runs, FILE.with_suffix(".png"))


if __name__ == "__main__":
    main()
