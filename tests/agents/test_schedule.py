"""When updates come due, counted out, and what makes them thin out."""

from hypothesis import given
from hypothesis import strategies as st

from noisynet.agents import QLearning
from noisynet.training.update_schedule import RECENT_GAMES, UpdateSchedule
from noisynet.runs import config
from noisynet.runs.sections import LearningSection


def schedule(every: int = 4, later: int | None = None, warmup: int = 0) -> UpdateSchedule:
    return UpdateSchedule(
        LearningSection(
            update_every=every,
            final_update_every=later,
            final_update_return=None if later is None else 10.0,
            warmup_steps=warmup,
        )
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


def test_an_agent_keeps_its_schedule_and_its_step_size_goes_by_it() -> None:
    chosen = config.load(
        "cartpole",
        {
            "final_update_every": 40, "final_update_return": 5.0, "final_learning_rate": 1e-5,
            "device": "cpu", "precision": "float32",
        },
    )  # fmt: skip
    agent, other = QLearning(chosen, (4,), 2), QLearning(chosen, (4,), 2)
    play(agent.schedule, 2000, *[7.0] * RECENT_GAMES)
    agent.updates = agent.schedule.updates_due(2000) + 100
    before = other.learning_rate()
    other.restore(*agent.state())
    assert other.schedule.thinned_from == 2000
    assert other.learning_rate() == agent.learning_rate() < before
    # 100 updates of 40 steps after the 2,000, linearly to 1e-5 at the last step.
    learning = chosen.learning
    done = (2000 + 100 * 40 - learning.warmup_steps) / (
        (learning.learning_rate_steps or chosen.training.steps) - learning.warmup_steps
    )
    expected = learning.learning_rate + done * (1e-5 - learning.learning_rate)
    assert abs(agent.learning_rate() - expected) < 1e-9
