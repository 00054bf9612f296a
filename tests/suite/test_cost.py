"""What a suite is said to cost, against sums done by hand."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from noisynet.runs import config
from noisynet.suite.cost import estimate, frames_of, steps_per_second
from noisynet.suite.plan import Plan, plan


@pytest.fixture(scope="module")
def atari57() -> Plan:
    pytest.importorskip("ale_py", reason="Atari is an extra")
    return plan("atari57", Path("nowhere"))


def test_atari57_is_the_paper_s_comparison(atari57: Plan) -> None:
    """57 games × 4 agents × 3 seeds, 200 million frames each: 50 million steps."""
    left = atari57.steps_left()
    assert len(atari57.trials) == len(left) == 57 * 4 * 3 == 684
    assert set(left.values()) == {50_000_000}
    one = atari57.trials[:1]
    assert frames_of(one, left) == 200_000_000
    assert frames_of(atari57.trials, left) == 684 * 200_000_000
    assert len({trial.game for trial in atari57.trials}) == 57


def test_its_estimate_rests_on_the_speed_of_each_agent(atari57: Plan) -> None:
    speeds = {"dqn": 1000.0, "noisy-dqn": 500.0, "dueling": 250.0, "noisy-dueling": 250.0}
    left = atari57.steps_left()
    # 171 runs of 50 million steps an agent: 8.55 billion, at 1 + 2 + 4 + 4 ms a step.
    seconds = 8_550_000_000 * 0.011
    assert estimate(atari57.trials, left, speeds, at_once=16) == [
        "684 trials still have 34,200,000,000 steps to take (136,800,000,000 frames)",
        *(
            f"{label}: {speed:,.0f} steps/s, measured here in 8 s of ALE/Alien-v5 with 1 thread"
            for label, speed in speeds.items()
        ),
        f"At that speed: {seconds // 86400:,.0f} d one after the other",
        # 5,878,125 s.
        "16 at the same time, if none slows another: 68 d 0:48:45",
        # A million frames of 84 × 84 bytes each.
        "Replays on disk: up to 4,826 GB for all trials together",
    ]


def test_what_is_done_already_is_not_counted(atari57: Plan) -> None:
    some = atari57.trials[:3]
    left = {some[0].name: 0, some[1].name: 1_000, some[2].name: 2_600}
    said = estimate(some, left, {some[0].label: 1.0}, at_once=64)
    assert said[0] == "2 trials still have 3,600 steps to take (14,400 frames)"
    assert said[2] == "At that speed: 1:00:00 one after the other"
    # No more of them at the same time than there are.
    assert said[3] == "2 at the same time, if none slows another: 0:30:00"


def test_a_search_runs_its_trials_at_each_point(atari57: Plan) -> None:
    some = [replace(trial, label="point") for trial in atari57.trials[:2]]
    left = {trial.name: 900 for trial in some}
    said = estimate(some, left, {"point": 10.0}, at_once=None, points=20)
    assert said[0] == "40 trials still have 36,000 steps to take (144,000 frames)"
    assert said[2:] == [
        "At that speed: 1:00:00 one after the other",
        "Replays on disk: up to 282 GB for all trials together",
    ]


def test_the_speed_of_an_agent_that_learns_a_rollout_in_many_updates() -> None:
    # A window of no length ends among the updates of one rollout.
    assert steps_per_second(config.load("pqn-cartpole", {"threads": 1}), seconds=0.0) > 0


def test_an_interrupt_while_speed_is_measured_is_one() -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        steps_per_second(config.load("cartpole", {"threads": 1}), seconds=60.0)
