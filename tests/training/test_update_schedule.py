"""When updates come due, counted out, and what makes them thin out."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisynet.agents import QLearning
from noisynet.assemble import build_agent
from noisynet.assemble.agents import step_size
from noisynet.assemble.assembler import update_schedule
from noisynet.replay import Batch
from noisynet.runs import config
from noisynet.training import Progress, ReplayLearner
from noisynet.training.update_schedule import RECENT_GAMES, UpdateSchedule


def schedule(every: int = 4, later: int | None = None, warmup: int = 0) -> UpdateSchedule:
    return UpdateSchedule(
        update_every=every,
        final_update_every=later,
        final_update_return=None if later is None else 10.0,
        warmup_steps=warmup,
    )


def play(chosen: UpdateSchedule, step: int, *returns: float) -> None:
    for one in returns:
        chosen.game_finished(step, one)


@given(
    every=st.integers(1, 50), later=st.integers(1, 50) | st.none(),
    start=st.integers(1, 3000), warmup=st.integers(0, 500), step=st.integers(0, 5000),
)  # fmt: skip
def test_updates_come_due_one_after_the_other(
    every: int, later: int | None, start: int, warmup: int, step: int
) -> None:
    chosen = schedule(every, later, warmup)
    play(chosen, start, *[10.0] * RECENT_GAMES)
    assert chosen.thinned_from == (None if later is None else start)
    due = chosen.updates_due(step)
    # Counted out: a step that ends a round of `every` steps, or of `later` ones from `start` on.
    begin = max(start, warmup)
    early = range(every, step - warmup + 1, every)
    if later is not None:
        late = range(later, step - begin + 1, later)
        early = [at for at in early if at <= begin - warmup]
        assert due == len(early) + len(late)
    else:
        assert due == len(early)
    # The inverse: the last of them came due by now, and the next one has not.
    assert chosen.steps_due(due) <= max(step - warmup, 0) < chosen.steps_due(due + 1)


def test_ten_games_in_a_row_make_updates_thin_out_and_nothing_undoes_it() -> None:
    chosen = schedule(every=4, later=40)
    play(chosen, 100, *[30.0] * (RECENT_GAMES - 1))
    assert chosen.thinned_from is None
    play(chosen, 200, -300.0)  # a mean of -3
    assert chosen.thinned_from is None
    play(chosen, 400, *[10.0] * (RECENT_GAMES - 1))  # -300 is still the tenth
    assert chosen.thinned_from is None
    assert chosen.updates_due(400) == 100
    play(chosen, 404, 10.0)
    assert chosen.thinned_from == 404
    play(chosen, 500, *[-21.0] * 50)
    assert chosen.thinned_from == 404
    assert [chosen.updates_due(step) for step in (404, 443, 444, 484)] == [101, 101, 102, 103]


def test_what_was_heard_is_kept() -> None:
    chosen, other = schedule(later=40), schedule(later=40)
    play(chosen, 100, *[10.0] * 5)
    other.restore(chosen.state())
    for one in (chosen, other):
        play(one, 200, *[10.0] * 5)
    assert chosen.thinned_from == other.thinned_from == 200
    third = schedule(later=40)
    third.restore(chosen.state())
    assert third.updates_due(240) == chosen.updates_due(240) == 51


AgentState = tuple[dict[str, np.ndarray], dict[str, Any]]


class OneBatch:
    """A replay that has the same batch for whoever asks."""

    must_commit = False

    def can_sample(self, n_step: int) -> bool:
        return True

    def sample(self, batch_size: int, *_: Any, **__: Any) -> Batch[np.ndarray]:
        observation = np.zeros((batch_size, 4), np.float32)
        return Batch(
            observation_tm1=observation,
            action_tm1=np.zeros(batch_size, np.int64),
            return_t=np.zeros(batch_size, np.float32),
            discount_t=np.zeros(batch_size, np.float32),
            observation_t=observation,
        )

    def update_priorities(self, indices: np.ndarray, td_errors: np.ndarray) -> None:
        raise AssertionError("batches are drawn uniformly")

    def commit(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("from_graph", [False, True])
def test_a_learner_keeps_its_schedule_and_the_step_size_goes_by_it(from_graph: bool) -> None:
    chosen = config.load(
        "cartpole",
        {
            "final_update_every": 40, "final_update_return": 5.0, "final_learning_rate": 1e-5,
            "device": "cpu", "precision": "float32",
        },
    )  # fmt: skip
    learning = chosen.learning

    def make_learner(saved: AgentState | None = None) -> ReplayLearner:
        agent = build_agent(chosen, (4,), 2)
        assert isinstance(agent, QLearning)
        if saved is not None:
            agent.restore(*saved)
        return ReplayLearner(
            agent,
            OneBatch(),
            update_schedule(chosen),
            batch_size=2,
            step_size=step_size(chosen),
            from_graph=from_graph,
        )

    def size_at_the_next_update(learner: ReplayLearner) -> float:
        progress = Progress(steps=chosen.training.steps)
        schedule, updates = learner.schedule, learner.agent.updates
        while schedule.updates_due(progress.step) <= updates:
            progress.step += 1
        list(learner.learn(progress, None, lambda: learner.agent.updates == updates))
        assert learner.agent.updates == updates + 1
        return float(learner.agent.optimizer.param_groups[0]["lr"])

    learner = make_learner()
    for _ in range(RECENT_GAMES):
        learner.game_finished(2000, 7.0)
    assert learner.schedule.thinned_from == 2000
    learner.agent.updates = learner.schedule.updates_due(2000) + 100
    other = make_learner(learner.agent.state())
    other.restore(learner.state())
    assert other.schedule.thinned_from == 2000
    # 100 updates of 40 steps after the 2,000, linearly to 1e-5 at the last step.
    done = (2000 + 100 * 40 - learning.warmup_steps) / (
        (learning.learning_rate_steps or chosen.training.steps) - learning.warmup_steps
    )
    expected = learning.learning_rate + done * (1e-5 - learning.learning_rate)
    sizes = [size_at_the_next_update(one) for one in (learner, other)]
    assert sizes[0] == sizes[1] == pytest.approx(expected, abs=1e-9)
    assert expected < learning.learning_rate == size_at_the_next_update(make_learner())


def test_a_learner_of_before_there_was_a_schedule_begins_with_a_fresh_one() -> None:
    chosen = config.load("cartpole", {"device": "cpu", "precision": "float32"})
    agent = build_agent(chosen, (4,), 2)
    assert isinstance(agent, QLearning)
    learner = ReplayLearner(agent, OneBatch(), update_schedule(chosen))
    learner.restore({"losses": [0.5], "target_copies": 3})
    state = learner.state()
    assert state["losses"] == [0.5]
    assert state["target_copies"] == 3
    assert state["schedule"] == UpdateSchedule().state()
