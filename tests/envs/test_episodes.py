"""Games counted by hand-written steps: when each is reported, once, with its true return."""

import json

import numpy as np
import pytest

from noisynet.envs import EpisodeCounter, FinishedEpisode, Step, UnusableEnvironment


def one(
    reward: float, *, terminated: bool = False, truncated: bool = False, first: bool = False,
    ended: bool = False,
) -> Step:  # fmt: skip
    """Return a step of a single environment."""
    flags = (np.array([flag]) for flag in (terminated, truncated, first, ended))
    return Step(np.zeros((1, 4), np.float32), np.array([reward], np.float32), *flags)


def test_a_game_whose_end_is_known_is_reported_with_its_last_step() -> None:
    counter = EpisodeCounter(1)
    assert counter.update(one(2.0)) == []
    assert counter.update(one(3.0, terminated=True, ended=True)) == [FinishedEpisode(0, 5.0, 2)]
    assert counter.update(one(0.0, first=True)) == []
    assert counter.update(one(7.0, truncated=True, ended=True)) == [FinishedEpisode(0, 7.0, 1)]


def test_a_game_whose_end_shows_later_is_reported_at_the_first_that_follows() -> None:
    counter = EpisodeCounter(1)
    assert counter.update(one(2.0, terminated=True)) == []  # a life lost
    assert counter.update(one(4.0, terminated=True)) == []  # the game over, unseen
    assert counter.update(one(0.0, first=True)) == [FinishedEpisode(0, 6.0, 2)]
    assert counter.update(one(1.0, terminated=True, ended=True)) == [FinishedEpisode(0, 1.0, 1)]


def test_a_sum_is_kept_in_double_precision() -> None:
    counter = EpisodeCounter(1)
    counter.update(one(2.0**24))
    counter.update(one(1.0))
    assert counter.update(one(1.0, ended=True)) == [FinishedEpisode(0, 2.0**24 + 2, 3)]


def test_a_saved_count_goes_on() -> None:
    counter, other = EpisodeCounter(1), EpisodeCounter(1)
    counter.update(one(0.1))
    other.restore(json.loads(json.dumps(counter.state())))
    assert other.state() == counter.state()
    last = one(0.2, ended=True)
    assert other.update(last) == counter.update(last)


def test_another_number_of_environments_is_refused() -> None:
    with pytest.raises(UnusableEnvironment, match="got one of 1 environments, expected 2"):
        EpisodeCounter(2).update(one(1.0))
    with pytest.raises(UnusableEnvironment, match="got one of 2 environments, expected 1"):
        EpisodeCounter(1).restore(EpisodeCounter(2).state())
    with pytest.raises(UnusableEnvironment, match="count: got 0"):
        EpisodeCounter(0)
