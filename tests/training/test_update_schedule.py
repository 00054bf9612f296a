"""When updates come due, counted out, and the step sizes that go by it."""

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
from noisynet.training import Progress, ReplayLearner, UpdateSchedule


@given(every=st.integers(1, 50), warmup=st.integers(0, 500), step=st.integers(0, 5000))
def test_updates_come_due_one_after_the_other(every: int, warmup: int, step: int) -> None:
    schedule = UpdateSchedule(warmup_steps=warmup, update_every=every)
    due = schedule.updates_due(step)
    # Counted out: a step that ends a round of `every` steps.
    assert due == len(range(every, step - warmup + 1, every))
    # The inverse: the last of them came due by now, and the next one has not.
    assert schedule.steps_due(due) <= max(step - warmup, 0) < schedule.steps_due(due + 1)


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
def test_the_step_size_goes_by_the_schedule_and_by_what_was_saved(from_graph: bool) -> None:
    chosen = config.load(
        "cartpole",
        {
            "update_every": 40, "final_learning_rate": 1e-5, "device": "cpu",
            "precision": "float32",
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
    learner.agent.updates = 150
    other = make_learner(learner.agent.state())
    other.restore(learner.state())
    # 150 updates of 40 steps, linearly to 1e-5 at the last step.
    done = (150 * 40) / (
        (learning.learning_rate_steps or chosen.training.steps) - learning.warmup_steps
    )
    expected = learning.learning_rate + done * (1e-5 - learning.learning_rate)
    sizes = [size_at_the_next_update(one) for one in (learner, other)]
    assert sizes[0] == sizes[1] == pytest.approx(expected, abs=1e-9)
    assert expected < learning.learning_rate == size_at_the_next_update(make_learner())


def test_a_learner_takes_over_what_former_versions_saved() -> None:
    chosen = config.load("cartpole", {"device": "cpu", "precision": "float32"})
    agent = build_agent(chosen, (4,), 2)
    assert isinstance(agent, QLearning)
    learner = ReplayLearner(agent, OneBatch(), update_schedule(chosen))
    saved = {"losses": [0.5], "target_copies": 3}
    # Their updates could become fewer once the agent won.
    learner.restore({**saved, "schedule": {"thinned_from": None, "recent_returns": [9.0]}})
    assert learner.state() == saved
