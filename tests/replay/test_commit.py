"""Commits: what was committed comes back bit for bit, and what cannot come back says so."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisynet.replay import Batch, FrameReplay, ReplayDamaged

from .streams import add_step, random_stream

SIZES: dict[str, Any] = {
    "capacity": 40,
    "environments": 2,
    "frame_shape": (3, 2),
    "frame_dtype": np.uint8,
    "stack": 3,
    "seed": 7,
}
WINDOW, SLACK = 20, 8


STREAM = random_stream(1, 2, 400, 0.2)


def fill(start: int, stop: int, *replays: FrameReplay) -> None:
    """Add the steps from `start` up to, without, `stop` of one long stream to each replay."""
    for records in STREAM[start:stop]:
        for replay in replays:
            add_step(replay, records, SIZES["frame_shape"])


def in_files(folder: Path, **sizes: Any) -> FrameReplay:
    return FrameReplay(**{**SIZES, "slack": SLACK, **sizes}, folder=folder)


def in_memory() -> FrameReplay:
    return FrameReplay(**SIZES, slack=0)


def through_json(state: dict[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(state))


def fields(batch: Batch) -> list[np.ndarray]:
    return [getattr(batch, name) for name in Batch.__dataclass_fields__]


def assert_same_samples(one: FrameReplay, other: FrameReplay) -> None:
    """Draw twice from both and compare."""
    for _ in range(2):
        left, right = (fields(replay.sample(16, 3, 0.99)) for replay in (one, other))
        for one_field, other_field in zip(left, right, strict=True):
            np.testing.assert_array_equal(one_field, other_field)


def test_files_and_memory_sample_the_same(tmp_path: Path):
    file, memory = in_files(tmp_path / "ring"), in_memory()
    for start in range(0, 70, 5):
        fill(start, start + 5, file, memory)
        _ = file.commit()
        assert len(file) == len(memory)
        assert_same_samples(file, memory)


@settings(max_examples=40)
@given(before=st.integers(8, 70), after=st.integers(0, SLACK), more=st.integers(0, 30))
def test_reopening_is_as_if_nothing_had_happened(
    tmp_path_factory: pytest.TempPathFactory,
    before: int,
    after: int,
    more: int,
):
    folder = tmp_path_factory.mktemp("ring")
    replay, memory = in_files(folder), in_memory()
    fill(0, before, replay, memory)
    _ = replay.sample(5, 1, 0.9), memory.sample(5, 1, 0.9)
    state = through_json(replay.commit())
    room = replay.room
    # What follows the commit must leave no trace: other steps, and samples.
    fill(200, 200 + after, replay)
    _ = replay.sample(11, 2, 0.9)
    del replay

    reopened = FrameReplay.reopen(folder, state)
    assert (reopened.head, reopened.room, len(reopened)) == (before, room, len(memory))
    assert_same_samples(reopened, memory)
    for start in range(before, before + more):
        fill(start, start + 1, reopened, memory)
        if reopened.must_commit:
            _ = reopened.commit()
    assert_same_samples(reopened, memory)


def test_a_replay_reopened_twice_and_a_commit_of_nothing(tmp_path: Path):
    empty = in_files(tmp_path)
    state = through_json(empty.commit())
    fill(0, 50, empty)  # nothing was committed that could be lost
    replay = FrameReplay.reopen(tmp_path, state)
    assert (len(replay), replay.head, replay.can_sample(3)) == (0, 0, False)
    fill(0, 30, replay)
    state = through_json(replay.commit())
    first, second = FrameReplay.reopen(tmp_path, state), FrameReplay.reopen(tmp_path, state)
    assert first.commit() == second.commit() == state
    assert_same_samples(first, second)


def test_the_slack_runs_out_with_a_warning_and_an_error(tmp_path: Path):
    replay = in_files(tmp_path)
    assert (replay.room, replay.must_commit) == (None, False)
    fill(0, 60, replay)
    assert (replay.room, replay.must_commit) == (None, False)
    state = through_json(replay.commit())
    assert (replay.room, replay.must_commit) == (SLACK, False)
    seen = []
    for step in range(60, 60 + SLACK):
        fill(step, step + 1, replay)
        seen.append(replay.must_commit)
    assert seen == [False] * 6 + [True] * 2  # with a slack of 8, one step before the last
    assert replay.room == 0
    with pytest.raises(RuntimeError, match="8 vector steps were added since the last commit"):
        fill(68, 69, replay)
    assert replay.head == 68
    twin = in_memory()
    fill(0, 60, twin)
    assert_same_samples(FrameReplay.reopen(tmp_path, state), twin)
    _ = replay.commit()
    fill(68, 76, replay)


def test_a_commit_waits_for_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    replay = in_files(tmp_path)
    fill(0, 10, replay)
    flushed = []
    monkeypatch.setattr(np.memmap, "flush", lambda array: flushed.append(Path(array.filename).name))
    _ = replay.commit()
    assert sorted(flushed) == ["action.bin", "flags.bin", "frames.bin", "reward.bin"]


def test_a_ring_that_is_not_full_has_more_room(tmp_path: Path):
    replay = in_files(tmp_path)
    fill(0, 10, replay)
    state = through_json(replay.commit())
    assert replay.room == WINDOW + SLACK - 10
    fill(10, 28, replay)
    with pytest.raises(RuntimeError, match="commit first"):
        fill(28, 29, replay)
    twin = in_memory()
    fill(0, 10, twin)
    assert_same_samples(FrameReplay.reopen(tmp_path, state), twin)


def test_an_overwritten_commit_is_recognised(tmp_path: Path):
    replay = in_files(tmp_path)
    fill(0, 60, replay)
    old = replay.commit()
    fill(60, 64, replay)
    kept = replay.commit()
    fill(64, 72, replay)
    new = replay.commit()
    message = "does not hold the data of the commit at vector step 60 .overwritten by later steps"
    with pytest.raises(ReplayDamaged, match=message):
        _ = FrameReplay.reopen(tmp_path, old)
    assert FrameReplay.reopen(tmp_path, kept).head == 64
    assert FrameReplay.reopen(tmp_path, new).head == 72


def test_the_ring_of_another_run_is_recognised(tmp_path: Path):
    states = []
    for start, name in ((0, "one"), (100, "two")):
        replay = in_files(tmp_path / name)
        fill(start, start + 30, replay)
        states.append(replay.commit())
    with pytest.raises(ReplayDamaged, match="of another run"):
        _ = FrameReplay.reopen(tmp_path / "two", states[0])


PROCESS = """
import json, sys, time
from pathlib import Path
import numpy as np
from noisynet.replay import FrameReplay
folder = Path(sys.argv[1])
replay = FrameReplay(capacity=400, environments=2, frame_shape=(8, 8), frame_dtype=np.uint8,
                     stack=4, slack=1000, folder=folder, seed=3)
generator = np.random.default_rng(0)
def add():
    first = np.full(2, replay.head % 17 == 0)
    ignored = np.full(2, replay.head % 17 == 16)
    truncated = np.full(2, replay.head % 17 == 15)
    frame = generator.integers(256, size=(2, 8, 8), dtype=np.uint8)
    action, reward = generator.integers(9, size=2), generator.normal(size=2)
    replay.add(frame, action, reward, np.zeros(2, bool), truncated, first, ignored)
for _ in range(700):
    add()
replay.sample(10, 3, 0.99)
state = replay.commit()
batch = replay.sample(32, 3, 0.99)
names = ("observation_tm1", "action_tm1", "return_t", "observation_t", "indices")
digest = [getattr(batch, name).tobytes().hex() for name in names]
print(json.dumps([state, digest]), flush=True)
while replay.room:
    add()
    time.sleep(0.001)
time.sleep(60)
"""


def test_a_killed_process_leaves_its_commit(tmp_path: Path):
    source = Path(__file__).parents[2] / "src"
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(tmp_path / "ring")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    assert process.stdout is not None
    try:
        state, digest = json.loads(process.stdout.readline())
        with pytest.raises(subprocess.TimeoutExpired):
            _ = process.wait(timeout=0.1)  # it goes on writing for a while
    finally:
        process.send_signal(signal.SIGKILL)
        _ = process.wait()
        process.stdout.close()
    replay = FrameReplay.reopen(tmp_path / "ring", state)
    written = np.fromfile(tmp_path / "ring" / "frames.bin", np.uint8).reshape(-1, 128)
    assert written[700:].any(), "the process wrote nothing after its commit: the test is void"
    batch = replay.sample(32, 3, 0.99)
    names = ("observation_tm1", "action_tm1", "return_t", "observation_t", "indices")
    assert [getattr(batch, name).tobytes().hex() for name in names] == digest


# Damage


@pytest.fixture
def committed(tmp_path: Path) -> tuple[Path, dict[str, object]]:
    replay = in_files(tmp_path)
    fill(0, 60, replay)
    return tmp_path, replay.commit()


@pytest.mark.parametrize("name", ["frames", "action", "reward", "flags"])
def test_damaged_files_are_named(committed: tuple[Path, dict[str, object]], name: str):
    folder, state = committed
    file = folder / f"{name}.bin"
    content = file.read_bytes()
    for step in (60 - WINDOW, 59):  # the oldest of the window, and the newest
        changed = bytearray(content)
        changed[step % (WINDOW + SLACK) * len(content) // (WINDOW + SLACK)] ^= 1
        _ = file.write_bytes(changed)
        with pytest.raises(ReplayDamaged, match="does not hold the data of the commit"):
            _ = FrameReplay.reopen(folder, state)
    _ = file.write_bytes(content[:-1])
    message = rf"{name}.bin: got {len(content) - 1} bytes, expected {len(content)}"
    with pytest.raises(ReplayDamaged, match=message):
        _ = FrameReplay.reopen(folder, state)
    file.unlink()
    with pytest.raises(ReplayDamaged, match=f"{name}.bin is missing"):
        _ = FrameReplay.reopen(folder, state)
    _ = file.write_bytes(content)
    assert FrameReplay.reopen(folder, state).head == 60


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", 2, "got format 2, expected 1"),
        ("capacity", 42, "bytes, expected"),
        ("environments", 4, "does not hold"),  # as many bytes, told apart by the checksum
        ("frame_shape", [3, 3], "frames.bin: got"),
        ("frame_shape", 3, "replay state: TypeError"),
        ("frame_dtype", "nonsense", "replay state: TypeError"),
        ("stack", "3", "replay state: ValueError: stack: got '3'"),
        ("slack", 0, "replay state: ValueError: slack: got 0"),
        ("head", 59, "vector step 59"),
        ("head", -1, "replay state: ValueError: head: got -1"),
        ("generator", {"bit_generator": "MT19937"}, "replay state: "),
        ("generator", None, "replay state: "),
        ("fingerprint", 1, "does not hold"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    committed: tuple[Path, dict[str, object]], name: str, value: object, message: str
):
    folder, state = committed
    if name == "environments":
        # 40 records in rows of 4 instead of 2: window and slack halve.
        state = {**state, "slack": SLACK // 2}
    with pytest.raises(ReplayDamaged, match=message) as caught:
        _ = FrameReplay.reopen(folder, {**state, name: value})
    assert "\n" not in str(caught.value)


def test_each_part_of_a_state_is_needed(committed: tuple[Path, dict[str, object]]):
    folder, state = committed
    for name in state:
        with pytest.raises(ReplayDamaged, match="replay state: "):
            _ = FrameReplay.reopen(folder, {key: state[key] for key in state if key != name})


def test_damage_is_a_value_error():
    assert issubclass(ReplayDamaged, ValueError)


# Creation


def test_a_disk_that_is_too_small_is_an_error_at_the_start(tmp_path: Path):
    with pytest.raises(OSError, match=r"needs [\d,]{15,} bytes of disk, [\d,]+ are free") as caught:
        _ = in_files(tmp_path / "ring", capacity=10**15)
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "ring") in str(caught.value)
    assert list((tmp_path / "ring").iterdir()) == []


def test_a_disk_that_fills_while_files_are_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reserved = []

    def fallocate(descriptor: int, start: int, size: int) -> None:
        if reserved:
            raise OSError(errno.ENOSPC, "No space left on device")
        reserved.append(size)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    with pytest.raises(OSError, match=r"are free \(No space left on device\)") as caught:
        _ = in_files(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("native", [True, False])
def test_the_blocks_of_the_files_are_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
):
    if not native:  # as on macOS
        monkeypatch.delattr(os, "posix_fallocate")
    replay = in_files(tmp_path, capacity=40_000)
    sizes = [file.stat() for file in tmp_path.iterdir()]
    assert sum(size.st_size for size in sizes) == replay.nbytes
    assert all(size.st_blocks * 512 >= size.st_size for size in sizes)


def test_a_ring_that_is_there_is_not_overwritten(committed: tuple[Path, dict[str, object]]):
    folder, state = committed
    with pytest.raises(FileExistsError, match="reopen it from its commit, or delete it"):
        _ = in_files(folder)
    assert FrameReplay.reopen(folder, state).head == 60


def test_memory_has_nothing_to_commit():
    replay = in_memory()
    fill(0, 100, replay)
    assert (replay.room, replay.must_commit) == (None, False)
    with pytest.raises(RuntimeError, match="in memory"):
        _ = replay.commit()


def test_files_need_slack(tmp_path: Path):
    with pytest.raises(ValueError, match="slack: got 0, expected a whole number of at least 1"):
        _ = in_files(tmp_path, slack=0)
