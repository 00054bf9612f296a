"""Small runs that several tests look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noisynet.assemble import start
from noisynet.runs import Config, config
from noisynet.training import Outcome

SMALL = {
    "steps": 2000,
    "warmup_steps": 300,
    "checkpoint_every": 450,
    "log_every": 20,
    "replay_capacity": 1000,
    "batch_size": 32,
    "seed": 3,
}


@pytest.fixture
def small_config() -> Callable[..., Config]:
    """Build CartPole configs that train in a second or two."""

    def build(preset: str = "cartpole", **overrides: Any) -> Config:
        return config.load(preset, {**SMALL, **overrides})

    return build


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Train one small run to its end, without interruption."""
    folder: Path = tmp_path_factory.mktemp("finished") / "run"
    return start(config.load("cartpole", SMALL), folder)
