"""Measure what makes an update of `pqn-pong` cheaper, one choice at a time, on one thread.

    python -m benchmarks.training.pqn_parts --machine "…"

Each comparison has medians in microseconds per sample (or step), taken in turns:

- the first layer of its CNN, forward and backward, as a product over patches and as a convolution;
- an update with freed memory kept and given back, and with Adam and RAdam;
- forward and backward as they are and by `torch.compile`, where a C++ compiler is present;
- the targets of a rollout with and without the values of the acting pass.

It also measures the floor of an update (floor.py), for `pong-fast` too.

Writes pqn_parts.json under results/training.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

import noisynet
from noisynet.agents import ParallelQLearning, losses
from noisynet.agents.optimizers import autocast_for
from noisynet.assemble import build_agent
from noisynet.assemble.allocator import keep_freed_memory
from noisynet.runs import config

from ..provenance import RESULTS, provenance, write_json
from .floor import floor
from .made_up import ACTIONS, SHAPE, made_up_rollout

ROUNDS = 15


def in_turns(what: dict[str, Callable[[], object]], samples: int) -> dict[str, float]:
    """Return the median time of each call in microseconds per sample; the calls take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in what}
    for number in range(ROUNDS + 3):
        for name, call in what.items():
            began = time.perf_counter()
            call()
            if number >= 3:  # caches and allocators are warm by then
                seconds[name].append(time.perf_counter() - began)
    return {name: round(1e6 * statistics.median(one) / samples, 1) for name, one in seconds.items()}


def first_layer(dtype: torch.dtype) -> dict[str, float]:
    """Time 32 filters of 7 × 7 over 84 × 84 pixels of four frames, forward and backward."""
    frames = torch.randn(64, 84, 84, 4).to(dtype).permute(0, 3, 1, 2)  # channels last
    patches = torch.randn(64, 144, 196).to(dtype)
    weight = torch.randn(32, 4, 7, 7).to(dtype).contiguous(memory_format=torch.channels_last)
    weight.requires_grad_()
    flat = weight.detach().flatten(1).requires_grad_()
    return in_turns(
        {
            "product": lambda: functional.linear(patches, flat).sum().backward(),
            "convolution": lambda: functional.conv2d(frames, weight, stride=7).sum().backward(),
        },
        64,
    )


def agent_of(**changes: Any) -> tuple[ParallelQLearning, Callable[[], None]]:
    """Build an agent of `pqn-pong`, and a function that makes its next update."""
    chosen = config.load("pqn-pong", {"device": "cpu", "precision": "bfloat16", **changes})
    agent = build_agent(chosen, SHAPE, ACTIONS)
    assert isinstance(agent, ParallelQLearning), "pqn-pong learns from rollouts"
    rollout = made_up_rollout(chosen)

    def update() -> None:
        if not agent.updates_left:
            agent.begin(rollout)
        agent.update()

    update()
    return agent, update


def updates() -> dict[str, float]:
    """Time updates of 64 samples with either optimizer."""
    return in_turns({name: agent_of(optimizer=name)[1] for name in ("adam", "radam")}, 64)


def compiled(samples: int = 64) -> dict[str, float]:
    """Time loss and backward as they are and compiled, and the first call, which compiles."""
    agent, _ = agent_of()
    network = noisynet.denoise(copy.deepcopy(agent.network))
    frames = torch.randint(0, 256, (samples, *SHAPE), dtype=torch.uint8)
    with autocast_for(agent.precision, agent.device):
        prepared = agent.network.torso.prepare(frames)
    action, target = torch.randint(ACTIONS, (samples,)), torch.randn(samples)

    def loss(prepared: torch.Tensor) -> torch.Tensor:
        with autocast_for(agent.precision, agent.device):
            q = network(prepared)
        return losses.squared(losses.td_error(q, action, target)).mean()

    began = time.perf_counter()
    by_compiler: Callable[[torch.Tensor], torch.Tensor] = torch.compile(loss, fullgraph=True)
    by_compiler(prepared).backward()
    seconds = time.perf_counter() - began
    times = in_turns(
        {
            "as it is": lambda: loss(prepared).backward(),
            "compiled": lambda: by_compiler(prepared).backward(),
        },
        samples,
    )
    return times | {"seconds to compile": round(seconds, 1)}


def targets() -> dict[str, float]:
    """Time the computation of a rollout's targets, per step of one environment."""
    chosen = config.load("pqn-pong")
    agent, _ = agent_of()
    rollout = made_up_rollout(chosen)
    passes = []
    for observation, first in zip(rollout.observation[:-1], rollout.first[:-1], strict=True):
        agent.act(observation, 0, first)
        assert agent.acting_pass is not None, "it has just acted"
        passes.append(agent.acting_pass)
    return in_turns(
        {
            "acting pass known": lambda: agent.begin(rollout, passes),
            "computed again": lambda: agent.begin(rollout),
        },
        rollout.action_t.size,
    )


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", default="not said")
    parser.add_argument("--updates-only", action="store_true", help="print the updates' times")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.updates_only:
        print(updates()["adam"])
        return
    # Whether freed memory is kept is a setting of the whole process.
    command = [sys.executable, "-m", "benchmarks.training.pqn_parts", "--updates-only"]
    given_back = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    keep_freed_memory()
    result = {
        **provenance(arguments.machine),
        "first_layer_float32": first_layer(torch.float32),
        "first_layer_bfloat16": first_layer(torch.bfloat16),
        "update": updates(),
        "update_with_memory_given_back": given_back,
        "forward_and_backward": compiled() if shutil.which("c++") else "no C++ compiler is present",
        "targets_of_a_step": targets(),
        "floor": [
            floor(precision, 1, agent)
            for agent in ("PQN", "pong-fast")
            for precision in ("float32", "bfloat16")
        ],
    }
    write_json(RESULTS / "training" / "pqn_parts.json", result)
    print(result)


if __name__ == "__main__":
    main()
