"""Checkpoints: what comes back, and what a kill, a full disk or a bad block leave behind."""

import errno
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noisynet.runs import checkpoint
from noisynet.runs.checkpoint import DamagedCheckpoint
from noisynet.runs.errors import NewerFormat, RunError

ARRAYS = {"online.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "count": np.array(7)}

# A child process imports this room alone: noisynet itself imports torch, which takes seconds.
SOURCE = Path(checkpoint.__file__).parents[1]
ALONE = f"""
import sys, types
noisynet = types.ModuleType("noisynet")
noisynet.__path__ = [{str(SOURCE)!r}]
sys.modules["noisynet"] = noisynet
from pathlib import Path
from typing import Any
import numpy as np
from noisynet.runs import checkpoint
"""


def same_bits(one: object, other: object) -> bool:
    """Equal in type and value, where NaN equals NaN and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_bits(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_bits, one, other))
    if isinstance(one, float) and one == one:
        return struct.pack("d", one) == struct.pack("d", other)
    return one == other or (one != one and other != other)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**1999), max_value=2**1999)
    | st.floats()
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(state=st.dictionaries(st.text(), json_values, max_size=5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_state_comes_back_equal(tmp_path: Path, state: dict[str, object]) -> None:
    path = checkpoint.write(tmp_path, 5, {}, state)
    assert same_bits(checkpoint.read(path).state, state)


def test_a_numpy_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    path = checkpoint.write(tmp_path, 1, {}, {"generator": generator.bit_generator.state})
    expected = generator.random(4)
    other = np.random.default_rng(99)
    other.bit_generator.state = checkpoint.read(path).state["generator"]
    assert np.array_equal(other.random(4), expected)


@pytest.mark.parametrize("kind", checkpoint._KINDS)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_come_back_with_kind_and_shape(
    tmp_path: Path, kind: str, shape: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).integers(0, 2, size=shape).astype(kind)
    got = checkpoint.read(checkpoint.write(tmp_path, 0, {"a": array}, {})).arrays["a"]
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert np.array_equal(got, array)
    assert got.flags.writeable


def test_views_and_foreign_byte_order_come_back_in_order(tmp_path: Path) -> None:
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    arrays = {"turned": grid.T, "strided": grid[::2, ::-1], "big": grid.astype(">f4")}
    got = checkpoint.read(checkpoint.write(tmp_path, 0, arrays, {})).arrays
    for name, array in arrays.items():
        assert np.array_equal(got[name], array), name


def test_arrays_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    arrays = {name: np.zeros(2) for name in "hbecadfg"}
    got = checkpoint.read(checkpoint.write(tmp_path, 0, arrays, {})).arrays
    assert list(got) == sorted(arrays)


@pytest.mark.parametrize("kind", ["complex128", "U3", "O", "datetime64[s]"])
def test_a_kind_that_cannot_be_stored_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(TypeError, match=r"arrays\['net\.weight'\]: takes .*; got"):
        checkpoint.write(tmp_path, 0, {"net.weight": np.zeros(2, dtype=kind)}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [{"b": (1, 2)}]}, r"state\['a'\]\[0\]\['b'\]: takes .* got tuple"),
        ({"a": np.float32(1)}, r"state\['a'\]: takes .* got float32"),
        ({"a": [2**2000]}, r"state\['a'\]\[0\]: takes integers of at most 2000 bits"),
        ({"a": {3: 4}}, r"state\['a'\]: a key is text, got 3"),
        ({"a": {"__float__": 4}}, r"state\['a'\]: the key '__float__' is reserved"),
    ],
)
def test_state_that_would_come_back_different_is_refused(
    tmp_path: Path, state: dict[str, object], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        checkpoint.write(tmp_path, 0, ARRAYS, state)


@pytest.mark.parametrize("step", [-1, True, 1.0])
def test_a_step_is_a_whole_number(tmp_path: Path, step: int) -> None:
    with pytest.raises(ValueError, match="step takes a whole number"):
        checkpoint.write(tmp_path, step, ARRAYS, {})


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "missing") is None
    checkpoint.begin(tmp_path)  # its mark goes with the first one
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.read_newest(tmp_path) is None
    assert checkpoint.newest_step(tmp_path) is None
    for step in (12_000, 999_999_999, 1_000_000_000):
        path = checkpoint.write(tmp_path, step, ARRAYS, {"step": step})
        assert checkpoint.newest(tmp_path) == path
        assert checkpoint.newest_step(tmp_path) == step
        assert [p.name for p in tmp_path.iterdir()] == [f"step_{step:09d}"]
        found = checkpoint.read_newest(tmp_path)
        assert found is not None
        assert found.step == step
        assert found.state == {"step": step}


def test_what_is_no_checkpoint_stands_in_no_ones_way(tmp_path: Path) -> None:
    theirs = tmp_path / "thesis"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    folder = tmp_path / "checkpoints"
    (folder / "step_999999999").mkdir(parents=True)
    (folder / "tmp_step_000000001").symlink_to(theirs)
    (folder / "tmp_file").touch()
    assert checkpoint.newest(folder) is None
    for step in (1, 2):
        checkpoint.write(folder, step, ARRAYS, {})
        assert checkpoint.newest_step(folder) == step
    assert [one.name for one in theirs.iterdir()] == ["thesis.txt"]
    assert sorted(one.name for one in folder.iterdir()) == ["step_000000002", "step_999999999"]


@pytest.mark.parametrize("name", ["state.json", "arrays.safetensors"])
def test_a_fifo_is_damage_and_not_waited_for(tmp_path: Path, name: str) -> None:
    path = checkpoint.write(tmp_path, 1, ARRAYS, {})
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(DamagedCheckpoint, match=f"{name}: cannot be read: it is no regular file"):
        checkpoint.read_newest(tmp_path)


def test_the_same_step_again_replaces(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 7, ARRAYS, {"try": 1})
    path = checkpoint.write(tmp_path, 7, ARRAYS, {"try": 2})
    assert checkpoint.read(path).state == {"try": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000007"]
    # Killed before the former one was removed: the new one counts.
    shutil.copytree(path, tmp_path / "step_000000007.old")
    assert checkpoint.newest(tmp_path) == path


def test_an_inspection_is_readable_and_never_resumed_from(tmp_path: Path) -> None:
    good = checkpoint.write(tmp_path, 12_000, ARRAYS, {})
    bad = checkpoint.write_inspection(
        tmp_path, 12_345, {"w": np.array([np.nan])}, {"loss": float("nan")}
    )
    assert bad == tmp_path / "nan_000012345"
    assert checkpoint.newest(tmp_path) == good
    inspected = checkpoint.read(bad)
    assert inspected.step == 12_345
    assert np.isnan(inspected.arrays["w"]).all()
    checkpoint.write(tmp_path, 13_000, ARRAYS, {})
    assert bad.exists()


@pytest.mark.parametrize("file", ["arrays.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["missing", "empty", "shortened", "longer", "altered"])
def test_damage_is_one_clear_line(tmp_path: Path, file: str, how: str) -> None:
    path = checkpoint.write(tmp_path, 3, ARRAYS, {"epsilon": 0.125, "games": [1, 2, 3]})
    damaged = path / file
    content = damaged.read_bytes()
    if how == "missing":
        damaged.unlink()
    else:
        # 'altered' turns the digit of a number or one bit of an array: still well formed.
        at = content.index(b"2,3]") if file == "state.json" else len(content) - 3
        damaged.write_bytes(
            {
                "empty": b"",
                "shortened": content[:-5],
                "longer": content + b" {}",
                "altered": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :],
            }[how]
        )
    with pytest.raises(DamagedCheckpoint) as caught:
        checkpoint.read(path)
    assert str(damaged) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DamagedCheckpoint):
        checkpoint.read_newest(tmp_path)


@pytest.mark.parametrize(
    "text", ["[]", "3", "{}", '{"format": "1"}', '{"format": true}', "[" * 100_000, "\x00\xff"]
)
def test_json_that_is_no_checkpoint_is_damaged(tmp_path: Path, text: str) -> None:
    path = checkpoint.write(tmp_path, 3, ARRAYS, {})
    (path / "state.json").write_text(text)
    with pytest.raises(DamagedCheckpoint):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": ...}, "state: got None, expected a valid dictionary"),
        ({"step": ...}, "step is missing"),
        ({"step": "1"}, "step: got '1', expected a valid integer"),
        ({"arrays": []}, r"arrays: got \[\], expected a valid dictionary$"),
        ({"arrays": {"size": 3}}, r"arrays\.crc32 is missing"),
        ({"state": {"a": {"__float__": "x"}}}, "could not convert string to float"),
        ({"state": {"a": [{"__float__": []}]}}, r"float\(\) argument must be a string"),
    ],
)
def test_json_that_lacks_something_is_damaged_whatever_its_checksum(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file = checkpoint.write(tmp_path, 1, ARRAYS, {}) / "state.json"
    document = {**json.loads(file.read_text()), **change}
    document = {key: value for key, value in document.items() if value is not ...}
    del document["crc32"]
    document["crc32"] = zlib.crc32(json.dumps(document, separators=(",", ":")).encode())
    file.write_text(json.dumps(document))
    with pytest.raises(DamagedCheckpoint, match=rf"state\.json: damaged: {message}"):
        checkpoint.read(file.parent)


def test_a_newer_format_is_said_before_anything_else_is_judged(tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path, 3, ARRAYS, {})
    (path / "state.json").write_text('{"format": 2, "whatever": []}')
    (path / "arrays.safetensors").unlink()
    with pytest.raises(NewerFormat, match=r"format 2 comes from a newer noisynet.* up to 1"):
        checkpoint.read(path)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such checkpoint"):
        checkpoint.read(tmp_path / "step_000000001")


class Killed(BaseException):
    """Stands for the moment at which a process ends: nothing of it cleans up."""


@pytest.mark.parametrize("next_step", [0, 1, 2])
def test_a_kill_before_any_change_to_the_disk_leaves_a_good_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_step: int
) -> None:
    """Die before the 1st, 2nd, … change that a write makes: an earlier step, the same, the next."""
    real = {name: getattr(os, name) for name in ("mkdir", "fsync", "rename", "unlink", "rmdir")}
    calls = 0
    die_at = 0

    def dying(name: str):
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls >= die_at:
                raise Killed
            return real[name](*args, **kwargs)

        return call

    kinds: set[object] = set()
    while True:
        die_at += 1
        calls = 0
        folder = tmp_path / str(die_at)
        checkpoint.write(folder, 1, ARRAYS, {"try": 0})
        with monkeypatch.context() as patch:
            calls = 0
            for name in real:
                patch.setattr(os, name, dying(name))
            try:
                checkpoint.write(folder, next_step, ARRAYS, {"try": 1})
                break
            except Killed:
                pass
        found = checkpoint.read_newest(folder)
        assert found is not None, f"nothing left after dying at change {die_at}"
        assert (found.step, found.state) in [(1, {"try": 0}), (next_step, {"try": 1})]
        kinds.add(found.state["try"])
        # The next write cleans up whatever was left.
        checkpoint.write(folder, 3, ARRAYS, {})
        assert [p.name for p in folder.iterdir()] == ["step_000000003"]
    assert die_at > 8
    assert kinds == {0, 1}


LOOP = f"""{ALONE}
folder = Path(sys.argv[1])
last = checkpoint.read_newest(folder)
step = 0 if last is None else last.step
while True:
    step += 1
    arrays = {{"w": np.full(100_000, step, dtype=np.int64)}}
    checkpoint.write(folder, step, arrays, {{"step": step}})
    print(step, flush=True)
"""


def test_kill_9_in_a_loop_of_writes_leaves_a_good_newest(tmp_path: Path) -> None:
    moments = random.Random(20261121)
    reached = 0
    for _ in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            time.sleep(moments.uniform(0, 0.03))
            child.send_signal(signal.SIGKILL)
            written = int([first, *child.stdout.read().splitlines()][-1])
        found = checkpoint.read_newest(tmp_path)
        assert found is not None
        assert found.step >= written > reached
        assert found.state == {"step": found.step}
        assert (found.arrays["w"] == found.step).all()
        reached = written


def test_a_reader_beside_a_writer_always_reads_a_whole_one(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        steps: list[int] = []
        # Bounded by what was seen, not by time: the machine may be busy.
        end = time.monotonic() + 60
        while len(set(steps)) < 20 and time.monotonic() < end:
            found = checkpoint.read_newest(tmp_path)
            assert found is not None
            assert (found.arrays["w"] == found.state["step"]).all()
            steps.append(found.step)
        child.kill()
        child.stdout.read()
    assert steps == sorted(steps)
    assert len(set(steps)) >= 20


@pytest.mark.parametrize("file", ["arrays.safetensors", "state.json"])
def test_a_full_disk_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    good = checkpoint.write(tmp_path, 1, ARRAYS, {"good": True})

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content if path.name != file else content[:10])
        if path.name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "write_file", full)
    with pytest.raises(RunError) as caught:
        checkpoint.write(tmp_path, 2, ARRAYS, {})
    assert str(caught.value) == (
        f"{tmp_path}/step_000000002: cannot be written: No space left on device; "
        "step_000000001 is kept"
    )
    assert list(tmp_path.iterdir()) == [good]
    assert checkpoint.read(good).state == {"good": True}


def test_a_file_size_limit_keeps_the_one_before(tmp_path: Path) -> None:
    script = f"""{ALONE}
import resource
folder = Path(sys.argv[1])
checkpoint.write(folder, 1, {{"w": np.zeros(10)}}, {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoint.write(folder, 2, {{"w": np.zeros(100_000)}}, {{}})
except checkpoint.RunError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"{tmp_path}/step_000000002: cannot be written: File too large; step_000000001 is kept\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000001"]
    found = checkpoint.read_newest(tmp_path)
    assert found is not None
    assert found.step == 1


def test_a_folder_that_cannot_be_written_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written: Not a directory; there is none before"):
        checkpoint.write(tmp_path / "file" / "checkpoints", 1, ARRAYS, {})


def test_this_room_needs_no_torch(tmp_path: Path) -> None:
    script = f"""{ALONE}
from noisynet.runs import folder, metrics
with folder.RunFolder.create(sys.argv[1], "game: pong") as run:
    with metrics.MetricsWriter(run.path) as writer:
        writer.write(1, {{"a": 1.0}})
    checkpoint.write(run.checkpoints, 1, {{}}, {{}})
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"torch", "tensorflow", "keras"}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
    assert done.stderr == ""
