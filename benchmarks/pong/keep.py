"""Save the results of Pong runs: condensed metrics, a summary and a picture.

    python -m benchmarks.pong.keep runs/pong-… runs/pong-epsilon-… --commit 1a2b3c4 --machine "…"
    python -m benchmarks.pong.keep --redraw benchmarks/results/pong/fast

The first writes `<preset>-seed<seed>.jsonl` and `.yaml`, `summary.json` and `curves.png` to
results/pong, or to the folder that --out names. The second draws curves.png again from the kept
files.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from noisynet.runs import Config, RunFolder, config, read_metrics

from ..provenance import RESULTS, provenance, write_json

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

FOLDER = RESULTS / "pong"
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
WINDOW = 20
# Fields of former versions (commit 839f2e3), which made fewer updates once the agent won.
GONE = re.compile(r"^  final_update_(every|return): .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """A run's config, its games and its figures."""

    name: str
    config: Config
    games: list[dict[str, Any]]
    figures: list[dict[str, Any]]

    @property
    def file_name(self) -> str:
        """The name of the kept files, without suffix."""
        return f"{self.name}-seed{self.config.training.seed}"


def run_of(config_text: str, records: list[dict[str, Any]], source: str) -> Run:
    """Build a run from its config and its metrics."""
    settings = config.from_yaml(config_text, source)
    games = [record for record in records if "game/return" in record]
    figures = [record for record in records if "loss" in record]
    return Run(settings.preset, settings, games, figures)


def read_run(path: Path) -> Run:
    """Read a run folder; keep every tenth line of the figures and the last.

    Figures of single environments are left out.
    """
    run = run_of(RunFolder.open(path).config_text, list(read_metrics(path)), str(path))
    figures = [
        {tag: value for tag, value in record.items() if "/env_" not in tag}
        for record in run.figures[::10] + run.figures[-1:]
    ]
    return Run(run.name, run.config, run.games, figures)


def read_kept(folder: Path) -> list[Run]:
    """Read the runs that a summary names from the files beside it.

    Fields that no longer exist are left out of the configs, as nothing here uses them.
    """
    runs: list[Run] = []
    for one in json.loads((folder / "summary.json").read_text())["runs"]:
        path = folder / f"{one['preset']}-seed{one['seed']}"
        lines = path.with_suffix(".jsonl").read_text().splitlines()
        text = GONE.sub("", path.with_suffix(".yaml").read_text())
        runs.append(run_of(text, [json.loads(line) for line in lines], str(path)))
    return runs


def summarise(run: Run) -> dict[str, Any]:
    """Return how far the run got and what it took."""
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--commit", help="the commit that the runs were made with")
    parser.add_argument("--machine", help="in words: processor, cores")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--note", default="", help="what a reader of the figures must know")
    parser.add_argument("--redraw", type=Path, metavar="FOLDER", help="only draw its curves.png")
    arguments = parser.parse_args()
    if arguments.redraw is not None:
        plot(read_kept(arguments.redraw), arguments.redraw / "curves.png")
        return
    if not (arguments.runs and arguments.commit and arguments.machine):
        parser.error("runs, --commit and --machine are needed without --redraw")
    runs = [read_run(path) for path in arguments.runs]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        lines = sorted(run.games + run.figures, key=lambda record: record["step"])
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (arguments.out / f"{run.file_name}.jsonl").write_text(text)
        (arguments.out / f"{run.file_name}.yaml").write_text(run.config.to_yaml())
    summary = {
        **provenance(arguments.machine, arguments.commit),
        "note": arguments.note,
        "runs": [summarise(run) for run in runs],
    }
    write_json(arguments.out / "summary.json", summary)
    plot(runs, arguments.out / "curves.png")
    print(json.dumps(summary["runs"], indent=1))


if __name__ == "__main__":
    main()
