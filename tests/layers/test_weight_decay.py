"""Weight decay takes the noise away unless σ is left out of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

import noisynet

from .references import new_net

DECAY, RATE, STEPS = 0.5, 0.1, 4


def groups(net: nn.Module) -> list[dict[str, Any]]:
    """The parameter groups that docs/pytorch.md gives."""
    sigmas = noisynet.sigma_parameters(net)
    of_noise = {id(sigma) for sigma in sigmas}
    others = [p for p in net.parameters() if id(p) not in of_noise]
    return [{"params": others}, {"params": sigmas, "weight_decay": 0.0}]


def shrinking(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """By what factor each parameter shrinks when no gradient moves it."""
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for _ in range(STEPS):
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    return {
        name: float(p.detach().norm() / before[name].norm()) for name, p in net.named_parameters()
    }


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_two_groups_leave_sigma_alone(noise: str, kind: type[SGD | AdamW]) -> None:
    shrunk = (1 - RATE * DECAY) ** STEPS
    net = new_net(noise)
    before = noisynet.snr(net)
    found = shrinking(net, kind(groups(net), lr=RATE, weight_decay=DECAY))
    for name, factor in found.items():
        assert factor == pytest.approx(1.0 if name.endswith("_sigma") else shrunk, rel=1e-5)
    # The noise has become larger beside the means, not smaller with them.
    for name, ratio in noisynet.snr(net).items():
        assert ratio == pytest.approx(before[name] * shrunk, rel=1e-5)

    everything = new_net(noise)
    found = shrinking(everything, kind(everything.parameters(), lr=RATE, weight_decay=DECAY))
    assert list(found.values()) == pytest.approx([shrunk] * len(found), rel=1e-5)


def test_the_groups_hold_each_parameter_once(net: nn.Sequential) -> None:
    listed = [id(p) for group in groups(net) for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in net.parameters())
