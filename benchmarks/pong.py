"""Keep what Pong runs showed: condensed metrics, a summary and a plot.

    python benchmarks/pong.py runs/pong-… runs/pong-epsilon-… --commit 1a2b3c4 --machine "…"

writes `<preset>-seed<seed>.jsonl` and `.yaml`, `summary.json` and `curves.png` under
benchmarks/results/pong/, or the folder that --out names.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from noisynet.runs import Config, RunFolder, config, read_metrics

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results" / "pong"
# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
WINDOW = 20


@dataclass(frozen=True)
class Run:
    """A run's config, its games and its figures."""

    name: str
    config: Config
    games: list[dict[str, Any]]
    figures: list[dict[str, Any]]


def read_run(path: Path) -> Run:
    """Read a run folder; of the figures every tenth line is kept."""
    settings = config.from_yaml(RunFolder.open(path).config_text, str(path))
    records = list(read_metrics(path))
    games = [record for record in records if "game/return" in record]
    figures = [record for record in records if "loss" in record]
    return Run(settings.preset, settings, games, figures[::10] + figures[-1:])


def summarise(run: Run) -> dict[str, Any]:
    """Say how far the run came and what it took."""
    training = run.config.training
    last = run.games[-1]
    solved = (
        training.solved_return is not None
        and run.games[training.solved_games - 1 :] != []
        and last["game/mean_return"] >= training.solved_return
    )
    return {
        "preset": run.name,
        "seed": training.seed,
        "solved": solved,
        "steps": last["step"],
        "frames": last["step"] * run.config.environment.frame_skip,
        "games": len(run.games),
        "mean_return_of_the_last_100_games": round(last["game/mean_return"], 3),
        "best_mean_return_of_100_games": round(
            max(game["game/mean_return"] for game in run.games[99:] or run.games), 3
        ),
        "wall_minutes": round(last["time/elapsed"] / 60, 1),
        "precision": training.precision,
        "threads": training.threads,
        "made_with": run.config.made_with,
    }


def plot(runs: list[Run], file: Path) -> None:
    """Draw returns over steps, and the signal-to-noise ratio of each noisy layer."""
    figure, (returns, ratios) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    names = [run.name for run in runs]
    for run, colour in zip(runs, COLOURS, strict=False):
        seed = f", seed {run.config.training.seed}" if names.count(run.name) > 1 else ""
        plot_returns(returns, run, colour, run.name + seed)
    returns.axhline(18, color="0.6", linewidth=1, linestyle=":")
    returns.set(
        xlabel="agent steps (4 frames each)",
        ylabel=f"return of a training game (mean of {WINDOW})",
        title="Pong",
        ylim=(-21.5, 21.5),
    )
    returns.legend(loc="lower right", frameon=False)
    layers = sorted({tag for run in runs for tag in run.figures[-1] if tag.startswith("snr/")})
    noisy = next((run for run in runs if "snr/" in "".join(run.figures[-1])), None)
    if noisy is not None:
        steps = [record["step"] for record in noisy.figures]
        for layer, colour in zip(layers, COLOURS, strict=False):
            ratios.plot(
                steps,
                [record[layer] for record in noisy.figures],
                color=colour,
                label=layer.removeprefix("snr/"),
            )
        ratios.legend(loc="upper left", frameon=False)
    ratios.set(
        xlabel="agent steps (4 frames each)",
        ylabel="RMS(μ) / RMS(σ)",
        title="Signal-to-noise ratio of the noisy layers",
    )
    for axes in (returns, ratios):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
    figure.savefig(file, dpi=130)
    plt.close(figure)


def plot_returns(axes: Axes, run: Run, colour: str, label: str) -> None:
    """Draw each game as a dot and their moving mean as a line."""
    steps = np.array([game["step"] for game in run.games])
    scores = np.array([game["game/return"] for game in run.games])
    axes.plot(steps, scores, ".", color=colour, alpha=0.18, markersize=3)
    means = np.convolve(scores, np.ones(WINDOW) / WINDOW, mode="valid")
    axes.plot(steps[WINDOW - 1 :], means, color=colour, linewidth=2, label=label)


def main() -> None:
    """Read the runs, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--commit", required=True, help="the commit that the runs were made with")
    parser.add_argument("--machine", required=True, help="in words: processor, cores")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--note", default="", help="what a reader of the figures must know")
    arguments = parser.parse_args()
    runs = [read_run(path) for path in arguments.runs]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        lines = sorted(run.games + run.figures, key=lambda record: record["step"])
        text = "".join(json.dumps(line) + "\n" for line in lines)
        name = f"{run.name}-seed{run.config.training.seed}"
        (arguments.out / f"{name}.jsonl").write_text(text)
        (arguments.out / f"{name}.yaml").write_text(run.config.to_yaml())
    summary = {
        "commit": arguments.commit,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": arguments.machine,
        "note": arguments.note,
        "runs": [summarise(run) for run in runs],
    }
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(runs, arguments.out / "curves.png")
    print(json.dumps(summary["runs"], indent=1))


if __name__ == "__main__":
    main()
