"""The benchmark of training loops: its floor, its ratios and its table."""

import importlib
import json
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

training: Any = importlib.import_module("benchmarks.training.run")
contenders: Any = importlib.import_module("benchmarks.training.contenders")
floor: Any = importlib.import_module("benchmarks.training.floor")


def test_the_floor_counts_the_multiply_adds_of_an_update() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 32, 8, 4), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 4, 2),
        torch.nn.ReLU(), torch.nn.Conv2d(64, 64, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(3136, 512), torch.nn.ReLU(), torch.nn.Linear(512, floor.ACTIONS),
    )  # fmt: skip
    batch = torch.zeros(floor.BATCH, 4, 84, 84)
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            network(batch)  # the target network
        network(batch).sum().backward()
    # A multiply-add is two operations.
    assert counter.get_total_flops() == 2 * floor.multiply_adds()


def test_an_update_takes_longer_than_its_floor() -> None:
    found = floor.floor("float32", threads=1)
    share = found["share"]
    assert isinstance(share, float)
    assert 0 < share < 1
    assert found["update_ms"] == pytest.approx(found["floor_ms"] / share)


def results() -> dict[str, Any]:
    def rounds(*steps: float) -> list[dict[str, float]]:
        return [{"steps": one, "updates": one / 4, "samples": 8 * one} for one in steps]

    return {
        "noisynet, 1 environment": {
            "rounds": rounds(200, 400, 300), "peak_mb": 700, "parts": {"learning": 0.75},
            "precision": "bfloat16",
        },
        "SB3, 1 environment": {"rounds": rounds(50, 50, 100), "peak_mb": 900},
    }  # fmt: skip


def test_ratios_are_taken_round_by_round() -> None:
    assert training.ratios(results(), "noisynet, 1 environment", "SB3, 1 environment") == [4, 8, 3]


def test_the_table_shows_medians_and_targets() -> None:
    measured = {
        "precision": "float32", "threads": 2, "batch": 32, "gmacs_per_second": 100.0,
        "update_ms": 20.0, "floor_ms": 10.0, "share": 0.5,
    }  # fmt: skip
    table = training.markdown({"results": results(), "floor": [measured]})
    assert "| noisynet, 1 environment | bfloat16 | 300 | 75.0 | 2400 | 700 | 4.00 | 4 |" in table
    assert "learning 75.0%" in table
    assert "eight environments" not in table
    assert table.rstrip().endswith("take 10.0 ms: 50%.")


def test_every_comparison_has_its_reference_and_its_targets() -> None:
    for work, (reference, targets) in training.COMPARISONS.items():
        for name in (reference, *targets):
            assert contenders.CONTENDERS[name].work == work


@pytest.mark.parametrize(("module", "file"), [("run", "cpu"), ("growth", "growth")])
def test_the_kept_tables_are_those_of_the_figures(module: str, file: str) -> None:
    script: Any = importlib.import_module(f"benchmarks.training.{module}")
    kept = script.FOLDER / f"{file}.json"
    assert kept.with_suffix(".md").read_text() == script.markdown(json.loads(kept.read_text()))
