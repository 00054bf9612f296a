"""One of several processes that train a noisy net together; test_distributed.py starts it."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import noisynet

RANKS, STEPS, SHARD, SEED = 2, 3, 8, 11


def new_net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(noisynet.NoisyLinear(3, 4), nn.Tanh(), noisynet.NoisyLinear(4, 2))


def batch(step: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(SHARD, 3, generator=generator)


def loss_of(net: nn.Module, x: Tensor) -> Tensor:
    return (net(x) - 1.0).square().mean()


def train(rank: int, policy: str) -> dict[str, Any]:
    """Train for a few steps, and say what was drawn and what came of it."""
    # Each rank builds another net: what they agree on afterwards, the wrapper has made equal.
    net = new_net(seed=rank)
    # The lines that docs/pytorch.md gives.
    seed = SEED if policy.startswith("same") else SEED + rank
    if policy == "same, fresh":
        torch.manual_seed(seed)
    else:
        noisynet.hold(net, generator=torch.Generator().manual_seed(1000 + rank))
    before = noisynet.held(net)
    ddp = DistributedDataParallel(net)
    wrapped = noisynet.held(net)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1, momentum=0.9)
    if policy != "same, fresh":
        noisynet.attach(optimizer, net, generator=torch.Generator().manual_seed(seed))
    parameters = [[p.detach().clone() for p in net.parameters()]]
    draws, gradients, states = [], [], []
    for step in range(STEPS):
        draws.append(noisynet.held(net))
        states.append(torch.get_rng_state())
        optimizer.zero_grad()
        loss_of(ddp, batch(step, rank)).backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
        optimizer.step()
        parameters.append([p.detach().clone() for p in net.parameters()])
    return {
        "before": before,
        "wrapped": wrapped,
        "draws": draws,
        "states": states,
        "gradients": gradients,
        "parameters": parameters,
    }


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=60),
    )
    told = {policy: train(rank, policy) for policy in ("same", "apart", "same, fresh")}
    torch.save(told, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
