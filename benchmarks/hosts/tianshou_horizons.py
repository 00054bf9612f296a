"""Show what Tianshou's C51 and Rainbow learn from n-step returns, with and without noise.

    python -m benchmarks.hosts.tianshou_horizons --task chain --machine "…"
    python -m benchmarks.hosts.tianshou_horizons --task cartpole --seeds 2 --machine "…"

Both bootstrap an n-step return from the next state instead of the state n steps later
(tests/integrations/test_tianshou.py); noise has no part in this. The first command compares the
learned values of a chain of 50 steps with the true ones, in half a minute. The second trains
CartPole with the settings of tianshou.py and half the steps, by the host's own ε = 0.05 and by
noise, with the horizon of DQN's settings and with 1, and plays 100 games with the mean weights.
Both write results/hosts/tianshou_horizons.json and its tables after every run, and continue where
they were stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from typing import Any

import gymnasium
import numpy as np
import torch
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, VectorReplayBuffer
from tianshou.utils.net.common import Net
from tianshou.utils.torch_utils import policy_within_training_step

from ..provenance import write_json
from ..tables import markdown_table
from . import run, tianshou
from .tables import ALGORITHMS

KEPT = run.FOLDER / "tianshou_horizons.json"
HORIZONS = (1, 10)
AGENTS = {"host": "none", "noisy": "learned"}
NAMES = ("algorithm", "agent", "horizon", "seed")

LENGTH, GAMMA, UPDATES = 50, 0.99, 2000
BEFORE_THE_END = (10, 20, 50)
STEPS = 40_000


def true_value(steps: int) -> float:
    """Return the true value of the state that is `steps` steps before the end of the chain."""
    return (1 - GAMMA**steps) / (1 - GAMMA)


def learn_chain(algorithm: str, agent: str, horizon: int, seed: int) -> dict[str, Any]:
    """Learn the values of a chain of states with a reward of 1 at every step, and one action."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the host draws from it
    kind, noisy_policy, own_policy = tianshou.CLASSES[algorithm]
    options = tianshou.SETTINGS[algorithm]["policy"]
    atoms = options.get("num_atoms", 1)
    policy: Any = (noisy_policy if agent == "noisy" else own_policy)(
        model=Net(state_shape=LENGTH + 1, action_shape=1, softmax=atoms > 1, num_atoms=atoms),
        action_space=gymnasium.spaces.Discrete(1),
        **options,
    )
    learner = kind(
        policy=policy,
        optim=AdamOptimizerFactory(lr=0.1),
        gamma=GAMMA,
        n_step_return_horizon=horizon,
        target_update_freq=10,
    )
    states = np.eye(LENGTH + 1, dtype=np.float32)
    played = VectorReplayBuffer(LENGTH, 1)
    for step in range(LENGTH):
        one = {
            "obs": states[step],
            "act": 0,
            "rew": 1.0,
            "obs_next": states[step + 1],
            "terminated": step + 1 == LENGTH,
            "truncated": False,
            "info": {},
        }
        played.add(Batch({key: [value] for key, value in one.items()}), buffer_ids=[0])
    with policy_within_training_step(policy):
        for _ in range(UPDATES):
            learner.update(buffer=played, sample_size=LENGTH)
    with torch.no_grad():
        values = policy.compute_q_value(
            policy(Batch(obs=states, info=[None] * len(states))).logits, None
        )
    found = {str(steps): round(float(values[LENGTH - steps, 0]), 2) for steps in BEFORE_THE_END}
    return {"updates": UPDATES, "values": found}


def learn_cartpole(algorithm: str, agent: str, horizon: int, seed: int) -> dict[str, Any]:
    """Train an agent on CartPole and evaluate it."""
    own = tianshou.SETTINGS[algorithm]["algorithm"]
    changes = {"steps": STEPS, "algorithm": {**own, "n_step_return_horizon": horizon}}
    learner = tianshou.Learner(algorithm, seed, noisy=agent == "noisy", changes=changes)
    learner.train(STEPS)
    returns = tianshou.play(learner.policy, seed, run.GAMES)
    return {
        "steps": STEPS,
        "mean_return": round(statistics.fmean(returns), 2),
        "lowest_return": min(returns),
    }


TASKS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "chain": (learn_chain, ("dqn", "c51", "rainbow")),
    "cartpole": (learn_cartpole, ("c51", "rainbow")),
}


def tables(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the tables of the finished runs."""
    lines: list[str] = []
    if chain := results.get("chain"):
        rows = [["true values", "", "", *(f"{true_value(one):.1f}" for one in BEFORE_THE_END)]]
        rows += [
            [
                ALGORITHMS[one["algorithm"]],
                AGENTS[one["agent"]],
                str(one["horizon"]),
                *(f"{one['values'][str(steps)]:.1f}" for steps in BEFORE_THE_END),
            ]
            for one in chain
        ]
        title = (
            f"A chain of {LENGTH} steps with a reward of 1 each and γ = {GAMMA}: what states are "
            f"worth that many steps before the end, after {UPDATES:,} updates."
        )
        heads = ("", "noise", "n", *(f"{steps} steps before" for steps in BEFORE_THE_END))
        lines += [title, "", *markdown_table(heads, rows), ""]
    if cartpole := results.get("cartpole"):
        rows = [
            [
                ALGORITHMS[key[0]],
                AGENTS[key[1]],
                str(key[2]),
                ", ".join(f"{one['mean_return']:.0f}" for one in group),
            ]
            for key, group in itertools.groupby(
                cartpole, lambda one: tuple(one[name] for name in NAMES[:3])
            )
        ]
        title = f"CartPole: mean return of {run.GAMES} games after {STEPS:,} steps, by run."
        lines += [title, "", *markdown_table(("", "noise", "n", "each run"), rows), ""]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, seed by seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--machine", required=True, help="in words: processor, cores, what else ran"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    runs = results.setdefault(arguments.task, [])
    done = {tuple(one[name] for name in NAMES) for one in runs}
    learn, algorithms = TASKS[arguments.task]
    for seed, *cell in itertools.product(range(arguments.seeds), algorithms, AGENTS, HORIZONS):
        if (*cell, seed) in done:
            continue
        result = dict(zip(NAMES, (*cell, seed), strict=True)) | learn(*cell, seed)
        print(json.dumps(result, ensure_ascii=False), flush=True)
        runs.append({**result, **run.context(tianshou, arguments.machine)})
        runs.sort(key=lambda one: tuple(one[name] for name in NAMES))
        write_json(KEPT, results)
        KEPT.with_suffix(".md").write_text(tables(results))


if __name__ == "__main__":
    main()
