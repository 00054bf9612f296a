"""Agents that are built from a config: the seed alone determines their weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from noisynet.assemble import build_agent
from noisynet.runs import config


def weights(seed: int) -> torch.Tensor:
    built = build_agent(
        config.load("dqn", {"seed": seed, "device": "cpu", "precision": "float32"}), (4, 84, 84), 6
    )
    return torch.cat([one.flatten() for one in built.network.parameters()])


def test_threads_that_build_at_once_get_the_weights_of_their_seeds() -> None:
    seeds = [1, 2] * 3
    expected = {seed: weights(seed) for seed in set(seeds)}
    with ThreadPoolExecutor(2) as pool:
        for seed, found in zip(seeds, pool.map(weights, seeds), strict=True):
            assert torch.equal(found, expected[seed])
