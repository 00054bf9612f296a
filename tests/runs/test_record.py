"""What a run recorded: its state, damaged lines, figures, and the runs under a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from noisynet.runs import RunError, RunFolder, checkpoint
from noisynet.runs.record import find_runs, named_apart, read_run


def test_a_damaged_line_is_skipped_and_counted(write_run) -> None:
    path = write_run(
        "hurt", [1.0, 2.0], after='{"step": 30\x00\nnot JSON\n{"step": 500, "loss": 1}\n'
    )
    run = read_run(path)
    assert (run.damaged, run.games, run.step, run.mean_return) == (2, 2, 500, 1.5)


def test_a_run_still_being_written_is_no_damaged_one(write_run) -> None:
    path = write_run("live", [1.0, 2.0], after='{"step": 300, "game/ret')
    assert read_run(path).damaged == 1
    with RunFolder.open(path) as folder:
        folder.lock()
        run = read_run(path)
        assert (run.state, run.damaged, run.games) == ("running", 0, 2)
        folder.close()
        folder.lock()  # reading did not stand in the writer's way
    assert read_run(path).state == "stopped"


def test_states(write_run) -> None:
    assert read_run(write_run("new", [])).state == "new"
    assert read_run(write_run("stopped", [1.0], every=9_999)).state == "stopped"
    assert read_run(write_run("finished", [1.0], every=10_000)).state == "finished"
    solved = write_run("solved", [20.0] * 5, solved_return=18.0, solved_games=5)
    assert read_run(solved).state == "solved"
    checkpoint.write_inspection(solved / "checkpoints", 500, {}, {})
    assert read_run(solved).state == "diverged"


def test_a_checkpoint_beyond_the_last_line_is_the_step(write_run) -> None:
    path = write_run("run", [1.0])
    checkpoint.write(path / "checkpoints", 150, {"a": np.zeros(1)}, {})
    assert read_run(path).step == 150


def test_the_mean_return_at_a_step_is_exact_where_its_curve_is_thinned(write_run) -> None:
    run = read_run(write_run("long", [float(one) for one in range(2_000)], solved_games=1, every=5))
    assert len(run.curves["game/mean_return"].step) < 300
    assert run.mean_return_at(4) is None
    assert [run.mean_return_at(step) for step in (5, 4_999, 5_000, 1e9)] == [0, 998, 999, 1_999]


def test_runs_of_one_name_are_told_apart_by_the_folders_above(write_run) -> None:
    names = ["a/x/seed1", "b/x/seed1", "b/x/seed2", "b/y/seed2", "alone"]
    runs = named_apart([read_run(write_run(name, [1.0], after="half\n")) for name in names])
    assert [run.name for run in runs] == ["a/x/seed1", "b/x/seed1", "x/seed2", "y/seed2", "alone"]
    assert runs[0].notes() == ["a/x/seed1: 1 damaged line of metrics.jsonl skipped"]


def test_runs_are_found_at_any_depth(write_run, tmp_path: Path) -> None:
    write_run("deep", [1.0]).rename(tmp_path / "moved")
    place = tmp_path / "one" / "two"
    place.mkdir(parents=True)
    (tmp_path / "moved").rename(place / "deep")
    assert find_runs(tmp_path) == [place / "deep"]
    shutil.rmtree(place / "deep" / "checkpoints")  # as in a copy for reports
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "back").symlink_to(tmp_path)
    (tmp_path / "links" / "best").symlink_to(place / "deep")
    assert find_runs(tmp_path / "one") == [place / "deep"]
    assert find_runs(tmp_path / "links" / "best") == [tmp_path / "links" / "best"]
    assert len(find_runs(tmp_path)) == 1
    with pytest.raises(RunError, match="no such folder"):
        find_runs(tmp_path / "missing")
