"""Run folders to report on: trained ones, small, and written ones, of any length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noisynet.runs import RunFolder, config
from noisynet.training import start

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


Write = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> Write:
    """Write a run's config and metrics as training does, with returns that are known."""

    def write(
        name: str,
        returns: list[float],
        *,
        preset: str = "cartpole",
        every: int = 100,
        after: str = "",
        **fields: Any,
    ) -> Path:
        chosen = config.load(preset, {**SMALL, "steps": 10_000, **fields})
        path = tmp_path / name
        with RunFolder.create(path, chosen.to_yaml()):
            lines = []
            for number, one in enumerate(returns, start=1):
                last = returns[max(number - chosen.training.solved_games, 0) : number]
                lines.append(
                    {
                        "step": number * every,
                        "game/number": number,
                        "game/return": one,
                        "game/mean_return": sum(last) / len(last),
                        "time/elapsed": number * 1.5,
                    }
                )
            text = "".join(json.dumps(line) + "\n" for line in lines) + after
            (path / "metrics.jsonl").write_text(text)
        return path

    return write
