"""Compare data-efficient Rainbow with and without noise on 100,000 steps of Atari games.

    python -m benchmarks.study.atari100k --machine "…"    trains what is missing, and keeps it
    python -m benchmarks.study.atari100k --table           only the table
    python -m benchmarks.study.atari100k --tasks ALE/Pong-v5 --seeds 5    more games, more seeds

The arms are those of `noisynet suite atari100k`, and one more, `others`, that no config describes:
the authors' σ0 of 0.1 with the noise of other libraries' layers (`OneLayerAsOthersHaveIt` in
faulty.py). Runs are in the suite's folder (runs/atari100k): an interrupted run continues, and
trials that the suite has trained are not trained again. Each finished run is one line of
results/study/atari100k.jsonl, and its replay is deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from noisynet.evaluation.scores import bootstrap_interval, interquartile_mean, interquartile_means
from noisynet.suite.file import Suite, SuiteErrors, read_suite
from noisynet.suite.published import PUBLISHED, atari_environment, normalised, published_scores
from noisynet.suite.runner import task_for
from noisynet.suite.task import result_of, run_trial, training_seconds
from noisynet.suite.trials import Trial, grid_trials

from ..provenance import RESULTS
from ..tables import markdown_table
from . import faulty
from .compare import cell, iqm_cell, mean_cell, paired, ratios, signed, span
from .part import Part, Record, run_part
from .run import curve_of, effective_epsilon_of, training_games

SUITE = "atari100k"
FILE = RESULTS / "study" / "atari100k.jsonl"
FOLDER = Path("runs") / SUITE
EPSILON, AUTHORS, OTHERS = "epsilon", "sigma-0.1", "others"
TASKS = {atari_environment(game): game for game in published_scores("atari100k")}
"""The benchmark's 26 games, by the environment's id."""
ARMS = {
    EPSILON: "ε-greedy",
    AUTHORS: "noise, σ0 0.1 (the authors')",
    "sigma-0.5": "noise, σ0 0.5",
    "target-0.05": "noise held at ε 0.05",
    OTHERS: "one layer as others have it, σ0 0.1",
}
EPSILON_SHARE = 0.036
"""The share of a run until ε has fallen: 1,600 steps of warm-up and 2,000 more, of 100,000."""
AGENTS = PUBLISHED["atari100k"].agents


@cache
def suite() -> Suite:
    """Read the suite."""
    _, found, problems = read_suite(SUITE)
    if found is None:
        raise SuiteErrors(problems)
    return found


def trial_of(task: str, arm: str, seed: int) -> Trial:
    """Return a trial of the suite; that of `others` is the authors' trial under another name."""
    cells = suite().model_copy(update={"games": (TASKS[task],), "seeds": (seed,)})
    trained_as = AUTHORS if arm == OTHERS else arm
    (found,) = (one for one in grid_trials(cells) if one.label == f"der {trained_as}")
    return replace(found, name=found.name.replace(trained_as, arm))


def run(game: str, arm: str, seed: int) -> Record | None:
    """Train and evaluate one run, or continue it; return None if it was interrupted."""
    trial = trial_of(game, arm, seed)
    task = task_for(trial, suite(), FOLDER)
    with faulty.agents_of(faulty.OneLayerAsOthersHaveIt if arm == OTHERS else None):
        answer = run_trial(task)
    result = result_of(task)
    if result is None:
        if answer["state"] == "interrupted":
            return None
        raise RuntimeError(f"{trial.name}: {answer}")
    shutil.rmtree(task.folder / "replay", ignore_errors=True)
    steps = trial.config.training.steps
    curve = curve_of(training_games(task.folder), steps)[1::2]
    played = {noise: one["mean"] for noise, one in result["evaluations"].items()}
    return {
        "task": game,
        "arm": arm,
        "seed": seed,
        "final": played["off"],
        "final_with_noise": played.get("on"),
        "area": float(np.mean(curve)),
        "curve": [round(value, 1) for value in curve],
        "effective_epsilon": effective_epsilon_of(task.folder),
        "steps": steps,
        "wall_seconds": round(training_seconds(task.folder) or 0.0, 1),
    }


def name_of(task: str) -> str:
    """Return a game's name for tables."""
    return task.removeprefix("ALE/").removesuffix("-v5")


def table(records: Sequence[Record]) -> str:
    """Return tables of the games, of all of them together, and of the time."""
    if not records:
        return "No run has been finished yet.\n"
    tasks = [task for task in TASKS if any(one["task"] == task for one in records)]
    return "\n".join([*_by_game(records, tasks), *_overall(records, tasks), *_time(records, tasks)])


def _by_game(records: Sequence[Record], tasks: Sequence[str]) -> list[str]:
    """Return the score of each game, what noise adds to ε-greedy, and what was published."""
    rows: list[list[str]] = []
    for task in tasks:
        published = published_scores("atari100k")[TASKS[task]]
        for arm, words in ARMS.items():
            mine = [one for one in records if (one["task"], one["arm"]) == (task, arm)]
            if not mine:
                continue
            more = None if arm == EPSILON else paired(records, task, arm, EPSILON, "final")
            rows.append([
                name_of(task),
                words,
                mean_cell([one["final"] for one in mine]),
                "–" if arm == EPSILON else mean_cell([one["final_with_noise"] for one in mine]),
                "–" if more is None else cell(more),
                *(signed(published[agent], plus=False) for agent in AGENTS),
            ])  # fmt: skip
    heads = ("game", "arm", "by the mean weights", "under noise", "minus ε-greedy")
    return ["### Scores", "", *markdown_table((*heads, *AGENTS.values()), rows), ""]


def _overall(records: Sequence[Record], tasks: Sequence[str]) -> list[str]:
    """Return the human-normalised interquartile mean over the games that all arms have played.

    Of each game, only the seeds that all arms have count.
    """
    scores = {
        (task, arm): {one["seed"]: one["final"] for one in records
                      if (one["task"], one["arm"]) == (task, arm)}
        for task in tasks
        for arm in ARMS
    }  # fmt: skip
    common = {
        task: sorted(set.intersection(*(set(scores[task, arm]) for arm in ARMS))) for task in tasks
    }
    games = [task for task, seeds in common.items() if seeds]
    if not games:
        return ["### All games", "", "No game has been played by all arms yet.", ""]
    rows: list[list[str]] = []
    for arm, words in ARMS.items():
        strata = [
            [normalised(TASKS[task], scores[task, arm][seed]) for seed in common[task]]
            for task in games
        ]
        interval = bootstrap_interval(interquartile_means, strata)
        value = interquartile_mean([one for of_game in strata for one in of_game])
        shown = "–" if interval is None else f"{signed(value, plus=False)} {span(interval)}"
        rows.append([words, str(len(games)), str(sum(map(len, strata))), shown])
    for agent, words in AGENTS.items():
        means = [
            normalised(TASKS[task], published_scores("atari100k")[TASKS[task]][agent])
            for task in games
        ]
        shown = signed(interquartile_mean(means), plus=False)
        rows.append([f"{words}, published", str(len(games)), "–", shown])
    heads = ("arm", "games", "runs", "human-normalised IQM, percent")
    return ["### All games", "", *markdown_table(heads, rows), ""]


def _time(records: Sequence[Record], tasks: Sequence[str]) -> list[str]:
    """Return the minutes of a training, and the share of them that noise costs."""
    rows: list[list[str]] = []
    for arm, words in ARMS.items():
        minutes = [one["wall_seconds"] / 60 for one in records if one["arm"] == arm]
        shares = [
            100 * (1 - without)
            for task in tasks
            for without in ratios(records, task, EPSILON, arm, "wall_seconds")
        ]
        if minutes:
            rows.append([
                words, iqm_cell(minutes), "–" if arm == EPSILON else iqm_cell(shares)
            ])  # fmt: skip
    heads = ("arm", "minutes of a training", "share of noise, percent")
    return ["### Time", "", *markdown_table(heads, rows), ""]


PART = Part(
    file=FILE,
    arms=dict.fromkeys(TASKS, tuple(ARMS)),
    seeds={task: 3 if game in suite().games else 0 for task, game in TASKS.items()},
    run=run,
    minutes=dict.fromkeys(TASKS, 33.0),
    table=table,
)


if __name__ == "__main__":
    run_part(PART, __doc__)
