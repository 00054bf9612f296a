"""Prioritised sampling: the tree against plain sums, the sampler against the slow reference."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisynet.replay import (
    Batch,
    FrameReplay,
    PrioritySettings,
    ReplayDamaged,
    annealed_beta,
    importance_weights,
)
from noisynet.replay.sampling import scan_samplable
from noisynet.replay.sum_tree import SumTree

from .streams import Record, Reference, add_step, assert_equal, random_stream

DISCOUNT = 0.9
PLAIN = PrioritySettings(exponent=1.0, epsilon=1e-9)  # the priority is the error


def make(**sizes: Any) -> FrameReplay:
    sizes = {
        "capacity": 40,
        "environments": 1,
        "stack": 1,
        "slack": 0,
        "seed": 5,
        "priority": PLAIN,
        **sizes,
    }
    return FrameReplay(frame_shape=(2,), frame_dtype=np.uint8, **sizes)


def fill(replay: FrameReplay, steps: int, **options: Any) -> None:
    environments = replay._ring.shape.environments
    for records in random_stream(3, environments, steps, **options):
        add_step(replay, records, (2,))


def leaves(replay: FrameReplay) -> np.ndarray:
    """Return the priorities as they are, (steps of the window, environments)."""
    assert replay._sampler is not None
    return replay._sampler.leaves.reshape(replay._ring.shape.window, -1).copy()


# The tree of sums


@settings(max_examples=200)
@given(data=st.data(), size=st.integers(1, 300), fan=st.integers(2, 6))
def test_the_tree_equals_plain_sums(data: st.DataObject, size: int, fan: int):
    tree, slow = SumTree(size, fan=fan), [0.0] * size
    value = st.one_of(st.just(0.0), st.floats(1e-6, 1e6))
    for _ in range(data.draw(st.integers(1, 4))):
        changes = data.draw(st.lists(st.tuples(st.integers(0, size - 1), value), max_size=40))
        for index, new in changes:
            slow[index] = new
        index_B, value_B = (np.array([c[k] for c in changes]) for k in (0, 1))
        tree.set(index_B.astype(np.int64), value_B.astype(float))
        assert tree.values.tolist() == slow
        assert tree.get(np.arange(size)).tolist() == slow
        total = math.fsum(slow)
        assert math.isclose(tree.total, total, rel_tol=1e-12)
        if total == 0:
            continue
        fractions = data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
        targets = np.array(fractions) * tree.total
        found = tree.find(targets).tolist()
        for target, index in zip(targets, found, strict=True):
            assert slow[index] > 0
            before = math.fsum(slow[:index])
            assert before - 1e-11 * total <= target <= before + slow[index] + 1e-11 * total


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=200), fan=st.integers(2, 5))
def test_every_place_in_whole_numbers_is_found_exactly(values: list[int], fan: int):
    tree = SumTree(len(values), fan=fan)
    tree.load(np.array(values, float))
    if any(values):
        places = np.arange(sum(values)) + 0.5
        expected = np.repeat(np.arange(len(values)), values)
        np.testing.assert_array_equal(tree.find(places), expected)
        np.testing.assert_array_equal(tree.find(places - 0.5), expected)


def test_changed_a_thousand_times_it_is_as_rebuilt():
    generator = np.random.default_rng(0)
    tree, rebuilt = SumTree(50_000), SumTree(50_000)
    for exponent in generator.integers(-9, 9, size=1_000):
        index_B = generator.integers(50_000, size=32)
        tree.set(index_B, generator.random(32) * 10.0**exponent)
    rebuilt.load(tree.values)
    for one, other in zip(tree._levels, rebuilt._levels, strict=True):
        np.testing.assert_array_equal(one, other)
    assert math.isclose(tree.total, math.fsum(tree.values), rel_tol=1e-12)


@pytest.mark.parametrize("size", [5, 4_000, 40_000])
def test_a_target_beyond_the_end_finds_the_last_value(size: int):
    tree = SumTree(size)
    chosen = np.array([1, size // 2, size - 3])
    tree.set(chosen, np.array([0.1, 0.2, 5e-324]))
    ends = np.array([0.0, tree.total, tree.total * 2])
    assert set(tree.find(ends).tolist()) <= set(chosen.tolist())
    assert tree.find(ends)[0] == 1


@pytest.mark.parametrize("size", [4_096, 65_536])
def test_where_a_node_and_the_ends_of_its_children_differ_by_rounding(size: int):
    # A node is summed in another order than its children's ends: just before the end of a node, a
    # target may lie past its last child. Its first and last children are 0 here.
    value = np.random.default_rng(0).random((size // 32, 32))
    value[:, [0, -1]] = 0.0
    tree = SumTree(size)
    tree.load(value.ravel())
    rows = value.sum(axis=1)
    assert (value.cumsum(axis=1)[:, -1] < rows).sum() > 10
    ends = np.nextafter(tree._levels[-1].cumsum(), 0.0)
    found = tree.find(ends)
    assert (tree.values[found] > 0).all()
    children = size // len(ends)
    assert (found // children == np.arange(len(ends))).all()
    assert (found % children == children - 2).mean() > 0.9


def test_of_an_index_given_twice_the_last_counts():
    tree = SumTree(2_000)
    tree.set(np.array([7, 1_500, 7]), np.array([1.0, 2.0, 4.0]))
    assert (tree.values[7], tree.total) == (4.0, 6.0)


# Which records are drawn


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32),
    environments=st.integers(1, 3),
    end=st.sampled_from([0.02, 0.15, 0.5, 0.9]),
    stack=st.integers(1, 4),
    n_step=st.integers(1, 4),
    room=st.integers(0, 12),
    pauses=st.lists(st.integers(1, 30), min_size=1, max_size=10),
    cut=st.booleans(),
    other_n_step=st.integers(0, 4),
)
def test_only_what_the_reference_allows_is_drawn(
    seed: int,
    environments: int,
    end: float,
    stack: int,
    n_step: int,
    room: int,
    pauses: list[int],
    cut: bool,
    other_n_step: int,
):
    """Against a dict of priorities by record, through ends of episodes, wraps and updates."""
    window = stack + n_step + room
    replay = make(capacity=window * environments, environments=environments, stack=stack)
    slow, priorities, largest = Reference(stack), {}, 1.0
    generator = np.random.default_rng(seed)
    steps = random_stream(seed, environments, sum(pauses), end)
    if cut:
        half = len(steps) // 2
        rest = random_stream(seed + 1, environments, len(steps) - half, end, start=half)
        steps = steps[:half] + rest
    head, used, stale = 0, n_step, None
    for pause in pauses:
        for records in steps[head : head + pause]:
            add_step(replay, records, (2,))
            slow.add(head, records)
            head += 1
        if stale is not None:  # drawn before the records of this pause
            replay.update_priorities(stale.indices, np.full(16, 0.3))
            low = max(0, head - window)
            for index in stale.indices.tolist():
                if index // environments >= low:
                    priorities[divmod(index, environments)] = 0.3 + 1e-9
                    largest = max(largest, 0.3 + 1e-9)
        rows = slow.transitions(max(0, head - window), used, DISCOUNT)
        priorities = {record: priorities.get(record, largest) for record in rows}
        if not rows:
            with pytest.raises(RuntimeError, match="none of its"):
                _ = replay.sample(16, used, DISCOUNT, beta=0.5)
            stale = None
            continue
        batch = replay.sample(16, used, DISCOUNT, beta=0.5)
        expected = np.zeros((window, environments))
        for (step, environment), priority in priorities.items():
            expected[step % window, environment] = priority
        np.testing.assert_array_equal(leaves(replay), expected)
        assert {divmod(index, environments) for index in batch.indices.tolist()} <= set(rows)
        for row, index in enumerate(batch.indices.tolist()):
            assert batch.action_tm1[row] == rows[divmod(index, environments)].action

        errors = generator.exponential(size=16) * 3
        replay.update_priorities(batch.indices, errors)
        for index, error in zip(batch.indices.tolist(), errors.tolist(), strict=True):
            priorities[divmod(index, environments)] = error + 1e-9
            largest = max(largest, error + 1e-9)
        stale = batch
        if other_n_step:  # windows of another length: what becomes possible again is as new
            used = other_n_step if used == n_step and other_n_step <= n_step else n_step


def drawn_often(batch_size: int, batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each record was drawn, and its P(i), where P(i) > 0."""
    replay = make(capacity=24, environments=2, stack=2, seed=11)
    fill(replay, 40, end=0.2)
    first = replay.sample(100, 2, DISCOUNT, beta=1.0)
    errors = np.random.default_rng(1).exponential(size=100) ** 2
    replay.update_priorities(first.indices, errors)
    priority = leaves(replay)
    counts = np.zeros(priority.shape)
    for _ in range(batches):
        batch = replay.sample(batch_size, 2, DISCOUNT, beta=1.0)
        step_B, environment_B = np.divmod(batch.indices, 2)
        np.add.at(counts, (step_B % 12, environment_B), 1)
    assert counts[priority == 0].sum() == 0
    return counts[priority > 0], priority[priority > 0] / priority.sum()


def test_records_are_drawn_in_proportion_to_their_priority():
    counts, chance = drawn_often(1, 6_000)
    freedom = len(counts) - 1
    assert freedom > 10
    chi_square = ((counts - 6_000 * chance) ** 2 / (6_000 * chance)).sum()
    # Mean `freedom`, standard deviation √(2 · freedom): four of them either side.
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_a_batch_has_one_record_of_each_equal_part():
    # A record that fills L parts of the sum is drawn L times, but for the parts at its two ends.
    counts, chance = drawn_often(500, 1)
    assert (np.abs(counts - 500 * chance) < 2).all()
    assert counts.sum() == 500
    # Where in its part a record is drawn from is chance for each by itself: of pairs, either one.
    replay = make()
    for place in range(21):
        add_step(replay, [Record(place, place, 0.0, first=place == 0)], (2,))
    batch = replay.sample(10, 1, DISCOUNT, beta=1.0)
    assert set((batch.indices - 2 * np.arange(10)).tolist()) == {0, 1}


def test_no_exponent_draws_all_alike():
    replay = make(priority=PrioritySettings(exponent=0.0, epsilon=0.1))
    fill(replay, 60)
    batch = replay.sample(20, 1, DISCOUNT, beta=1.0)
    replay.update_priorities(batch.indices, np.arange(20.0))
    can = np.concatenate(list(scan_samplable(replay._ring, 1))) % replay.capacity
    assert np.flatnonzero(leaves(replay)).tolist() == sorted(can)
    assert set(leaves(replay).ravel().tolist()) == {0.0, 1.0}
    np.testing.assert_array_equal(replay.sample(20, 1, DISCOUNT, beta=1.0).weights, np.ones(20))


# Priorities and weights, by hand


def test_a_new_transition_has_the_largest_priority_so_far():
    replay = make(priority=PrioritySettings(exponent=0.5, epsilon=0.25))
    for place in range(4):
        add_step(replay, [Record(place, place, 0.0, first=place == 0)], (2,))
    batch = replay.sample(3, 1, DISCOUNT, beta=0.4)
    assert batch.indices.tolist() == [0, 1, 2]  # three equal parts, three records
    assert leaves(replay)[:5, 0].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    # √(δ + 0.25): 6 gives 2.5; 2 gives 1.5; 0 gives 0.5.
    replay.update_priorities(batch.indices, np.array([6.0, 2.0, 0.0]))
    assert leaves(replay)[:4, 0].tolist() == [2.5, 1.5, 0.5, 0.0]
    add_step(replay, [Record(4, 4, 0.0)], (2,))
    _ = replay.sample(1, 1, DISCOUNT, beta=0.4)
    assert leaves(replay)[:5, 0].tolist() == [2.5, 1.5, 0.5, 2.5, 0.0]
    # The largest so far stays, when the record that had it falls.
    replay.update_priorities(np.array([0, 3]), np.array([0, 2]))
    add_step(replay, [Record(5, 5, 0.0)], (2,))
    _ = replay.sample(1, 1, DISCOUNT, beta=0.4)
    assert leaves(replay)[:6, 0].tolist() == [0.5, 1.5, 0.5, 1.5, 2.5, 0.0]


def test_importance_weights_by_hand():
    # P = 1/8, 1/4, 1/2, 1/8 of N = 4: (N·P)^-1 = 2, 1, 1/2, 2, and after division by the largest:
    priority_B = np.array([1.0, 2.0, 4.0, 1.0])
    assert importance_weights(priority_B, 1.0).tolist() == [1.0, 0.5, 0.25, 1.0]
    half = importance_weights(priority_B, 0.5)
    np.testing.assert_allclose(half, [1.0, 0.5**0.5, 0.5, 1.0], rtol=1e-7)
    assert importance_weights(priority_B, 0.0).tolist() == [1.0] * 4
    assert half.dtype == np.float32

    replay = make(priority=PrioritySettings(exponent=1.0, epsilon=1.0))
    for place in range(4):
        add_step(replay, [Record(place, place, 0.0, first=place == 0)], (2,))
    batch = replay.sample(3, 1, DISCOUNT, beta=1.0)
    replay.update_priorities(batch.indices, np.array([0.0, 1.0, 4.0]))  # priorities 1, 2, 5
    drawn = replay.sample(8, 1, DISCOUNT, beta=0.7)  # one of each part of length 1
    assert drawn.indices.tolist() == [0, 1, 1, 2, 2, 2, 2, 2]
    expected = np.array([1, 1 / 2, 1 / 2, *[1 / 5] * 5]) ** 0.7
    assert drawn.weights is not None
    np.testing.assert_allclose(drawn.weights, expected, rtol=1e-6)


@given(
    priorities=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=20),
    beta=st.floats(0, 1),
    records=st.integers(1, 10**6),
)
def test_importance_weights_equal_the_paper(priorities: list[float], beta: float, records: int):
    priority_B = np.array(priorities)
    weight_B = (records * priority_B / (3 * priority_B.sum())) ** -beta
    got = importance_weights(priority_B, beta)
    np.testing.assert_allclose(got, weight_B / weight_B.max(), rtol=1e-5)
    assert got.max() == 1.0


def test_beta_grows_linearly_to_one():
    betas = [annealed_beta(0.4, step, 100) for step in (0, 25, 50, 100, 101, 10**9)]
    np.testing.assert_allclose(betas, [0.4, 0.55, 0.7, 1.0, 1.0, 1.0], rtol=1e-15)
    assert betas[3:] == [1.0, 1.0, 1.0]
    assert [annealed_beta(1.0, 3, 7), annealed_beta(0.0, 0, 7)] == [1.0, 0.0]


@given(start=st.floats(0, 1), step=st.integers(0, 10**9), steps=st.integers(1, 10**9))
def test_beta_stays_in_its_range(start: float, step: int, steps: int):
    assert start - 1e-15 <= annealed_beta(start, step, steps) <= 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.5, 0, 9), "start: got 1.5, expected a number from 0 to 1"),
        ((math.nan, 0, 9), "start: got nan"),
        ((0.4, -1, 9), "step: got -1, expected a whole number of at least 0"),
        ((0.4, 0, 0), "steps: got 0, expected a whole number of at least 1"),
    ],
)
def test_beta_refuses_what_makes_no_sense(arguments: Any, message: str):
    with pytest.raises(ValueError, match=message):
        _ = annealed_beta(*arguments)


# Updates that come late or are wrong


def test_what_was_overwritten_is_passed_over():
    replay = make(capacity=6, stack=2)
    for place in range(6):
        add_step(replay, [Record(place, place, 0.0, first=place == 0)], (2,))
    batch = replay.sample(5, 1, DISCOUNT, beta=1.0)
    assert batch.indices.tolist() == [0, 1, 2, 3, 4]
    for place in range(6, 9):
        add_step(replay, [Record(place, place, 0.0)], (2,))
    # Records 0 to 2 are overwritten, and record 3 has lost the beginning of its stack.
    replay.update_priorities(batch.indices, np.array([100.0, 100, 100, 0.5, 0.25]))
    _ = replay.sample(1, 1, DISCOUNT, beta=1.0)
    expected = [1.0, 1.0, 0.0, 0.0, 0.25 + 1e-9, 1.0]  # slots of records 6, 7, 8, 3, 4, 5
    assert leaves(replay)[:, 0].tolist() == expected
    replay.update_priorities(batch.indices, np.array([100.0, 100, 100, 100, 2.0]))
    expected[4] = 2.0 + 1e-9
    assert leaves(replay)[:, 0].tolist() == expected


GOOD_INDICES = np.array([0, 1])
BAD_UPDATES = [
    (GOOD_INDICES, np.array([1.0, np.nan]), "td_errors: got nan in row 1, expected finite float32"),
    (GOOD_INDICES, np.array([np.inf, 1.0]), "td_errors: got inf in row 0, expected finite float32"),
    (GOOD_INDICES, np.array([1.0, -0.5]), "td_errors: got -0.5 in row 1, .* from 0 up"),
    (GOOD_INDICES, np.array([1e300, 1.0]), r"td_errors: got 1e\+300 in row 0"),
    (GOOD_INDICES, np.ones(3), r"td_errors: got shape \(3,\), expected \(2,\)"),
    (GOOD_INDICES, np.ones((2, 1)), r"td_errors: got shape \(2, 1\)"),
    (GOOD_INDICES, np.ones(2, bool), "td_errors: got bool, expected real numbers"),
    (GOOD_INDICES, [1.0, 1.0], "td_errors: got list, expected an array"),
    (np.array([0.0, 1.0]), np.ones(2), "indices: got float64, expected integers"),
    (np.array([[0, 1]]), np.ones(2), r"indices: got shape \(1, 2\), expected \(1,\)"),
    (np.array([0, -1]), np.ones(2), "indices: got -1, expected those of a batch of this replay"),
    (np.array([30, 0]), np.ones(2), "indices: got 30, expected those of a batch"),
]


@pytest.mark.parametrize(("indices", "errors", "message"), BAD_UPDATES)
def test_a_wrong_update_changes_nothing(indices: Any, errors: Any, message: str):
    replay, twin = make(), make()
    for one in (replay, twin):
        fill(one, 30)
        _ = one.sample(4, 2, DISCOUNT, beta=1.0)
        fill(one, 1)  # what no draw has seen yet is in no batch
    with pytest.raises(ValueError, match=message) as caught:
        replay.update_priorities(indices, errors)
    assert "\n" not in str(caught.value)
    fill(replay, 5)
    fill(twin, 5)
    assert_equal(replay.sample(30, 2, DISCOUNT, beta=1.0), twin.sample(30, 2, DISCOUNT, beta=1.0))
    np.testing.assert_array_equal(leaves(replay), leaves(twin))


def test_an_update_of_nothing_is_nothing():
    replay = make()
    fill(replay, 30)
    _ = replay.sample(4, 2, DISCOUNT, beta=1.0)
    before = leaves(replay)
    replay.update_priorities(np.array([], np.int64), np.array([]))
    np.testing.assert_array_equal(leaves(replay), before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exponent": 1.5}, "priority exponent: got 1.5, expected a number from 0 to 1"),
        ({"exponent": -0.1}, "priority exponent: got -0.1"),
        ({"exponent": math.nan}, "priority exponent: got nan"),
        ({"exponent": True}, "priority exponent: got True"),
        ({"epsilon": 0.0}, "priority epsilon: got 0.0, expected a finite number above 0"),
        ({"epsilon": math.inf}, "priority epsilon: got inf"),
        ({"epsilon": "1"}, "priority epsilon: got '1'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: Any, message: str):
    with pytest.raises(ValueError, match=message):
        _ = PrioritySettings(**{"exponent": 0.5, "epsilon": 1e-6, **values})


@pytest.mark.parametrize("beta", [None, -0.1, 1.1, math.nan, "1"])
def test_a_draw_by_priority_needs_beta(beta: Any):
    with pytest.raises(ValueError, match=f"beta: got {beta!r}, expected a number from 0 to 1"):
        _ = make().sample(4, 1, DISCOUNT, beta=beta)


def test_a_uniform_replay_has_no_priorities():
    replay = make(priority=None)
    fill(replay, 30)
    batch = replay.sample(4, 1, DISCOUNT)
    assert batch.weights is None
    with pytest.raises(ValueError, match=r"beta: got 0\.4, expected None"):
        _ = replay.sample(4, 1, DISCOUNT, beta=0.4)
    with pytest.raises(RuntimeError, match="samples uniformly"):
        replay.update_priorities(batch.indices, np.ones(4))


def test_a_uniform_sample_is_what_it_was_before_there_were_priorities():
    # Drawn by the version before: a running study depends on it.
    replay = make(priority=None, environments=2, stack=2, seed=5)
    fill(replay, 60)
    batch = replay.sample(12, 3, DISCOUNT)
    slot_B, environment_B = batch.indices // 2 % 20, batch.indices % 2
    assert slot_B.tolist() == [13, 16, 16, 9, 10, 12, 1, 7, 11, 8, 2, 2]
    assert environment_B.tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 1]


def test_a_seed_gives_one_sequence():
    one, same, other = (make(seed=seed) for seed in (5, 5, 6))
    for replay in (one, same, other):
        fill(replay, 60)
    left, right, stranger = (r.sample(9, 2, DISCOUNT, beta=0.5) for r in (one, same, other))
    assert_equal(left, right)
    assert (left.indices != stranger.indices).any()
    # Asking whether there is something to sample leaves no trace.
    assert one.can_sample(3)
    again = one.sample(9, 2, DISCOUNT, beta=0.5, out=left)
    assert again.observation_tm1 is left.observation_tm1
    assert_equal(again, same.sample(9, 2, DISCOUNT, beta=0.5))


# Commits


SIZES: dict[str, Any] = {"capacity": 40, "environments": 2, "stack": 3, "seed": 7}
SLACK = 8


def advance(steps: list[Any], start: int, stop: int, *replays: FrameReplay) -> list[list[Batch]]:
    """Add steps, and after each sample and update the same way in every replay."""
    batches: list[list[Batch]] = [[] for _ in replays]
    for step in range(start, stop):
        for replay, drawn in zip(replays, batches, strict=True):
            add_step(replay, steps[step], (2,))
            if step % 3 == 2 and replay.can_sample(3):
                batch = replay.sample(8, 3, DISCOUNT, beta=0.5)
                errors = np.random.default_rng(step).exponential(size=8).astype(np.float32)
                replay.update_priorities(batch.indices, errors)
                drawn.append(batch)
            if replay.must_commit:
                _ = replay.commit()
    return batches


@settings(max_examples=40)
@given(before=st.integers(0, 70), after=st.integers(0, SLACK - 2), more=st.integers(1, 40))
def test_reopening_is_as_if_nothing_had_happened(
    tmp_path_factory: pytest.TempPathFactory, before: int, after: int, more: int
):
    folder = tmp_path_factory.mktemp("ring")
    steps = random_stream(1, 2, 400, 0.2)
    # One in memory, whose ring has no slack: files and memory sample the same.
    replay, memory = make(**SIZES, slack=SLACK, folder=folder), make(**SIZES)
    _ = advance(steps, 0, before, replay, memory)
    state = json.loads(json.dumps(replay.commit()))
    # What follows the commit must leave no trace: other steps, samples and priorities.
    _ = advance(steps, 200, 200 + after, replay)
    del replay

    reopened = FrameReplay.reopen(folder, state)
    assert reopened.commit()["priorities"] == {
        **state["priorities"],
        "file": 1 - state["priorities"]["file"],
    }
    left, right = advance(steps, before, before + more, reopened, memory)
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for name in ("indices", "weights", "observation_tm1", "return_t", "discount_t"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_the_commit_before_outlives_a_commit_that_was_not_stored(tmp_path: Path):
    steps = random_stream(1, 2, 400, 0.2)
    replay = make(**SIZES, slack=SLACK, folder=tmp_path)
    _ = advance(steps, 0, 50, replay)
    state = replay.commit()
    stored = leaves(replay)
    _ = advance(steps, 50, 55, replay)
    assert (leaves(replay) != stored).any()
    _ = replay.commit()
    for _ in range(2):  # and once more, from where it was reopened
        reopened = FrameReplay.reopen(tmp_path, state)
        np.testing.assert_array_equal(leaves(reopened), stored)
        _ = advance(steps, 50, 55, reopened)
        _ = reopened.commit()


@pytest.fixture
def committed(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    replay = make(**SIZES, slack=SLACK, folder=tmp_path)
    _ = advance(random_stream(1, 2, 60, 0.2), 0, 60, replay)
    return tmp_path, json.loads(json.dumps(replay.commit()))


def test_damaged_priorities_are_named(committed: tuple[Path, dict[str, Any]]):
    folder, state = committed
    file = folder / f"priorities_{state['priorities']['file']}.bin"
    content = file.read_bytes()
    assert len(content) == 40 * 8
    _ = file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ReplayDamaged, match=f"{file.name}: does not hold the priorities"):
        _ = FrameReplay.reopen(folder, state)
    _ = file.write_bytes(content[:-1])
    with pytest.raises(ReplayDamaged, match=rf"{file.name}: got {len(content) - 1} bytes"):
        _ = FrameReplay.reopen(folder, state)
    file.unlink()
    with pytest.raises(ReplayDamaged, match=rf"{file.name} is missing"):
        _ = FrameReplay.reopen(folder, state)
    _ = file.write_bytes(content)
    assert FrameReplay.reopen(folder, state).head == 60


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("exponent", 2, "replay state: ValueError: priority exponent: got 2"),
        ("epsilon", None, "replay state: ValueError: priority epsilon: got None"),
        ("largest", 0, "replay state: ValueError: largest: got 0"),
        ("largest", "1", "replay state: ValueError: largest: got '1'"),
        ("known", 61, "replay state: ValueError: known: got 61, expected at most 60"),
        ("n_step", -1, "replay state: ValueError: n_step: got -1"),
        ("file", 2, "replay state: ValueError: file: got 2, expected a whole number from 0 to 1"),
        ("checksum", 1, "does not hold the priorities of the commit"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    committed: tuple[Path, dict[str, Any]], name: str, value: object, message: str
):
    folder, state = committed
    for part in ({**state["priorities"], name: value}, None, {}):
        with pytest.raises(ReplayDamaged) as caught:
            _ = FrameReplay.reopen(folder, {**state, "priorities": part})
        assert "\n" not in str(caught.value)
        if part and name in part:
            assert caught.match(message)
    rest = {key: item for key, item in state["priorities"].items() if key != name}
    with pytest.raises(ReplayDamaged, match=f"replay state: KeyError: '{name}'"):
        _ = FrameReplay.reopen(folder, {**state, "priorities": rest})


def test_the_room_for_priorities_is_reserved_at_the_start(tmp_path: Path):
    _ = make(**{**SIZES, "capacity": 40_000}, slack=SLACK, folder=tmp_path)
    for number in (0, 1):
        size = (tmp_path / f"priorities_{number}.bin").stat()
        assert size.st_size == 40_000 * 8
        assert size.st_blocks * 512 >= size.st_size
