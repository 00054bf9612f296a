"""Shards: fragments whole or not at all, never twice, nothing that reaches over a gap.

And batches over several shards: who gives how many rows, and weights that make up for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisynet.replay import Batch, FrameReplay, PrioritySettings
from noisynet.samplers.messages import ReplayFragment
from noisynet.samplers.shard import Shard, ShardPlan
from noisynet.samplers.sharded_replay import LocalHost, ShardedReplay, ShardLost, with_shards
from noisynet.training import WorkersFailed

STACK, STEPS, ENVIRONMENTS = 3, 5, 2
Make = Callable[..., Shard]


def make_plan(folder: Path, **changes: Any) -> ShardPlan:
    plan = {
        "number": 0, "samplers": (0, 1), "environments": ENVIRONMENTS, "capacity": 400,
        "frame_shape": (2,), "frame_dtype": "<i4", "stack": STACK, "slack": 200, "seed": 1,
        "priority": None, "folder": folder / "shard",
    }  # fmt: skip
    return ShardPlan(**{**plan, **changes})


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(saved: Any = None, **changes: Any) -> Shard:
        return Shard(make_plan(tmp_path, **changes), saved)

    return build


class Player:
    """Play games of seven steps; each frame says whose it is and when: (sampler · 10 + i, t)."""

    def __init__(self, sampler: int, life: int = 0) -> None:
        self.sampler, self.life, self.number, self.time = sampler, life, 0, 0

    def fragment(self) -> ReplayFragment:
        times = np.arange(self.time, self.time + STEPS)
        self.time += STEPS
        frame = np.zeros((STEPS, ENVIRONMENTS, 2), np.int32)
        frame[:, :, 0] = 1 + self.sampler * 10 + np.arange(ENVIRONMENTS)
        frame[:, :, 1] = 1 + self.life * 1000 + times[:, None]

        def all_environments(flag: np.ndarray) -> np.ndarray:
            return np.repeat(flag[:, None], ENVIRONMENTS, axis=1)

        return ReplayFragment(
            frame=frame,
            action=np.repeat(times[:, None], ENVIRONMENTS, axis=1).astype(np.int32),
            reward=all_environments(times.astype(np.float32)),
            terminated=all_environments(times % 8 == 6),
            truncated=np.zeros((STEPS, ENVIRONMENTS), bool),
            first=all_environments(times % 8 == 0),
            ignored=all_environments(times % 8 == 7),
        )

    def send(self, shard: Shard, *, lose: bool = False) -> None:
        fragment = self.fragment()
        if not lose:
            assert shard.insert(self.sampler, self.life, self.number, fragment).accepted
        self.number += 1


def assert_true_to_the_games(shard: Shard, n_step: int = 2) -> set[tuple[int, int]]:
    """Everything that can be drawn is a transition of one game; gives who and when began it."""
    seen = set()
    batch = shard.sample(2000, n_step, 1.0, None).batch
    for row in range(2000):
        stack, after = batch.observation_tm1[row], batch.observation_t[row]
        who, when = (int(value) for value in stack[-1])
        step = (when - 1) % 1000
        assert who > 0, "a record that fills a gap was drawn"
        assert int(batch.action_tm1[row]) == step
        began = step % 8
        expected = [(who, when - back) if back <= began else (0, 0) for back in (2, 1, 0)]
        assert stack.tolist() == [list(pair) for pair in expected]
        taken = min(n_step, 7 - began)
        assert batch.return_t[row] == sum(range(step, step + taken))
        if batch.discount_t[row]:
            assert after[-1].tolist() == [who, when + n_step]
        seen.add((who, when))
    return seen


def test_one_sampler_s_fragments_are_what_a_replay_would_have_been_given(make: Make) -> None:
    shard, player = make(samplers=(4,)), Player(4)
    plain = FrameReplay(
        capacity=400, environments=ENVIRONMENTS, frame_shape=(2,), frame_dtype="<i4", stack=STACK,
        slack=0, seed=1,
    )  # fmt: skip
    for number in range(6):
        fragment = player.fragment()
        shard.insert(4, 0, number, fragment)
        for step in range(STEPS):
            plain.add(**{name: array[step] for name, array in fragment.arrays().items()})
    one, other = shard.sample(64, 2, 0.9, None).batch, plain.sample(64, 2, 0.9)
    for name in ("observation_tm1", "action_tm1", "return_t", "discount_t", "observation_t"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_a_fragment_is_never_taken_twice_and_steps_wait_for_all_samplers(make: Make) -> None:
    shard, players = make(), [Player(0), Player(1)]
    fragment = players[0].fragment()
    assert shard.insert(0, 0, 0, fragment).accepted
    assert shard.size(1) == 0  # the other one has given nothing yet
    players[1].send(shard)
    size = shard.size(1)
    assert size == 2 * STEPS * ENVIRONMENTS
    assert not shard.insert(0, 0, 0, fragment).accepted
    assert shard.size(1) == size
    assert_true_to_the_games(shard)


def test_a_lost_fragment_leaves_nothing_that_reaches_over_the_gap(make: Make) -> None:
    shard, players = make(), [Player(0), Player(1)]
    for number in range(6):
        for player in players:
            # The second of sampler 0 never comes, and the third begins in the middle of a game.
            player.send(shard, lose=player.sampler == 0 and number == 1)
    players[0].send(shard)
    seen = assert_true_to_the_games(shard)
    after = 2 * STEPS
    # Stacks that would miss a frame are out, the next one is in; the other sampler lost nothing.
    assert {when - 1 for who, when in seen if who == 1} & {after, after + 1} == set()
    assert (1, 1 + after + 2) in seen
    assert {(11, 1 + after), (11, 2 + after)} & seen


def test_a_successor_whose_first_fragment_is_lost_does_not_continue_its_predecessor_s_game(
    make: Make,
) -> None:
    shard, player, successor = make(samplers=(0,)), Player(0), Player(0, life=1)
    for _ in range(3):  # it dies in the middle of a game
        player.send(shard)
    shard.leave_out(0)
    for number in range(3):
        successor.send(shard, lose=number == 0)
    seen = assert_true_to_the_games(shard)
    assert {when for _, when in seen} >= {1 + 8, 1001 + 8}


def test_the_others_go_on_without_a_dead_sampler_until_its_successor_is_there(make: Make) -> None:
    shard, players = make(), [Player(0), Player(1)]
    for _ in range(2):
        for player in players:
            player.send(shard)
    shard.leave_out(0)
    before = shard.size(1)
    for _ in range(2):
        players[1].send(shard)
    # The ring went on, with records of nothing in the dead one's place.
    assert shard.size(1) == before + 2 * STEPS * 2 * ENVIRONMENTS
    successor = Player(0, life=1)
    successor.send(shard)
    players[1].send(shard)
    # What the dead one had still to say comes too late.
    assert not shard.insert(0, 0, 2, players[0].fragment()).accepted
    seen = assert_true_to_the_games(shard)
    assert (1, 1001) in seen
    assert (11, 2 + 3 * STEPS) in seen


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("reward", lambda array: np.where(np.arange(len(array))[:, None] == 3, np.nan, array)),
        ("frame", lambda array: array[:, :1]),
        ("action", lambda array: array.astype(np.int64)),
        ("first", lambda array: array[:-1]),
    ],
)
def test_a_misfit_is_refused_whole(make: Make, name: str, change: Any) -> None:
    shard, player = make(samplers=(0,)), Player(0)
    player.send(shard)
    before = shard.size(1)
    arrays = player.fragment().arrays()
    with pytest.raises(ValueError, match=f"fragment: {name}"):
        shard.insert(0, 0, 1, ReplayFragment(**{**arrays, name: change(arrays[name])}))
    assert shard.size(1) == before


@pytest.mark.parametrize("priority", [None, PrioritySettings(exponent=0.5, epsilon=1e-3)])
def test_a_shard_comes_back_from_its_commit_and_knows_what_it_had(
    make: Make, priority: PrioritySettings | None
) -> None:
    shard, players = make(priority=priority), [Player(0), Player(1)]
    for _ in range(3):
        for player in players:
            player.send(shard)
    saved = shard.commit()
    size = shard.size(1)
    for player in players:  # lost with the process
        player.send(shard)
    again = make(saved, priority=priority)
    assert again.size(1) == size
    assert not again.insert(0, 0, 2, Player(0).fragment()).accepted
    for _ in range(2):
        for player in players:
            player.send(again)
    if priority is None:
        seen = assert_true_to_the_games(again)
        assert {(1, 1 + 5), (1, 1 + 22)} <= seen
        assert not {when for _, when in seen} & set(range(1 + 15, 1 + 22))


def test_without_room_steps_wait_for_the_commit(make: Make) -> None:
    shard, player = make(samplers=(0,), capacity=20, slack=4), Player(0)
    for _ in range(4):
        player.send(shard)
    stored = shard.commit()
    fragment = player.fragment()
    told = shard.insert(0, 0, player.number, fragment)
    assert told.accepted
    assert told.must_commit
    shard.commit()
    make(stored, samplers=(0,), capacity=20, slack=4)  # its checkpoint is the newest on disk
    newest = {int(when) for _, when in shard.sample(500, 1, 1.0, None).batch.observation_tm1[:, -1]}
    assert max(newest) >= player.time - 2


BETA = 0.6


def make_replay(folder: Path, shards: int, priority: PrioritySettings | None) -> ShardedReplay:
    plan = make_plan(folder, priority=priority, capacity=4000)
    plans = with_shards(plan, 4, shards, lambda number: number)
    make = partial(LocalHost, fetch=lambda parcel: parcel)
    return ShardedReplay(plans, make, n_step=1, seed=0)


def fill(replay: ShardedReplay, fragments: int = 6) -> None:
    players = [Player(sampler) for sampler in range(4)]
    for _ in range(fragments):
        for player in players:
            assert replay.insert(player.sampler, 0, player.number, player.fragment())
            player.number += 1


def draw(replay: ShardedReplay, rows: int, beta: float | None = None) -> Batch[np.ndarray]:
    assert replay.can_sample(1)
    batch = replay.sample(rows, 1, 0.9, beta=beta)
    assert batch is not None
    return batch


def keys(batch: Any) -> list[tuple[int, int]]:
    return [(int(who), int(when)) for who, when in batch.observation_tm1[:, -1]]


def test_plans_share_out_samplers_and_capacity(tmp_path: Path) -> None:
    plans = with_shards(make_plan(tmp_path, capacity=1000), 5, 2, lambda number: number)
    assert [plan.samplers for plan in plans] == [(0, 2, 4), (1, 3)]
    assert [plan.capacity for plan in plans] == [600, 400]
    assert len({plan.folder for plan in plans}) == len({plan.seed for plan in plans}) == 2


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_uniform_batches_are_uniform_over_all_shards(tmp_path: Path, shards: int) -> None:
    replay = make_replay(tmp_path, shards, None)
    assert not replay.can_sample(1)
    fill(replay)
    counts: dict[tuple[int, int], int] = {}
    for _ in range(400):
        batch = draw(replay, 50)
        assert batch.weights is None
        for key in keys(batch):
            counts[key] = counts.get(key, 0) + 1
    # 30 steps of a player, less those that are ignored or whose successor is not there yet.
    who = {player for player, _ in counts}
    assert who == {1 + 10 * sampler + i for sampler in range(4) for i in range(ENVIRONMENTS)}
    expected = 20_000 / len(counts)
    assert len(counts) == 8 * 26
    # Poisson-like: five standard deviations.
    assert max(abs(count - expected) for count in counts.values()) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("shards", [1, 3])
def test_weights_make_up_for_priorities_over_all_shards(tmp_path: Path, shards: int) -> None:
    """w ∝ P(i)^-β: the sum of all priorities drops out where it is the same for all rows."""
    replay = make_replay(tmp_path, shards, PrioritySettings(exponent=1.0, epsilon=1e-6))
    fill(replay)
    generator = np.random.default_rng(0)
    priority: dict[tuple[int, int], float] = {}
    for _ in range(60):
        batch = draw(replay, 64, BETA)
        # Shards with errors of very different sizes.
        errors = generator.random(64) + [who / 10 for who, _ in keys(batch)]
        assert batch.indices is not None
        replay.update_priorities(batch.indices, errors)
        priority |= {
            key: float(error) + 1e-6 for key, error in zip(keys(batch), errors, strict=True)
        }
    assert len(priority) == 8 * 26
    total = sum(priority.values())
    counts = dict.fromkeys(priority, 0)
    for _ in range(600):
        batch = draw(replay, 64, BETA)
        rows = keys(batch)
        for key in rows:
            counts[key] += 1
        weights = batch.weights
        assert weights is not None
        assert weights.max() == 1
        if shards == 1:
            drawn = np.array([priority[key] for key in rows])
            assert weights == pytest.approx((drawn.min() / drawn) ** BETA, rel=1e-4)
        else:
            # Shares are whole rows, so weights differ from the ideal by a row in each share.
            drawn = np.array([priority[key] for key in rows])
            ideal = (drawn.min() / drawn) ** BETA
            assert np.abs(weights / ideal - 1).max() < 0.35
    expected = np.array([64 * 600 * priority[key] / total for key in counts])
    got = np.array(list(counts.values()))
    assert (np.abs(got - expected) < 5 * np.sqrt(expected) + 0.02 * expected).all()


class Mortal(LocalHost):
    """A shard in this process that can die."""

    dead = False

    def call(self, method: str, *arguments: Any) -> Any:
        return lost if self.dead else super().call(method, *arguments)


def lost() -> Any:
    raise ShardLost("killed")


@pytest.fixture
def hosts() -> list[Mortal]:
    """All shards that a replay of `mortal_replay` has made so far."""
    return []


@pytest.fixture
def mortal_replay(tmp_path: Path, hosts: list[Mortal]) -> Callable[..., ShardedReplay]:
    def make(plan: ShardPlan, saved: Any) -> Mortal:
        hosts.append(Mortal(plan, saved, fetch=lambda parcel: parcel))
        return hosts[-1]

    def build(samplers: int, shards: int, saved: Any = None, **changes: Any) -> ShardedReplay:
        plans = with_shards(make_plan(tmp_path, **changes), samplers, shards, lambda number: number)
        return ShardedReplay(plans, make, saved=saved, n_step=1, seed=0)

    return build


def play(replay: ShardedReplay, player: Player) -> bool:
    player.number += 1
    return replay.insert(player.sampler, player.life, player.number - 1, player.fragment())


def test_a_restored_shard_does_not_wait_for_a_dead_sampler(
    mortal_replay: Callable[..., ShardedReplay], hosts: list[Mortal]
) -> None:
    replay, players = mortal_replay(2, 1), [Player(0), Player(1)]
    assert all(play(replay, player) for player in players)
    replay.leave_out(0)
    hosts[0].dead = True
    assert not play(replay, players[1])  # lost with the shard
    assert not replay.can_sample(1)
    assert play(replay, players[1])
    assert replay.can_sample(1)
    # It waits for the successor once that has sent something.
    successor = Player(0, life=1)
    assert play(replay, successor)
    hosts[1].dead = True
    assert not play(replay, players[1])
    assert play(replay, players[1])
    assert not replay.can_sample(1)


@pytest.mark.parametrize("left_out", [False, True])
def test_a_shard_that_dies_again_and_again_ends_the_run(
    mortal_replay: Callable[..., ShardedReplay],
    hosts: list[Mortal],
    monkeypatch: pytest.MonkeyPatch,
    left_out: bool,
) -> None:
    replay, players = mortal_replay(2, 1), [Player(0), Player(1)]
    assert all(play(replay, player) for player in players)
    replay.commit()
    # It survives two deaths in a row, if it answers after them.
    hosts[0].dead = True
    monkeypatch.setattr(Mortal, "dead", property(lambda one: len(hosts) < 3, lambda *_: None))
    assert replay.can_sample(1)
    assert len(replay.restarted) == 2
    if left_out:
        replay.leave_out(0)
    monkeypatch.setattr(Mortal, "dead", True)
    with pytest.raises(WorkersFailed, match=r"^shard 0 died 3 times without an answer: killed$"):
        replay.can_sample(1)


def test_a_shard_that_dies_before_the_first_commit_of_a_resumed_run(
    mortal_replay: Callable[..., ShardedReplay], hosts: list[Mortal]
) -> None:
    replay, player = mortal_replay(1, 1), Player(0)
    assert all(play(replay, player) for _ in range(3))
    # The samplers are new, and count from 0 again.
    replay, player = mortal_replay(1, 1, replay.commit()["shards"]), Player(0)
    assert play(replay, player)
    hosts[1].dead = True
    assert not play(replay, player)  # lost with the shard
    assert play(replay, player)


def test_errors_of_rows_that_died_with_their_shard_are_dropped(
    mortal_replay: Callable[..., ShardedReplay], hosts: list[Mortal]
) -> None:
    replay = mortal_replay(4, 2, priority=PrioritySettings(exponent=1.0, epsilon=1e-6))
    fill(replay)
    replay.commit()
    before = draw(replay, 64, BETA)
    assert before.indices is not None
    assert set(before.indices["shard"].tolist()) == {0, 1}
    hosts[0].dead = True
    after = draw(replay, 64, BETA)
    assert [(one.shard, one.reason) for one in replay.restarted] == [(0, "killed")]
    assert len(hosts) == 3
    asked: list[tuple[str, np.ndarray]] = []
    for name, host in (("first", hosts[2]), ("second", hosts[1])):

        def call(method: str, indices: Any, errors: np.ndarray, name: str = name) -> Any:
            assert method == "update_priorities"
            asked.append((name, errors))
            return lambda: None

        host.call = call  # type: ignore[method-assign]
    errors = np.arange(64.0)
    replay.update_priorities(before.indices, errors)
    ((name, told),) = asked
    assert name == "second"
    assert told.tolist() == errors[before.indices["shard"] == 1].tolist()
    assert after.indices is not None
    replay.update_priorities(after.indices, errors)
    assert [name for name, _ in asked] == ["second", "first", "second"]
