"""What is kept of Pong's runs, and how the units of their CNNs are counted."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from noisynet.runs import config

keep: Any = importlib.import_module("benchmarks.pong.keep")
units: Any = importlib.import_module("benchmarks.pong.units")


def test_a_dead_cnn_has_no_unit_alive_and_one_value_for_all() -> None:
    agent = units.agent_of(config.load("pong", {"head_hidden": 16}))
    seen = torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8)
    figures = units.units(agent, seen)
    assert 0.2 < figures["alive"] < 0.8
    assert figures["feature_deviation"] > 0
    assert figures["q_deviation"] > 1e-3
    last = [one for one in agent.online.torso.convolutions if isinstance(one, nn.Conv2d)][-1]
    with torch.no_grad():
        last.bias -= 100.0
    dead = units.units(agent, seen)
    assert (dead["alive"], dead["feature_deviation"], dead["q_deviation"]) == (0, 0, 0)


def test_the_page_of_earlier_runs_has_the_shares_that_were_measured() -> None:
    kept = json.loads(units.FILE.read_text())
    page = (units.FILE.parent / "earlier" / "README.md").read_text()
    for epsilon in ("1e-8", "1.5e-4"):
        for seed in (1, 2, 3):
            figures = kept[f"starts/adam-epsilon-{epsilon}-seed{seed}"]
            row = next(one for one in page.splitlines() if one.startswith(f"| {seed} | {epsilon} "))
            assert f"| {figures['updates']:,} " in row
            assert f"| {100 * figures['alive']:.0f} % |" in row
            assert ("dead" in row) == (figures["q_deviation"] < 1e-4)


@pytest.mark.parametrize("folder", ["", "fast", "actors"])
def test_a_summary_is_that_of_the_runs_beside_it(folder: str) -> None:
    path = keep.FOLDER / folder
    kept = json.loads((path / "summary.json").read_text())["runs"]
    assert [keep.summarise(run) for run in keep.read_kept(path)] == kept


def test_the_picture_can_be_drawn_again(tmp_path: Path) -> None:
    keep.plot(keep.read_kept(keep.FOLDER / "fast"), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluations_name_runs_that_are_kept() -> None:
    for folder in ("", "fast", "actors"):
        path = keep.FOLDER / folder
        for line in (path / "evaluations.jsonl").read_text().splitlines():
            one = json.loads(line)
            assert (path / f"{one['run']}.yaml").exists()
            assert one["mean"] == pytest.approx(sum(one["returns"]) / one["episodes"])


def test_the_dead_network_s_losses_are_those_of_its_run() -> None:
    earlier = keep.FOLDER / "earlier"
    lines = [json.loads(line) for line in (earlier / "runs.jsonl").read_text().splitlines()]
    (dead,) = [line for line in lines if line["run"].startswith("dead-network/")]
    records = [
        json.loads(line) for line in (earlier / f"{dead['run']}.jsonl").read_text().splitlines()
    ]
    games = [[one["step"], one["game/return"]] for one in records if "game/return" in one]
    assert dead["games"] == games
    assert json.loads(units.FILE.read_text())["dead-network"]["alive"] == 0
