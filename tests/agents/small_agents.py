"""Small value-based agents, batches for them, and one of their layers worked out slowly."""

from __future__ import annotations

from typing import Any

import numpy as np

from noisynet import Draw
from noisynet.agents import QLearning
from noisynet.assemble import build_agent
from noisynet.replay import Batch
from noisynet.runs import Config, config

SHAPE, ACTIONS, SIZE = (4,), 3, 16


def settings(**overrides: Any) -> Config:
    chosen = {"device": "cpu", "precision": "float32", "threads": 1, **overrides}
    return config.load("cartpole", chosen)


def built(chosen: Config, shape: tuple[int, ...] = SHAPE, actions: int = ACTIONS) -> QLearning:
    agent = build_agent(chosen, shape, actions)
    assert isinstance(agent, QLearning)
    return agent


def make_agent(**overrides: Any) -> QLearning:
    return built(settings(**overrides))


def make_batch(seed: int = 0, weighted: bool = False, size: int = SIZE) -> Batch[np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(seed))
    return Batch(
        observation_tm1=generator.normal(size=(size, *SHAPE)).astype(np.float32),
        action_tm1=generator.integers(ACTIONS, size=size),
        return_t=generator.normal(size=size).astype(np.float32),
        discount_t=np.where(generator.random(size) < 0.3, 0, 0.97).astype(np.float32),
        observation_t=generator.normal(size=(size, *SHAPE)).astype(np.float32),
        weights=generator.random(size).astype(np.float32) if weighted else None,
    )


def slow_layer(
    weights: dict[str, np.ndarray], noise: Draw | None, name: str, x: np.ndarray
) -> np.ndarray:
    """Apply one layer to one row in float64."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if noise is not None and f"{name}.weight_sigma" in weights:
        drawn: Any = noise.layer(name)
        outputs, inputs = (np.asarray(one, np.float64) for one in (drawn.output, drawn.input))
        weight = weight + weights[f"{name}.weight_sigma"] * np.outer(outputs, inputs)
        bias = bias + weights[f"{name}.bias_sigma"] * outputs
    return weight @ x.astype(np.float64) + bias
