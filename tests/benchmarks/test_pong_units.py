"""What is counted of Pong's units: a CNN that sees, and one that is dead."""

import importlib
import json
from typing import Any

import torch
from torch import nn

from noisynet.runs import config

pong_units: Any = importlib.import_module("pong_units")


def test_a_dead_cnn_has_no_unit_alive_and_one_value_for_all() -> None:
    agent = pong_units.agent_of(config.load("pong", {"head_hidden": 16}))
    seen = torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8)
    figures = pong_units.units(agent, seen)
    assert 0.2 < figures["alive"] < 0.8
    assert figures["feature_deviation"] > 0
    assert figures["q_deviation"] > 1e-3
    last = [one for one in agent.online.torso.convolutions if isinstance(one, nn.Conv2d)][-1]
    with torch.no_grad():
        last.bias -= 100.0
    dead = pong_units.units(agent, seen)
    assert (dead["alive"], dead["feature_deviation"], dead["q_deviation"]) == (0, 0, 0)


def test_the_page_of_earlier_runs_has_the_shares_that_were_measured() -> None:
    kept = json.loads(pong_units.FILE.read_text())
    page = pong_units.FILE.with_name("README.md").read_text()
    for epsilon in ("1e-8", "1.5e-4"):
        for seed in (1, 2, 3):
            figures = kept[f"starts/adam-epsilon-{epsilon}-seed{seed}"]
            row = next(one for one in page.splitlines() if one.startswith(f"| {seed} | {epsilon} "))
            assert f"| {figures['updates']:,} " in row
            assert f"| {100 * figures['alive']:.0f} % |" in row
            assert ("dead" in row) == (figures["q_deviation"] < 1e-4)
