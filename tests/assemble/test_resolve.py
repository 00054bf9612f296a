"""When the choices that a config leaves open are made, and a graph that is asked for is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noisynet.assemble import assembler, resume, start
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
