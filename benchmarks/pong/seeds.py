"""Measure the steps and minutes until Pong is solved, over seeds, and evaluate each run.

    python -m benchmarks.pong.seeds pqn-pong --seeds 100-109 --machine "…"
    python -m benchmarks.pong.seeds pqn-pong-epsilon --seeds 100-109 --at-once 2 --machine "…"
    python -m benchmarks.pong.seeds --redraw

A run is `noisynet train PRESET --seed S` in its own process; its time is that of training, from the
first step on. If several run at once, each has one thread, and only their steps count, not their
minutes. A run is then evaluated in 20 new games by its mean weights, and again with its noise if it
has any. Seeds that are already in the preset's file are left out, so that a series can be continued
later. Writes `<preset>.jsonl`, `summary.json`, `curves.png` over the clock and `steps.png` over
steps to results/pong/seeds; results that other scripts, such as sb3_ppo.py, wrote there in the same
form are summarised and drawn as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from noisynet.cli.options import positive
from noisynet.evaluation.scores import mean_interval
from noisynet.runs import open_run, read_metrics

from ..processes import run_module
from ..provenance import RESULTS, provenance, write_json

mpl.use("Agg")
from matplotlib import pyplot as plt

FOLDER = RESULTS / "pong" / "seeds"
TWINS = ("pqn-pong", "pqn-pong-epsilon")
Run = dict[str, Any]
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
WINDOW = 20
EPISODES = 20
# The kinds of evaluation that a line may have, and their names in the summary.
EVALUATIONS = {"off": "noise_off", "on": "noise_on", "sampled": "sampled"}


def measure(preset: str, seed: int, options: list[str]) -> Run:
    """Train and evaluate one seed, and return the results."""
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "run"
        run_module("noisynet", "train", preset, "--seed", str(seed), "--out", str(run), *options)
        config = open_run(run).config
        games = [record for record in read_metrics(run) if "game/return" in record]
        last = games[-1]
        solved = config.training.solved_return
        measured: Run = {
            "seed": seed,
            "solved": solved is not None and last["game/mean_return"] >= solved and len(games) > 99,
            "steps": last["step"],
            "minutes": round(last["time/elapsed"] / 60, 2),
            "games": [
                [one["step"], round(one["time/elapsed"]), one["game/return"]] for one in games
            ],
            "snr": [
                [
                    record["step"],
                    *(round(record[tag], 2) for tag in sorted(record) if "snr/" in tag),
                ]
                for record in read_metrics(run)
                if any(tag.startswith("snr/") for tag in record)
            ][::4],
            "evaluations": {},
            "config": config.model_dump(mode="json"),
        }
        for noise in ("off", "on") if config.exploration.has_noise else ("off",):
            played = ("--episodes", str(EPISODES), "--noise", noise, "--json")
            output = run_module("noisynet", "evaluate", str(run), *played)
            found = json.loads(output)
            measured["evaluations"][noise] = {
                name: found[name] for name in ("mean", "interval", "returns", "lengths", "cut")
            }
    return measured


def read(name: str, folder: Path = FOLDER) -> list[Run]:
    """Return the runs of a file, which has a preset's name."""
    file = folder / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add(name: str, line: Run, folder: Path = FOLDER) -> None:
    """Add a run to a file, making both where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def write_summary(folder: Path = FOLDER) -> None:
    """Summarise and draw the runs of all files in the folder."""
    names = sorted(file.stem for file in folder.glob("*.jsonl"))
    of = {name: read(name, folder) for name in names}
    summary: dict[str, Any] = {name: summarise(runs) for name, runs in of.items()}
    if of.keys() >= set(TWINS):
        noise, epsilon = (of[name] for name in TWINS)
        summary["steps, ε-greedy less noise"] = difference(epsilon, noise)
    write_json(folder / "summary.json", summary)
    timed = {name: runs for name, runs in of.items() if all(map(ran_alone, runs))}
    draw(timed, folder / "curves.png", by="minutes")
    draw(of, folder / "steps.png", by="steps")


def ran_alone(run: Run) -> bool:
    """Return whether no other run went on beside it, so that its minutes can be compared."""
    return run.get("at_once", 1) == 1


def difference(runs: Sequence[Run], others: Sequence[Run]) -> dict[str, Any]:
    """Return how many more steps `runs` took than `others`, over the seeds that both solved.

    `later` counts the common seeds for which `runs` is later than `others`; a run that was not
    solved counts as later than one that was.
    """
    first, second = ({run["seed"]: run for run in one} for one in (runs, others))
    pairs = [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]
    of = [
        one["steps"] - other["steps"] for one, other in pairs if one["solved"] and other["solved"]
    ]
    return {
        "seeds": len(pairs),
        "later": sum(_when(one) > _when(other) for one, other in pairs),
        "solved by both": len(of),
        "mean": round(float(np.mean(of))) if of else None,
        "interval": mean_interval(of),
    }


def _when(run: Run) -> float:
    return run["steps"] if run["solved"] else float("inf")


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the median and the worst time of the seeds, and their evaluations.

    A seed that was not solved counts as later than all that were. A time that this leaves unknown
    is None, and so are the times of runs that were not alone.
    """
    solved = sorted(run["minutes"] for run in runs if run["solved"])
    minutes = solved + [float("inf")] * (len(runs) - len(solved))
    alone = all(map(ran_alone, runs))
    summary: dict[str, Any] = {
        "seeds": [run["seed"] for run in runs],
        "solved": len(solved),
        "minutes": {run["seed"]: run["minutes"] if ran_alone(run) else None for run in runs},
        "steps": {run["seed"]: run["steps"] for run in runs},
        "median_minutes": _known(float(np.median(minutes))) if alone else None,
        "worst_minutes": _known(minutes[-1]) if alone else None,
        "median_steps": int(np.median([run["steps"] for run in runs])),
    }
    for kind, name in EVALUATIONS.items():
        means = [run["evaluations"][kind]["mean"] for run in runs if kind in run["evaluations"]]
        if means:
            summary[name] = {
                "means": [round(one, 2) for one in means],
                "mean": round(float(np.mean(means)), 2),
                "interval": mean_interval(means),
            }
    return summary


def _known(minutes: float) -> float | None:
    """Return the minutes; None where they are infinite, which JSON does not have."""
    return round(minutes, 2) if np.isfinite(minutes) else None


def draw(of: Mapping[str, Sequence[Run]], file: Path, *, by: str) -> None:
    """Draw returns over "minutes" or "steps", and the number of seeds solved by then."""
    figure, (returns, solved) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    column, unit = (1, 60.0) if by == "minutes" else (0, 1000.0)
    for (name, runs), colour in zip(of.items(), cycle(COLOURS), strict=False):
        count = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
        returns.plot([], [], color=colour, alpha=0.75, label=f"{name}, {count}")
        for run in runs:
            if len(run["games"]) < WINDOW:
                continue
            columns = np.array(run["games"], float).T
            means = np.convolve(columns[2], np.ones(WINDOW) / WINDOW, mode="valid")
            returns.plot(columns[column][WINDOW - 1 :] / unit, means, color=colour, alpha=0.75)
        ends = [run["minutes"] if by == "minutes" else run["steps"] / unit for run in runs]
        at = sorted(end for end, run in zip(ends, runs, strict=True) if run["solved"])
        counts = np.arange(len(at) + 1)
        solved.step([0, *at, max(ends)], [*counts, len(at)], where="post", color=colour)
    returns.axhline(18, color="0.6", linewidth=1, linestyle=":")
    words = "minutes" if by == "minutes" else "thousand agent steps"
    returns.set(xlabel=words, ylabel=f"return of a training game (mean of {WINDOW})", title="Pong")
    returns.legend(loc="center right", frameon=False)
    solved.set(
        xlabel=words, ylabel="seeds", title="Solved: the last 100 games return 18 in the mean"
    )
    for axes in (returns, solved):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(left=0)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run what is missing, then summarise and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("presets", nargs="*", help="the presets to run")
    parser.add_argument("--seeds", default="100-109", help="first and last")
    parser.add_argument("--at-once", type=positive, default=1, help="runs beside each other (1)")
    parser.add_argument("--machine", help="in words: processor, cores")
    parser.add_argument("--redraw", action="store_true", help="only summarise and draw")
    arguments, options = parser.parse_known_args()
    if not arguments.redraw and not (arguments.presets and arguments.machine):
        parser.error("presets and --machine are needed without --redraw")
    if arguments.at_once > 1:
        options = ["--threads", "1", *options]
    first, last = (int(one) for one in arguments.seeds.split("-"))
    jobs = [
        (preset, seed)
        for seed in range(first, last + 1)
        for preset in arguments.presets
        if all(run["seed"] != seed for run in read(preset))
    ]
    made = provenance(arguments.machine) | {"at_once": arguments.at_once} if jobs else {}

    def run(job: tuple[str, int]) -> None:
        preset, seed = job
        line = made | measure(preset, seed, options)
        add(preset, line)
        print(preset, seed, line["solved"], line["steps"], line["minutes"], flush=True)

    with ThreadPoolExecutor(arguments.at_once) as pool:
        list(pool.map(run, jobs))
    write_summary()


if __name__ == "__main__":
    main()
