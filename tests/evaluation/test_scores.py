"""Scores by hand, the packaged table, and how often an interval holds the true mean."""

import builtins
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from noisynet.evaluation.scores import (
    atari57_games,
    human_normalised,
    interquartile_mean,
    mean_difference_interval,
    mean_interval,
    reference_scores,
)


def test_the_table_against_known_values() -> None:
    """Wang et al. 2016 (arXiv 1511.06581), table 2; dqn_zoo publishes the same."""
    known = {"ALE/Pong-v5": (-20.7, 14.6), "ALE/Breakout-v5": (1.7, 30.5),
             "ms_pacman": (307.3, 6951.6), "ALE/VideoPinball-v5": (16256.9, 17667.9),
             "double_dunk": (-18.6, -16.4)}  # fmt: skip
    for game, (random, human) in known.items():
        scores = reference_scores(game)
        assert scores is not None
        assert (scores.random, scores.human) == (random, human)
    assert len(atari57_games()) == 57


def test_every_game_of_the_table_has_its_id() -> None:
    pytest.importorskip("ale_py")
    from noisynet.envs.atari import atari_ids

    found = [name for name in atari_ids() if reference_scores(name) is not None]
    assert len(found) == 57
    assert {reference_scores(name) for name in found} == {
        reference_scores(game) for game in atari57_games()
    }


def test_human_normalised_by_hand() -> None:
    assert human_normalised("ALE/MsPacman-v5", 307.3) == 0.0
    assert human_normalised("ms_pacman", 6951.6) == 100.0
    assert human_normalised("ALE/Pong-v5", 21.0) == pytest.approx(100 * 41.7 / 35.3)
    assert human_normalised("ALE/Skiing-v5", -17098.1) == pytest.approx(0.0)
    assert human_normalised("CartPole-v1", 500.0) is None
    assert human_normalised("ALE/Tetris-v5", 1.0) is None


def test_the_interval_by_hand() -> None:
    """n = 4, mean 2.5, s = 1.290994, t = 3.182446 at 3 degrees of freedom."""
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0]) or (0.0, 0.0)
    assert low == pytest.approx(2.5 - 3.182446 * 1.290994 / 2, abs=1e-5)
    assert high == pytest.approx(2.5 + 3.182446 * 1.290994 / 2, abs=1e-5)
    narrow = mean_interval([1.0, 2.0, 3.0, 4.0], confidence=0.5)
    assert narrow is not None
    assert low < narrow[0] < narrow[1] < high


def test_what_too_few_or_equal_returns_say() -> None:
    assert mean_interval([]) is None
    assert mean_interval([21.0]) is None
    assert mean_interval([0.1] * 7) == (0.1, 0.1)
    for returns, confidence in (([1.0, float("nan")], 0.9), ([1.0, 2.0], 1.0), ([1.0, 2.0], 0.0)):
        with pytest.raises(ValueError, match=r"got .*, expected"):
            mean_interval(returns, confidence)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    """Of 2,000 samples of 5 normals, 95 %: within 4 standard errors, 4 · √(.95 · .05 / 2000)."""
    generator = np.random.default_rng(0)
    intervals = [mean_interval(generator.normal(3.0, 2.0, 5)) for _ in range(2000)]
    held = np.mean([low <= 3.0 <= high for low, high in filter(None, intervals)])
    assert abs(held - 0.95) < 0.0195


@given(
    ours=st.lists(st.floats(-100, 100), min_size=2, max_size=20),
    theirs=st.lists(st.floats(-100, 100), min_size=2, max_size=20),
)
def test_the_interval_of_a_difference_is_welch_s(ours: list[float], theirs: list[float]) -> None:
    found = mean_difference_interval(ours, theirs)
    assert found is not None
    difference = float(np.mean(ours) - np.mean(theirs))
    if np.var(ours) < 1e-12 or np.var(theirs) < 1e-12:
        assert found[0] <= difference + 1e-9
        assert found[1] >= difference - 1e-9
        return
    expected = scipy.stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert found == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


def test_a_difference_of_one_game_and_of_games_that_are_all_alike() -> None:
    assert mean_difference_interval([1.0], [1.0, 2.0]) is None
    assert mean_difference_interval([3.0, 3.0], [1.0, 1.0]) == (2.0, 2.0)
    # The variance of these has no square.
    assert mean_difference_interval([0.0, 0.0], [0.0, 1e-96]) == pytest.approx((0.0, 0.0))
    with pytest.raises(ValueError, match="expected finite numbers"):
        mean_difference_interval([1.0, float("nan")], [1.0, 2.0])


def test_without_scipy_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_scipy(name: str, *rest: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(ImportError, match=r"pip install '.*\[train\]'"):
        mean_interval([1.0, 2.0])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_interquartile_mean_is_scipys_trimmed_mean(scores: list[float]) -> None:
    expected = scipy.stats.trim_mean(scores, 0.25)
    assert interquartile_mean(scores) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([100.0, 1.0, 2.0, 4.0, -50.0]) == pytest.approx(7 / 3)
    assert interquartile_mean([3.0]) == 3.0
    assert interquartile_mean(np.array([[0.0, 1.0], [3.0, 1000.0]])) == 2.0
    for none in ([], [float("inf")]):
        with pytest.raises(ValueError, match=r"got .*, expected"):
            interquartile_mean(none)


@pytest.mark.parametrize("room", ["noisynet.envs", "noisynet.evaluation"])
def test_importing_a_room_imports_no_optional_package(room: str) -> None:
    code = f"import sys, {room}; print(*{{n.split('.')[0] for n in sys.modules}})"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"gymnasium", "ale_py", "scipy"} & set(names.stdout.split())
