"""CartPole configs that train in a second or two."""

from typing import Any

from noisynet.runs import Config, config

SMALL = {
    "steps": 2000,
    "warmup_steps": 300,
    "checkpoint_every": 450,
    "log_every": 20,
    "replay_capacity": 1000,
    "batch_size": 32,
    "seed": 3,
}


def small_config(preset: str = "cartpole", **overrides: Any) -> Config:
    return config.load(preset, {**SMALL, **overrides})
