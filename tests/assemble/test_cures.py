"""Cures that cannot treat a run's network: refused in one line before the run begins."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisynet.agents import revival
from noisynet.assemble import make_environments, own_objects, resume, start
from noisynet.assemble.cures import check_cures
from noisynet.runs import Config, RunError, config

SMALL = {
    "device": "cpu", "precision": "float32", "threads": 1, "steps": 200, "warmup_steps": 100,
    "batch_size": 16, "replay_capacity": 600,
}  # fmt: skip


class Scale(nn.Module):
    """A module with a parameter of its own, whose initial values nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(16))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.gain


def scaled() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), Scale())


def without_activation() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 2))


def with_module(field: str, module: nn.Module, **cure: int) -> Config:
    return config.load("cartpole", {**SMALL, field: own_objects.name_of(module), **cure})


@pytest.mark.parametrize(
    ("field", "module", "cure", "said"),
    [
        ("torso", scaled(), "shrink_every", "shrink: got 'torso.body.2', a Scale: "),
        ("own_network", without_activation(), "redo_every", "net: got a OwnQNetwork without a "),
    ],
)
def test_a_cure_that_cannot_treat_the_network_is_refused_before_the_run(
    field: str, module: nn.Module, cure: str, said: str, tmp_path: Path
) -> None:
    option = "--" + cure.replace("_", "-")
    with pytest.raises(RunError) as caught:
        start(with_module(field, module, **{cure: 1000}), tmp_path / "run")
    expected = f"{option}: got 1000, expected 0 with this network: {said}"
    assert str(caught.value).startswith(expected)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_takes_no_such_cure_either(tmp_path: Path) -> None:
    start(with_module("torso", scaled()), tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(RunError, match=r"^--shrink-every: got 50, expected 0 with this network"):
        resume(tmp_path / "run", changes={"steps": 300, "shrink_every": 50})
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    changes = {"steps": 300, "redo_every": 50}
    assert resume(tmp_path / "run", changes=changes).reason == "steps"


@pytest.mark.parametrize("preset", ["cartpole", "pqn-cartpole", "cartpole-noisy-a2c"])
@pytest.mark.parametrize("field", ["redo_every", "shrink_every", "reset_every"])
def test_each_cure_of_each_agent_is_tried(
    preset: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"device": "cpu", "precision": "float32", "threads": 1, field: 1000}
    chosen = config.load(preset, given)

    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("not this one")

    with closing(make_environments(chosen)) as environments:
        check_cures(chosen, environments)
        monkeypatch.setattr(revival, "revive", refuse)
        option = "--" + field.replace("_", "-")
        with pytest.raises(RunError, match=f"^{option}: got 1000, .*: not this one$"):
            check_cures(chosen, environments)
