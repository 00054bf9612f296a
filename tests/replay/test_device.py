"""A replay with its frames on a device: the batches of `FrameReplay`, from the CPU as a device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from noisynet.replay import Batch, FrameReplay, PrioritySettings
from noisynet.replay.device import DeviceReplay

from .streams import add_step, random_stream

CPU = torch.device("cpu")
PRIORITY = PrioritySettings(exponent=0.6, epsilon=1e-3)
SHARED = ("observation_tm1", "action_tm1", "return_t", "discount_t", "observation_t", "weights")


def make(folder: Path | None = None, **sizes: Any) -> FrameReplay:
    chosen = {"capacity": 60, "environments": 2, "frame_shape": (3, 2), "stack": 3, **sizes}
    chosen.setdefault("frame_dtype", np.uint8)
    return FrameReplay(slack=0 if folder is None else 9, seed=4, folder=folder, **chosen)


def assert_equal(batch: Batch, there: Batch) -> None:
    np.testing.assert_array_equal(there.indices, batch.indices)
    for name in SHARED:
        here, other = getattr(batch, name), getattr(there, name)
        if here is None:
            assert other is None
        else:
            assert other.numpy().dtype == here.dtype
            np.testing.assert_array_equal(other.numpy(), here, err_msg=name)


@pytest.mark.parametrize("priority", [None, PRIORITY])
@pytest.mark.parametrize(("stack", "n_step"), [(1, 1), (3, 1), (4, 3)])
def test_the_same_records_are_drawn_and_the_same_batches_come_of_them(
    stack: int, n_step: int, priority: PrioritySettings | None
) -> None:
    host = make(stack=stack, priority=priority)
    there = DeviceReplay(make(stack=stack, priority=priority), CPU)
    beta = None if priority is None else 0.4
    out: Batch | None = None
    seen_empty = False
    for number, records in enumerate(random_stream(8, 2, 150, 0.2)):
        for replay in (host, there):
            add_step(replay, records, (3, 2))
        if number < 12:
            continue
        batch = host.sample(16, n_step, 0.9, beta=beta)
        out = there.sample(16, n_step, 0.9, out=out, beta=beta)
        assert_equal(batch, out)
        if stack > 1:
            seen_empty |= bool((batch.observation_tm1[:, 0] == 0).all((1, 2)).any())
        if priority is not None:
            for replay, drawn in ((host, batch), (there, out)):
                replay.update_priorities(drawn.indices, np.abs(batch.return_t))
    assert len(host) == len(there) == 60  # the ring has gone round more than twice
    assert seen_empty == (stack > 1)  # stacks with frames from before their episode


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_])
def test_frames_of_every_kind(dtype: Any) -> None:
    host = make(frame_dtype=dtype)
    there = DeviceReplay(make(frame_dtype=dtype), CPU)
    frames = np.random.Generator(np.random.PCG64(1)).normal(size=(40, 2, 3, 2)).astype(dtype)
    none, first = np.zeros(2, bool), np.ones(2, bool)
    for number, frame in enumerate(frames):
        for replay in (host, there):
            replay.add(
                frame,
                np.full(2, number),
                np.zeros(2),
                none,
                none,
                first if number == 0 else none,
                none,
            )
    assert_equal(host.sample(20, 2, 0.9), there.sample(20, 2, 0.9))


def test_batches_share_nothing_unless_one_is_given_back() -> None:
    there = DeviceReplay(make(), CPU)
    for records in random_stream(8, 2, 30, 0.2):
        add_step(there, records, (3, 2))
    one = there.sample(8, 1, 0.9)
    before = {name: getattr(one, name).clone() for name in SHARED[:-1]}
    other = there.sample(8, 1, 0.9)
    for name, value in before.items():
        assert torch.equal(getattr(one, name), value)
        assert getattr(one, name).data_ptr() != getattr(other, name).data_ptr()
    again = there.sample(8, 1, 0.9, out=one)
    for name in before:
        assert getattr(again, name).data_ptr() == getattr(one, name).data_ptr()
    with pytest.raises(ValueError, match="out: got a batch of another size"):
        there.sample(9, 1, 0.9, out=one)


@pytest.mark.parametrize("priority", [None, PRIORITY])
def test_a_commit_is_that_of_the_files_and_frames_come_back_from_it(
    tmp_path: Path, priority: PrioritySettings | None
) -> None:
    steps = random_stream(8, 2, 75, 0.2)
    host = make(tmp_path / "host", priority=priority)
    there = DeviceReplay(make(tmp_path / "device", priority=priority), CPU)
    beta = None if priority is None else 1.0
    states = []
    for replay in (host, there):
        for records in steps[:66]:
            add_step(replay, records, (3, 2))
        _ = replay.sample(4, 2, 0.9, beta=beta)
        states.append(replay.commit())
        for records in steps[66:70]:
            add_step(replay, records, (3, 2))
    assert states[0] == states[1]
    assert there.room == host.room == 9 - 4
    # Either kind reopens what the other wrote.
    host = FrameReplay.reopen(tmp_path / "device", states[1])
    there = DeviceReplay(FrameReplay.reopen(tmp_path / "host", states[0]), CPU)
    for records in steps[66:]:
        for replay in (host, there):
            add_step(replay, records, (3, 2))
    for _ in range(3):
        batch = host.sample(32, 2, 0.9, beta=beta)
        assert_equal(batch, there.sample(32, 2, 0.9, beta=beta))


def test_what_was_not_committed_when_it_was_taken_over_still_is_not(tmp_path: Path) -> None:
    steps = random_stream(8, 2, 50, 0.2)
    replay = make(tmp_path / "ring")
    for records in steps[:40]:
        add_step(replay, records, (3, 2))
    _ = replay.commit()
    add_step(replay, steps[40], (3, 2))
    there = DeviceReplay(replay, CPU)
    assert there.room == 8


def test_bad_arguments_are_named() -> None:
    there = DeviceReplay(make(), CPU)
    with pytest.raises(RuntimeError, match="none of its 0 records can be sampled"):
        there.sample(4, 1, 0.9)
    for records in random_stream(8, 2, 30, 0.2):
        add_step(there, records, (3, 2))
    with pytest.raises(ValueError, match="batch_size: got 0"):
        there.sample(0, 1, 0.9)
    with pytest.raises(ValueError, match=r"beta: got 0\.5, expected None"):
        there.sample(4, 1, 0.9, beta=0.5)
    with pytest.raises(ValueError, match="beta: got None, expected a number"):
        DeviceReplay(make(priority=PRIORITY), CPU).sample(4, 1, 0.9)
    with pytest.raises(ValueError, match="discount"):
        there.sample(4, 1, 1.5)


def test_the_room_of_the_replay_needs_no_torch_until_it_is_asked_for() -> None:
    import subprocess
    import sys

    code = "import sys, noisynet.replay as r; print('noisynet.replay.device' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "False\n"
