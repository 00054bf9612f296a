"""The crew, with samplers that a test answers for: how long it waits, and what a death costs."""

from __future__ import annotations

import time
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from noisynet.samplers import crew as crew_module
from noisynet.samplers.backend import Arrived, Lost
from noisynet.samplers.crew import Crew, Replaced
from noisynet.samplers.messages import Report, RolloutFragment
from noisynet.samplers.rollout_source import SampledRolloutSource
from noisynet.training import WorkerRestarted, WorkersFailed


class Scripted:
    """Samplers that do what a test has put into `events`, one event for each `take`."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def publish(self, weights: Any) -> Any:
        return weights

    def start(self, assignment: Any) -> None:
        pass

    def ask(self, sampler: int, order: Any, weights: Any) -> None:
        pass

    def take(self, timeout: float) -> Any:
        del timeout
        return self.events.pop(0) if self.events else None

    def open(self, parcel: Any) -> Any:
        return parcel

    def close(self) -> None:
        pass


@pytest.fixture
def samplers() -> Scripted:
    return Scripted()


@pytest.fixture
def crew(samplers: Scripted) -> Crew:
    made = Crew(samplers, lambda number, life: (number, life), 2, lambda: {"w": np.zeros(3)})  # type: ignore[arg-type, return-value]
    made.start()
    return made


def ask(crew: Crew, number: int) -> None:
    crew.ask(crew.members[number], step=0, version=0, oldest=0)


def test_only_waiting_counts_for_its_patience(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_POLL_SECONDS", 200.0)
    assert [crew.take() for _ in range(5)] == [None] * 5  # none was asked for anything
    ask(crew, 0)
    # The learner learned for an hour, or its process was stopped.
    now = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert [crew.take() for _ in range(3)] == [None] * 3
    with pytest.raises(WorkersFailed, match="no sampler has answered for 800 seconds"):
        crew.take()


def test_a_dead_sampler_s_fragments_are_counted(crew: Crew, samplers: Scripted) -> None:
    for number in (0, 1, 1):
        ask(crew, number)
    samplers.events = [Lost(sampler=1, life=0, reason="killed")]
    assert crew.take() == Replaced(sampler=1, reason="killed", restarts=1, lost=2)
    assert not crew.members[1].in_flight


def test_a_dead_sampler_s_rollouts_are_lost_those_that_wait_for_others_too(
    crew: Crew, samplers: Scripted
) -> None:
    agent: Any = SimpleNamespace(updates=0)
    source = SampledRolloutSource(agent, crew, environments=1, stack=1, max_staleness=1)
    progress: Any = SimpleNamespace(step=0)
    report = Report(number=0, version=0, steps=1, games=[], nbytes=1, noise={})
    nothing: dict[str, Any] = {field.name: None for field in fields(RolloutFragment)}
    samplers.events = [
        Arrived(sampler=1, life=0, report=report, parcel=RolloutFragment(**nothing)),
        Lost(sampler=1, life=0, reason="killed"),
    ]
    assert list(source.play(progress)) == []
    assert [type(event) for event in source.play(progress)] == [WorkerRestarted]
    # One had arrived, and one was being played.
    assert source.figures(progress)["scale/lost_fragments"] == 2
