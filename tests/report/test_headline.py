"""The first lines of a page: score, steps, time, solved or not, and whether variants differ."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from noisynet.report.comparison import compare
from noisynet.report.groups import variants
from noisynet.report.headline import headline
from noisynet.runs.record import read_run


def said(*paths: Path) -> str:
    kinds = variants([read_run(path) for path in paths])
    return unescape(re.sub(r"(<[^>]*>)+", " | ", headline(kinds, compare(kinds))))


def test_a_run_that_was_solved(write_run) -> None:
    goal = {"solved_return": 400.0, "solved_games": 2}
    text = said(write_run("run", [9.0, 449.7354, 450.0], **goal))
    assert "noise | 449.9 | mean return of the last 2 training games" in text
    assert "solved at step 300 (goal 400)" in text
    assert "300 steps in 0:00:04" in text


def test_a_run_that_was_not(write_run) -> None:
    text = said(write_run("run", [9.0, 11.0], solved_return=400.0))
    assert "10.00 | mean return of all 2 training games | not solved (goal 400), stopped" in text
    assert "solved" not in said(write_run("other", [9.0]))


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (50.0, "Every run of noise scores higher than every run of ε-greedy."),
        (-50.0, "Every run of ε-greedy scores higher than every run of noise."),
        (0.0, "these runs do not tell the two apart."),
    ],
)
def test_seeds_of_two_variants(write_run, shift: float, expected: str) -> None:
    paths = [
        write_run(f"{preset}{seed}", [10.0 * seed + by] * 3, seed=seed, preset=preset)
        for preset, by in (("cartpole", shift), ("cartpole-epsilon", 0.0))
        for seed in range(3)
    ]
    text = said(*paths)
    assert "interquartile mean of 3 runs: mean return of the last 100 training games" in text
    assert "0 of 3 solved" not in text
    assert expected in text


def test_one_seed_each_says_nothing_of_which_is_better(write_run) -> None:
    text = said(write_run("a", [90.0]), write_run("b", [9.0], preset="cartpole-epsilon"))
    assert "Too few runs to say whether noise or ε-greedy is better" in text
    assert "probability" not in text


def test_many_groups_are_totals(write_run) -> None:
    games = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum")
    paths = [
        write_run(f"{preset}-{game}", [1.0], preset=preset, environment=game)
        for preset in ("cartpole", "cartpole-epsilon")
        for game in games
    ]
    text = said(*paths)
    assert "runs | 8 | 8 stopped" in text
    assert "agent steps | 800" in text


def test_a_probability_without_an_interval_claims_none(write_run) -> None:
    # One run of each game leaves the bootstrap nothing to draw from.
    scores = {"Pong": (1.0, 0.0), "Breakout": (1.0, 0.0), "Freeway": (0.0, 1.0)}
    paths = [
        write_run(f"{preset}-{game}", [both[place]], preset=preset, environment=f"ALE/{game}-v5")
        for place, preset in enumerate(("pong", "pong-epsilon"))
        for game, both in scores.items()
    ]
    text = said(*paths)
    assert "with a probability of 0.67: these runs do not tell the two apart." in text
    assert "95 %" not in text
