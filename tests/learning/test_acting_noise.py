"""Does the acting noise change over a run, and differ between environments?"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from noisynet.agents import QLearning
from noisynet.assemble import start
from noisynet.layers import noisy_layers
from noisynet.runs import config


def test_the_acting_noise_changes_over_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    greedy = QLearning.greedy

    def watched(agent: QLearning, observation: Any) -> Any:
        layer = next(iter(noisy_layers(agent.online).values()))
        held = layer.noise_state.held
        assert held is not None
        seen.append(held.clone())
        return greedy(agent, observation)

    monkeypatch.setattr(QLearning, "greedy", watched)
    start(config.load("cartpole", {"steps": 2000, "seed": 0}), tmp_path / "run")
    assert len(seen) > 50
    assert all(not torch.equal(one, other) for one, other in pairwise(seen))
    # And no two environments act under the same noise.
    assert all(len({tuple(row.tolist()) for row in draw}) == len(draw) for draw in seen[:20])
