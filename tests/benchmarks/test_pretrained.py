"""A pretrained agent is made of a run: less of it, and the same actions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks import pretrained

from noisynet.assemble import start
from noisynet.evaluation.agent import TrainedAgent
from noisynet.runs import config, open_run

SMALL = {"steps": 500, "warmup_steps": 150, "batch_size": 16, "threads": 1, "device": "cpu"}


def test_it_holds_the_acting_network_and_acts_as_the_run(tmp_path: Path) -> None:
    run = open_run(start(config.load("cartpole", SMALL), tmp_path / "run").folder)
    pretrained.make(run, tmp_path / "agent", pretrained.command_of(run.config))
    made = open_run(tmp_path / "agent").trained()
    whole = run.trained()
    assert made.step == whole.step
    assert made.arrays.keys() == {name for name in whole.arrays if name.startswith("online.")}
    observation = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    acted, kept = (
        TrainedAgent.load(one).act(observation) for one in (run.path, tmp_path / "agent")
    )
    assert np.mean(acted == kept) > 0.98
    command = (tmp_path / "agent" / "command.txt").read_text()
    assert command == "noisynet train cartpole --batch-size 16 --warmup-steps 150 --steps 500\n"


def test_what_half_precision_cannot_hold_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"online\.a: beyond"):
        pretrained.acting_arrays({"online.a": np.array([1e6], np.float32)})
