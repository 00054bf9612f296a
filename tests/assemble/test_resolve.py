"""When the choices that a config leaves open are made, and a graph that is asked for is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from noisynet.assemble import assembler, make_environments, own_objects, resume, start
from noisynet.assemble.resolve import resolve
from noisynet.runs import RunError, config

CHOSEN = {
    "device": "cpu", "precision": "float32", "execution": "plain", "replay_device": "host",
    "steps": 200, "warmup_steps": 100, "batch_size": 16, "replay_capacity": 600, "threads": 1,
}  # fmt: skip


def test_a_config_without_an_open_choice_is_checked_at_the_start_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, `--execution graph` is an error where no graph can be captured."""

    def refuse(*_: Any) -> Any:
        raise RunError("--execution: got graph, which does not work here")

    chosen = config.load("cartpole", CHOSEN)
    with monkeypatch.context() as patched:
        patched.setattr(assembler, "resolve", refuse)
        with pytest.raises(RunError, match="--execution: got graph"):
            start(chosen, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    start(chosen, tmp_path / "run")
    monkeypatch.setattr(assembler, "resolve", refuse)
    assert resume(tmp_path / "run", changes={"steps": 300}).reason == "steps"


class UnitLength(nn.Module):
    """A torso that has no answer to an observation of zeros."""

    def forward(self, observation: Tensor) -> Tensor:
        return observation / observation.norm(dim=-1, keepdim=True)


class Undefined(nn.Module):
    """A torso that has no answer to any observation."""

    def forward(self, observation: Tensor) -> Tensor:
        return observation * np.nan


@pytest.mark.parametrize("preset", ["cartpole", "pqn-cartpole", "cartpole-noisy-a2c"])
@pytest.mark.parametrize("torso", [UnitLength, Undefined])
def test_a_precision_is_found_for_a_torso_that_some_observations_break(
    preset: str, torso: type[nn.Module]
) -> None:
    name = own_objects.name_of(torso())
    open_choice = {"device": "cpu", "precision": "auto", "threads": 1, "torso": name}
    chosen = config.load(preset, open_choice)
    told: list[str] = []
    environments = make_environments(chosen)
    precision = resolve(chosen, environments, told.append).training.precision
    environments.close()
    if torso is Undefined:
        assert precision == "float32"
        assert told[1] == (
            "precision is float32: with made-up observations, the loss became nan at update 1"
        )
    else:
        assert precision in ("float32", "bfloat16")
        assert len(told) == 1
