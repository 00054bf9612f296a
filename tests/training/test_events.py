"""Training as an iterator: config in, events out."""

from __future__ import annotations

from pathlib import Path

from noisynet.assemble import resume, train
from noisynet.runs import checkpoint
from noisynet.runs.folder import RunFolder
from noisynet.training import GameFinished, TrainingEnded

from .small_runs import small_config


def test_events_come_while_training_goes_on(tmp_path: Path) -> None:
    chosen = small_config("cartpole")
    events = list(train(chosen, tmp_path / "run"))
    games = [event for event in events if isinstance(event, GameFinished)]
    assert [event.game for event in games] == list(range(1, len(games) + 1))
    assert isinstance(events[-1], TrainingEnded)
    assert events[-1].step >= chosen.training.steps


def test_a_loop_that_is_left_saves_the_run(tmp_path: Path) -> None:
    chosen = small_config("cartpole", checkpoint_every=100_000)
    for event in train(chosen, tmp_path / "run"):
        if isinstance(event, GameFinished) and event.game == 3:
            break
    found = checkpoint.read_newest(RunFolder.open(tmp_path / "run").checkpoints)
    assert found is not None
    assert found.step == event.step
    assert found.state["loop"]["games"] >= 3
    assert resume(tmp_path / "run").step >= chosen.training.steps
