"""Runs that no memory holds are refused in one line, before they are built."""

from pathlib import Path

import pytest

from noisynet.assemble import memory_check, start
from noisynet.runs import RunError, config


def test_frames_that_no_memory_holds_are_refused_with_their_size(tmp_path: Path) -> None:
    # (2 · 8 environments + 2 · 64 of a batch) stacks of 4 × 4000 × 40000 bytes.
    chosen = config.load("pong", {"frame_height": 4000, "frame_width": 40_000})
    with pytest.raises(RunError, match=r"got 4 × 4000 × 40000, which takes 92\.2 GB"):
        start(chosen, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_no_memory_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 4 bytes, μ and σ, online, target and two moments, of (4 + 2) · 2000 weights: 384 kB.
    chosen = config.load("cartpole", {"head_hidden": 2000, "steps": 1000})
    monkeypatch.setattr(memory_check, "free_memory", lambda: 300_000)
    with pytest.raises(RunError, match=r"--head-hidden 2,000, which takes 0\.0 GB"):
        start(chosen, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_where_the_system_does_not_say_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_check, "free_memory", lambda: None)
    memory_check.check_frames(config.load("pong", {"frame_height": 2**30, "frame_width": 2**30}))
