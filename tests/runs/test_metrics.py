"""Metrics: a line is valid JSON or is left out, and a resumed run reads as if never stopped."""

import json
import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from noisynet.runs import metrics
from noisynet.runs.errors import RunError
from noisynet.runs.metrics import MetricsWriter, newest_line, read_metrics


def in_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def test_a_line_holds_the_step_and_every_figure(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(
            4,
            {
                "episode/reward": -21.0,
                "snr/advantage.0": 0.1,
                "games": 1,
                "phase": "σ",
                "eta": None,
            },
        )
        # Readable at once, before any commit.
        assert (tmp_path / "metrics.jsonl").read_text() == (
            '{"step": 4, "episode/reward": -21.0, "snr/advantage.0": 0.1, "games": 1, '
            '"phase": "\\u03c3", "eta": null}\n'
        )
        assert in_tensorboard(tmp_path) == {
            "episode/reward": [(4, -21.0)],
            "noise/snr/advantage.0": [(4, pytest.approx(0.1))],
            "learning/games": [(4, 1.0)],
        }


def test_nan_and_infinity_are_null_in_json_and_themselves_in_tensorboard(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"a": math.nan, "b": math.inf, "c": np.float32("-inf"), "d": 1e300})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "a": null, "b": null, "c": null, "d": 1e+300}\n'
    )
    shown = in_tensorboard(tmp_path)
    assert math.isnan(shown["learning/a"][0][1])
    assert shown["learning/b"] == [(1, math.inf)]
    assert shown["learning/c"] == [(1, -math.inf)]


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"a": np.float32(0.5), "b": np.int64(3), "c": np.float64(0.1)})
    assert list(read_metrics(tmp_path)) == [{"step": 1, "a": 0.5, "b": 3, "c": 0.1}]


@given(
    records=st.lists(
        st.dictionaries(
            st.text().filter(lambda tag: tag != "step"),
            st.none() | st.text() | st.integers(-(2**63), 2**63) | st.floats(),
            max_size=4,
        ),
        max_size=6,
    )
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, float | int | str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with MetricsWriter(folder) as writer:
        for step, record in enumerate(records):
            writer.write(step, record)
        assert writer.commit() == (folder / "metrics.jsonl").stat().st_size
    expected = [
        {"step": step}
        | {t: None if isinstance(v, float) and not math.isfinite(v) else v for t, v in r.items()}
        for step, r in enumerate(records)
    ]
    reader = read_metrics(folder)
    assert list(reader) == expected
    assert reader.damaged == 0


def test_what_is_no_figure_is_refused_by_name(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        with pytest.raises(TypeError, match=r"scalars\['loss'\]: takes a number.* got ndarray"):
            writer.write(1, {"loss": np.zeros(2)})  # type: ignore[dict-item]
        with pytest.raises(ValueError, match="'step' is the line's own"):
            writer.write(1, {"step": 2})
        with pytest.raises(ValueError, match="step takes a whole number"):
            writer.write(-1, {})
        assert writer.commit() == 0


def test_a_resumed_run_reads_as_if_never_stopped(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        for step in (100, 200, 300):
            writer.write(step, {"loss": step / 1000, "epoch": "one"})
        committed = writer.commit()
        # After the checkpoint at step 300: the dead run's own figures, a last line half written.
        for step in (300, 400, 500):
            writer.write(step, {"loss": -1.0, "ghost": 1})
    with (tmp_path / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"step": 600, "lo')

    with MetricsWriter(tmp_path, resume_at=300, committed_bytes=committed) as writer:
        writer.write(450, {"loss": 0.45})
        later = writer.commit()
    expected = [(100, 0.1), (200, 0.2), (300, 0.3), (450, 0.45)]
    reader = read_metrics(tmp_path)
    assert [(record["step"], record["loss"]) for record in reader] == expected
    assert reader.damaged == 0
    shown = in_tensorboard(tmp_path)
    assert shown["loss/loss"] == [(step, pytest.approx(loss)) for step, loss in expected]
    assert shown.get("learning/ghost", []) == []

    # A second resume, in the same second, reads after the first.
    with MetricsWriter(tmp_path, resume_at=450, committed_bytes=later) as writer:
        writer.write(460, {"loss": 0.46})
    assert in_tensorboard(tmp_path)["loss/loss"] == [
        (step, pytest.approx(loss)) for step, loss in [*expected, (460, 0.46)]
    ]


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(0, {"loss": 1.0})
        writer.write(10, {"loss": 1.0})
    with MetricsWriter(tmp_path, resume_at=0, committed_bytes=0) as writer:
        writer.write(0, {"loss": 2.0})
    assert list(read_metrics(tmp_path)) == [{"step": 0, "loss": 2.0}]
    assert in_tensorboard(tmp_path)["loss/loss"] == [(0, 2.0)]


def test_what_does_not_fit_a_checkpoint_is_left_as_it_is(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"a": 1})
        committed = writer.commit()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=f"no line ends at byte {committed - 1}"):
        MetricsWriter(tmp_path, resume_at=1, committed_bytes=committed - 1)
    with pytest.raises(RunError, match=f"holds {committed} bytes; a new run"):
        MetricsWriter(tmp_path)
    with pytest.raises(ValueError, match="come together"):
        MetricsWriter(tmp_path, resume_at=1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    (tmp_path / "metrics.jsonl").write_bytes(before[:-1] + b" ")  # as long, and damaged
    with pytest.raises(RunError, match=f"no line ends at byte {committed}"):
        MetricsWriter(tmp_path, resume_at=1, committed_bytes=committed)


@pytest.mark.parametrize("left", ["nothing", "no bytes", "zeros", "a line", "a line and a half"])
def test_a_run_goes_on_after_the_figures_that_are_left(tmp_path: Path, left: str) -> None:
    file = tmp_path / "metrics.jsonl"
    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"a": step})
        committed = writer.commit()
    first = file.read_bytes().index(b"\n") + 1
    parts = {"no bytes": b"", "zeros": bytes(committed - 1), "a line": file.read_bytes()[:first]}
    file.write_bytes(parts.get(left, file.read_bytes()[: first + 5]))
    if left == "nothing":
        file.unlink()
    kept = first if "line" in left else 0
    with MetricsWriter(tmp_path, resume_at=3, committed_bytes=committed) as writer:
        assert writer.lost == committed - kept
        writer.write(4, {"a": 4})
        again = writer.commit()
    assert [line["step"] for line in read_metrics(tmp_path)] == ([1, 4] if kept else [4])
    with MetricsWriter(tmp_path, resume_at=4, committed_bytes=again) as writer:
        assert writer.lost == 0


def test_damaged_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1}\n'
        b'{"step": 2, "a"\n'
        b"\n"
        b"[1]\n"
        b'{"a": 1}\n'
        b'{"step": "4"}\n'
        b'{"step": 5, "a": NaN}\n'
        b'{"step": 6, "a": "\xff"}\n' + b"\x00" * (3 << 20) + b"\n" + b"[" * 100_000 + b"\n"
        b'{"step": 1e400}\n'
        b'{"step": -1}\n'
        b'{"step": 7, "a": 1e400}\n'
        b'{"step": 7, "a": -1' + b"0" * 400 + b"}\n"
        b'{"step": 1' + b"0" * 400 + b"}\n"
        b'{"step": 7, "a": 1' + b"0" * 5000 + b"}\n"
        b'{"step": 9, "a": 1}\n'
        b'{"step": 10'
    )
    reader = read_metrics(tmp_path)
    for _ in range(2):
        assert list(reader) == [{"step": 1}, {"step": 9, "a": 1}]
        assert reader.damaged == 16
    assert newest_line(tmp_path) == {"step": 9, "a": 1}


def test_the_newest_line_may_hold_figures_of_many_environments(tmp_path: Path) -> None:
    line = {"step": 9} | {f"noise/effective_epsilon/env_{one}": 0.123456789 for one in range(1024)}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + json.dumps(line) + "\n" + '{"st')
    assert newest_line(tmp_path) == line


def test_reading_takes_no_more_memory_for_a_longer_file(tmp_path: Path) -> None:
    line = b'{"step": 1, "episode/reward": -21.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(line * 50_000 + b"\x00" * (8 << 20))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_metrics(tmp_path)) == 50_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


def test_a_missing_file_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read: No such file"):
        list(read_metrics(tmp_path))
    with pytest.raises(RunError, match="cannot be written: No such file"):
        MetricsWriter(tmp_path / "missing")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"a": 1})

        def full(descriptor: int, content: bytes) -> int:
            if len(content) < 8:
                raise OSError(28, "No space left on device")
            return real_write(descriptor, content[:8])

        with monkeypatch.context() as patch:
            patch.setattr(metrics.os, "write", full)
            with pytest.raises(RunError, match="cannot be written: No space left on device"):
                writer.write(2, {"a": 2})
        writer.write(3, {"a": 3})
        assert writer.commit() == (tmp_path / "metrics.jsonl").stat().st_size
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3]


def test_a_link_is_not_written_through_and_a_fifo_not_waited_for(tmp_path: Path) -> None:
    file, theirs = tmp_path / "metrics.jsonl", tmp_path / "thesis.txt"
    theirs.touch()
    file.symlink_to(theirs)
    with pytest.raises(RunError, match="cannot be written: it is a link"):
        MetricsWriter(tmp_path)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(RunError, match="cannot be written: it is no regular file"):
        MetricsWriter(tmp_path)
    with pytest.raises(RunError, match="cannot be read: it is no regular file"):
        list(read_metrics(tmp_path))
    assert newest_line(tmp_path) is None
