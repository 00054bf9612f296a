"""The replay against a reference in plain lists, and at the edges that matter."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisynet.replay import Batch, FrameReplay, slack_for
from noisynet.replay.ring import RingShape
from noisynet.replay.sampling import gather_batch, scan_samplable

from .streams import Record, Reference, add_step, assert_equal, random_stream

DISCOUNT = 0.9


def make(**sizes: Any) -> FrameReplay:
    sizes = {"capacity": 40, "environments": 1, "frame_shape": (2,), "stack": 1, **sizes}
    return FrameReplay(frame_dtype=np.uint8, slack=0, seed=sizes.pop("seed", 5), **sizes)


def samplable(replay: FrameReplay, n_step: int) -> np.ndarray:
    """Return the indices of all records that can be sampled."""
    found = scan_samplable(replay._ring, n_step, chunk=7)
    return np.concatenate([np.empty(0, np.int64), *found])


def everything(replay: FrameReplay, n_step: int, discount: float = DISCOUNT) -> Batch:
    """Return all transitions that can be sampled."""
    return gather_batch(replay._ring, samplable(replay, n_step), n_step, discount)


def play(replay: FrameReplay, marks: str) -> None:
    """Add one environment's records: F first, T terminated, U truncated, I ignored, . none.

    Marks of one record stand together, records apart. Frame, action and reward count from 1.
    """
    for place, letters in enumerate(marks.split(), start=1):
        flags = {"F": "first", "T": "terminated", "U": "truncated", "I": "ignored"}
        wanted = {flags[letter]: True for letter in letters if letter != "."}
        add_step(replay, [Record(place, place, float(place), **wanted)], (2,))


# Against the reference


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    environments=st.integers(1, 3),
    steps=st.integers(1, 45),
    end=st.sampled_from([0.02, 0.15, 0.5, 0.9]),
    stack=st.integers(1, 4),
    n_step=st.integers(1, 5),
    room=st.integers(0, 20),
    cut=st.booleans(),
)
def test_every_transition_equals_the_reference(
    seed: int,
    environments: int,
    steps: int,
    end: float,
    stack: int,
    n_step: int,
    room: int,
    cut: bool,
):
    window = stack + n_step + room
    replay = make(capacity=window * environments, environments=environments, stack=stack)
    expected = Reference(stack)
    vector_steps = random_stream(seed, environments, steps, end)
    if cut:  # a second run goes on where a first was interrupted: episodes without an end
        vector_steps += random_stream(seed + 1, environments, steps, end, start=steps)
    for step, records in enumerate(vector_steps):
        add_step(replay, records, (2,))
        expected.add(step, records)
    head = len(vector_steps)
    assert len(replay) == min(head, window) * environments

    rows = expected.transitions(max(0, head - window), n_step, DISCOUNT)
    found = samplable(replay, n_step)
    assert found.tolist() == sorted(found)
    assert {divmod(index, environments) for index in found} == set(rows)
    assert replay.can_sample(n_step) == bool(rows)
    if not rows:
        return
    steps_B, environment_B = (np.array(part) for part in zip(*rows, strict=True))
    batch = gather_batch(replay._ring, steps_B * environments + environment_B, n_step, DISCOUNT)
    shape = (len(rows), stack, 2) if stack > 1 else (len(rows), 2)
    assert batch.observation_tm1.shape == batch.observation_t.shape == shape
    for index, row in enumerate(rows.values()):
        assert batch.observation_tm1[index].reshape(stack, 2)[:, 1].tolist() == row.frames
        assert batch.action_tm1[index] == row.action
        np.testing.assert_allclose(batch.return_t[index], row.total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(batch.discount_t[index], row.discount, rtol=1e-6)
        if row.next_frames is not None:
            assert batch.observation_t[index].reshape(stack, 2)[:, 1].tolist() == row.next_frames

    drawn = replay.sample(20, n_step, DISCOUNT)
    assert np.isin(drawn.indices, found).all()
    assert_equal(drawn, gather_batch(replay._ring, drawn.indices, n_step, DISCOUNT))


# By hand


def test_an_episode_of_six_steps_gives_six_transitions():
    replay = make()
    play(replay, "F . . . . T I F")
    batch = everything(replay, 3, 0.5)
    assert batch.action_tm1.tolist() == [1, 2, 3, 4, 5, 6]
    # 1 + 2/2 + 3/4 = 2.75 and so on; the last two windows are cut short by the end.
    assert batch.return_t.tolist() == [2.75, 4.5, 6.25, 8.0, 8.0, 6.0]
    assert batch.discount_t.tolist() == [0.125, 0.125, 0.125, 0.0, 0.0, 0.0]
    assert batch.observation_t[:3, 0].tolist() == [4, 5, 6]


def test_a_terminated_episode_needs_no_record_after_it():
    replay = make()
    play(replay, "F . T")
    assert everything(replay, 3).action_tm1.tolist() == [1, 2, 3]


def test_the_newest_steps_wait_for_their_window():
    replay = make()
    play(replay, "F . . . .")
    assert everything(replay, 1).action_tm1.tolist() == [1, 2, 3, 4]
    assert everything(replay, 3).action_tm1.tolist() == [1, 2]


def test_the_pseudo_step_is_never_sampled():
    replay = make(stack=2)
    play(replay, "F . T I F . U I F . .")
    for n_step in (1, 2, 3):
        assert not {4, 8} & set(everything(replay, n_step).action_tm1.tolist())
    assert not {4, 8} & set(replay.sample(500, 1, DISCOUNT).action_tm1.tolist())


def test_a_truncation_bootstraps_from_the_terminal_observation():
    replay = make(stack=3)
    play(replay, "F . U I F . .")
    batch = everything(replay, 2, 0.5)
    assert batch.action_tm1.tolist() == [1, 2, 3, 5]
    assert batch.return_t.tolist() == [2.0, 3.5, 3.0, 8.0]
    assert batch.discount_t.tolist() == [0.25, 0.25, 0.5, 0.25]
    # Record 4 is the pseudo-step: its frame closes the episode, and no window goes beyond.
    assert batch.observation_t[:, :, 0].tolist() == [[1, 2, 3], [2, 3, 4], [2, 3, 4], [5, 6, 7]]


def test_a_lost_life_ends_the_window_but_not_the_stack():
    replay = make(stack=3)
    play(replay, "F . T . . .")
    batch = everything(replay, 2, 0.5)
    assert batch.action_tm1.tolist() == [1, 2, 3, 4]
    assert batch.return_t.tolist() == [2.0, 3.5, 3.0, 6.5]
    assert batch.discount_t.tolist() == [0.25, 0.0, 0.0, 0.25]
    assert batch.observation_tm1[3, :, 0].tolist() == [2, 3, 4]


def test_nothing_crosses_an_episode_that_was_cut_off():
    replay = make(stack=2)
    play(replay, "F . . F . . .")
    batch = everything(replay, 2)
    assert batch.action_tm1.tolist() == [1, 4, 5]
    assert batch.observation_tm1[:, :, 0].tolist() == [[0, 1], [0, 4], [4, 5]]


def test_a_truncation_whose_last_observation_is_lost_is_left_out():
    replay = make()
    play(replay, "F . U F . .")
    assert everything(replay, 1).action_tm1.tolist() == [1, 2, 4, 5]


def test_a_stack_that_left_the_window_is_left_out():
    replay = make(capacity=6, stack=4)
    play(replay, "F . . . . . . .")
    assert sorted(everything(replay, 1).action_tm1.tolist()) == [6, 7]


# Sampling


def test_sampling_is_uniform():
    replay = make(capacity=300, environments=3, stack=2, seed=11)
    for records in random_stream(3, 3, 150, 0.3):
        add_step(replay, records, (2,))
    found = samplable(replay, 3)
    batches = [replay.sample(500, 3, DISCOUNT) for _ in range(100)]
    flat = np.concatenate([batch.indices for batch in batches])
    counts = np.bincount(flat, minlength=450)
    assert np.isin(np.flatnonzero(counts), found).all()
    expected = 50_000 / len(found)
    freedom = len(found) - 1
    chi_square = ((counts[found] - expected) ** 2 / expected).sum()
    # Mean `freedom`, standard deviation √(2 · freedom): four of them either side.
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)
    # Consecutive rows are independent of each other: as often the same as by chance.
    repeats = int((flat[1:] == flat[:-1]).sum())
    chance = len(flat) / len(found)
    assert abs(repeats - chance) < 4 * math.sqrt(chance)


def test_few_valid_records_are_found_and_uniform():
    replay = make(capacity=20_000)
    for place in range(20_000):  # all pseudo-steps but three
        real = place in (70, 9_000, 15_000)
        add_step(replay, [Record(1, place, 1.0, terminated=real, ignored=not real)], (2,))
    batch = replay.sample(3_000, 1, DISCOUNT)
    actions, counts = np.unique(batch.action_tm1, return_counts=True)
    assert actions.tolist() == [70, 9_000, 15_000]
    assert np.abs(counts - 1_000).max() < 4 * math.sqrt(3_000 * 2 / 9)


def test_sampling_lists_the_records_only_when_few_are_valid(monkeypatch: pytest.MonkeyPatch):
    replay = make(capacity=400, stack=4)
    for records in random_stream(2, 1, 500, 0.05):
        add_step(replay, records, (2,))

    def scan(*_: object) -> None:
        raise AssertionError("listed every record")

    monkeypatch.setattr("noisynet.replay.sampling.scan_samplable", scan)
    for _ in range(200):
        assert len(replay.sample(64, 3, DISCOUNT)) == 64


def test_a_seed_gives_one_sequence():
    replays = [make(environments=2, stack=2, seed=seed) for seed in (5, 5, 6)]
    for records in random_stream(0, 2, 60):
        for replay in replays:
            add_step(replay, records, (2,))
    one, same, other = ([replay.sample(9, 2, DISCOUNT) for _ in "ab"] for replay in replays)
    assert_equal(one[0], same[0])
    assert_equal(one[1], same[1])
    assert (one[0].indices != one[1].indices).any()
    assert (one[0].indices != other[0].indices).any()


def test_batches_share_nothing_unless_asked():
    replay, twin = make(stack=2), make(stack=2)
    for records in random_stream(0, 1, 60):
        add_step(replay, records, (2,))
        add_step(twin, records, (2,))
    one, two = replay.sample(8, 2, DISCOUNT), replay.sample(8, 2, DISCOUNT)
    for left, right in pairwise([one.observation_tm1, one.observation_t, two.observation_tm1]):
        assert not np.shares_memory(left, right)
    _ = twin.sample(8, 2, DISCOUNT)
    reused = twin.sample(8, 2, DISCOUNT, out=one)
    assert reused.observation_tm1 is one.observation_tm1
    assert_equal(reused, two)
    before = two.observation_tm1.copy()
    for records in random_stream(9, 1, 60):
        add_step(replay, records, (2,))
    np.testing.assert_array_equal(two.observation_tm1, before)
    with pytest.raises(ValueError, match=r"out: got observations uint8 \(8, 2, 2\), expected"):
        _ = twin.sample(9, 2, DISCOUNT, out=one)


def test_vector_observations_keep_their_type():
    replay = FrameReplay(
        capacity=9,
        environments=1,
        frame_shape=(3,),
        frame_dtype=np.float32,
        stack=1,
        slack=0,
        seed=0,
    )
    frame = np.float32([[0.5, -1.0, 1e-9]])
    no = np.array([False])
    for first in (True, False):
        replay.add(frame, np.array([2]), np.array([1]), no, no, np.array([first]), no)
    batch = replay.sample(4, 1, DISCOUNT)
    assert batch.observation_tm1.dtype == np.float32
    np.testing.assert_array_equal(batch.observation_tm1, np.repeat(frame, 4, axis=0))
    assert batch.action_tm1.dtype == np.int64


# Sizes


def test_a_million_atari_transitions_fit_in_the_memory_promised():
    for environments in (1, 4, 64):
        shape = RingShape(
            capacity=1_000_000,
            environments=environments,
            frame_shape=(84, 84),
            frame_dtype=np.dtype(np.uint8),
            stack=4,
            slack=20_000 // environments,
        )
        assert 7.06e9 < shape.nbytes <= 7.3e9
        # 7056 bytes a frame, 4 an action, 4 a reward, 1 the flags
        slots = 1_000_000 // environments + 20_000 // environments
        assert shape.nbytes == slots * environments * (7056 + 9)


def test_the_bytes_told_are_the_bytes_taken():
    sizes = {"capacity": 100, "environments": 3, "frame_shape": (4, 5), "frame_dtype": np.float32}
    replay = FrameReplay(**sizes, stack=2, slack=0, seed=0)
    assert replay.nbytes == 102 * (80 + 9)
    assert replay.nbytes == sum(
        getattr(replay._ring, name).nbytes for name in ("frames", "action", "reward", "flags")
    )


@pytest.mark.parametrize(
    ("capacity", "environments", "commit_every", "expected"),
    [
        (1_000, 1, 100, 100 + 25 + 16),  # a quarter to spare
        (1_000, 8, 100, 13 + 3 + 16),  # vector steps, rounded up
        (1_001, 2, 100_000, 501 + 16),  # at most what can be sampled
    ],
)
def test_slack_is_room_for_the_steps_between_two_commits(
    capacity: int, environments: int, commit_every: int, expected: int
):
    sizes = {"capacity": capacity, "environments": environments}
    assert slack_for(**sizes, commit_every=commit_every) == expected


def test_capacity_is_rounded_up_to_a_multiple_of_the_environments():
    replay = make(capacity=20, environments=3)
    assert replay.capacity == 21
    for records in random_stream(0, 3, 30):
        add_step(replay, records, (2,))
    assert len(replay) == 21


# Bad input

GOOD = {
    "frame": np.zeros((2, 3), np.uint8),
    "action": np.zeros(2, np.int64),
    "reward": np.zeros(2),
    "terminated": np.zeros(2, bool),
    "truncated": np.zeros(2, bool),
    "first": np.ones(2, bool),
    "ignored": np.zeros(2, bool),
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("frame", np.zeros((2, 4), np.uint8), r"frame: got shape \(2, 4\), expected \(2, 3\)"),
        ("frame", np.zeros((2, 3), np.float32), "frame: got float32, expected uint8"),
        ("frame", np.zeros((2, 3), np.uint16), "frame: got uint16, expected uint8"),
        ("frame", [[0] * 3] * 2, r"frame: got list, expected an array of shape \(2, 3\)"),
        ("action", np.zeros(2), "action: got float64, expected integers"),
        ("action", np.array([0, 2**31]), r"action: got \[0, 2147483648\], expected int32"),
        ("action", np.zeros((2, 1), int), r"action: got shape \(2, 1\), expected \(2,\)"),
        ("reward", np.zeros(3), r"reward: got shape \(3,\), expected \(2,\)"),
        ("reward", np.array([0, np.nan]), r"reward: got \[0.0, nan\], expected finite"),
        ("reward", np.array([0, 1e300]), r"reward: got \[0.0, 1e\+300\], expected finite"),
        ("reward", np.zeros(2, bool), "reward: got bool, expected real numbers"),
        ("terminated", np.zeros(2, int), "terminated: got int64, expected bool"),
        ("truncated", np.zeros(1, bool), r"truncated: got shape \(1,\), expected \(2,\)"),
        ("first", np.zeros(2), "first: got float64, expected bool"),
        ("ignored", None, r"ignored: got NoneType, expected an array of shape \(2,\)"),
    ],
)
def test_add_refuses_what_does_not_fit(name: str, value: Any, message: str):
    replay = make(environments=2, frame_shape=(3,))
    with pytest.raises(ValueError, match=message):
        replay.add(**{**GOOD, name: value})
    assert len(replay) == 0
    replay.add(**GOOD)
    assert len(replay) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 0.9), "batch_size: got 0, expected a whole number of at least 1"),
        ((2.5, 1, 0.9), "batch_size: got 2.5, expected a whole"),
        ((4, 0, 0.9), "n_step: got 0, expected a whole number of at least 1"),
        ((4, 1, 1.5), "discount: got 1.5, expected a number from 0 to 1"),
        ((4, 1, math.nan), "discount: got nan"),
        ((4, 9, 0.9), r"capacity: got 10 vector steps .* at least stack \+ n_step = 2 \+ 9"),
    ],
)
def test_sample_refuses_what_makes_no_sense(arguments: Any, message: str):
    replay = make(capacity=10, stack=2)
    with pytest.raises(ValueError, match=message):
        _ = replay.sample(*arguments)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"capacity": 0}, "capacity: got 0"),
        ({"capacity": 12, "environments": 4, "stack": 4}, "capacity: got 3 vector steps of 4"),
        ({"environments": 0}, "environments: got 0"),
        ({"environments": True}, "environments: got True"),
        ({"stack": 0}, "stack: got 0"),
        ({"frame_shape": (0, 3)}, "frame_shape: got 0"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_sizes_that_cannot_work_are_refused(sizes: Any, message: str):
    with pytest.raises(ValueError, match=message):
        _ = make(**sizes)


def test_sampling_nothing_is_a_clear_error():
    replay = make(stack=2)
    with pytest.raises(RuntimeError, match="none of its 0 records can be sampled"):
        _ = replay.sample(4, 2, DISCOUNT)
    play(replay, "F .")
    assert not replay.can_sample(2)
    with pytest.raises(RuntimeError, match=r"none of its 2 records .* n_step 2 and stack 2"):
        _ = replay.sample(4, 2, DISCOUNT)
