"""Run folders to report on: trained ones, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from noisynet.assemble import start
from noisynet.runs import config

SMALL = {
    "steps": 900,
    "warmup_steps": 200,
    "batch_size": 16,
    "log_every": 20,
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """CartPole by noise and by ε-greedy, trained for a second each."""
    root = tmp_path_factory.mktemp("trained")
    chosen = {"noise": "cartpole", "epsilon": "cartpole-epsilon"}
    return [
        start(config.load(preset, {**SMALL, "seed": 3}), root / name).folder
        for name, preset in chosen.items()
    ]
