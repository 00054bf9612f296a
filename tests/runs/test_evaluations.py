"""What a run keeps of its evaluations, and what is read of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from noisynet.runs.evaluations import (
    FILE_NAME,
    Evaluation,
    keep_evaluation,
    newest_by_noise,
    read_evaluations,
)


def result(step: int, noise: str, *returns: float) -> dict[str, object]:
    return {"step": step, "noise": noise, "returns": list(returns), "mean": 0.0}


def test_the_newest_of_the_most_games_is_read_for_each_step_and_noise(tmp_path: Path) -> None:
    assert read_evaluations(tmp_path) == []
    for one in (
        result(10, "off", 1.0, 2.0),
        result(10, "on", 3.0),
        result(20, "off", 4.0),
        result(10, "off", 5.0, 7.0),
        result(10, "off", 100.0),
    ):
        keep_evaluation(tmp_path, one)
    found = read_evaluations(tmp_path)
    assert found == [
        Evaluation(10, "on", (3.0,)),
        Evaluation(20, "off", (4.0,)),
        Evaluation(10, "off", (5.0, 7.0)),
    ]
    assert found[-1].mean == 6.0


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    keep_evaluation(tmp_path, result(10, "on", 3.0))
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"step": 1}\n[]\nnull\n\xff\n{"step": "a", "noise": "on", "returns": [1]}\n')
        file.write(b'{"step": 5, "noise": "on", "returns": []}\n')
        file.write(b'{"step": 5, "noise": "on", "returns": [NaN]}\n{"step": 7, "noi')
    assert read_evaluations(tmp_path) == [Evaluation(10, "on", (3.0,))]
    # What a kill or a full disk has left spoils nothing that comes after it.
    keep_evaluation(tmp_path, result(20, "off", 4.0))
    assert read_evaluations(tmp_path)[1:] == [Evaluation(20, "off", (4.0,))]


def test_a_number_that_no_float_holds_is_damage(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(f'{{"step": 5, "noise": "on", "returns": [1{"0" * 400}]}}\n')
    assert read_evaluations(tmp_path) == []


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    keep_evaluation(tmp_path, result(10, "on", 3.0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:8]))
        with pytest.raises(OSError, match="No space left on device"):
            keep_evaluation(tmp_path, result(10, "off", 3.0))
    keep_evaluation(tmp_path, result(20, "off", 4.0))
    assert [one.step for one in read_evaluations(tmp_path)] == [10, 20]


def test_a_link_is_not_written_through_and_a_fifo_not_waited_for(tmp_path: Path) -> None:
    file, theirs = tmp_path / FILE_NAME, tmp_path / "thesis.txt"
    theirs.touch()
    file.symlink_to(theirs)
    with pytest.raises(OSError, match="it is a link"):
        keep_evaluation(tmp_path, result(10, "on", 3.0))
    assert theirs.read_bytes() == b""
    file.unlink()
    os.mkfifo(file)
    assert read_evaluations(tmp_path) == []


def test_the_newest_step_that_was_played_in_several_ways() -> None:
    only = Evaluation(30, "off", (9.0,))
    kinds = [Evaluation(20, noise, (1.0,)) for noise in ("mean:16", "mean:8", "on", "off")]
    older = [Evaluation(10, "off", (1.0,)), Evaluation(10, "on", (1.0,))]
    assert newest_by_noise([only]) == {}
    assert list(newest_by_noise([*kinds, *older, only])) == ["off", "on", "mean:16", "mean:8"]
