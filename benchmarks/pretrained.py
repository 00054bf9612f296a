"""Make a pretrained agent from a run: python -m benchmarks.pretrained RUN NAME.

It saves the acting network of the newest checkpoint in half precision, and plays new games with it,
so that the scores are those of the agent that comes with the package. After an interruption it
continues with the evaluations that are missing. `--beside` plays the same number of games with the
run itself too, in its own precision.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from noisynet.evaluation.agent import evaluate_run
from noisynet.evaluation.conditions import noise_in_words
from noisynet.runs import Config, Run, config, open_run
from noisynet.runs import checkpoint as checkpoints
from noisynet.runs.evaluations import keep_evaluation, read_evaluations
from noisynet.runs.pretrained import AGENTS, COMMAND

GAMES = 100
OF_THE_MACHINE = ("device", "precision", "threads", "replay_device", "execution")
DRAWS = (0, 1, 8)
"""Draws that the agent acts by: 0 for its mean weights, 8 for the mean of Q over 8 draws."""


def acting_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of the acting network, in half precision, and the scale of its noise."""
    acting = "online." if any(name.startswith("online.") for name in arrays) else "network."
    with np.errstate(over="ignore"):  # an overflow is refused below, by name
        kept = {
            name: one.astype(np.float16) if one.dtype == np.float32 else one
            for name, one in arrays.items()
            if name.startswith(acting) or name == "noise.scale"
        }
    if bad := [name for name, one in kept.items() if not np.isfinite(one).all()]:
        raise SystemExit(f"{', '.join(bad)}: beyond what half precision holds")
    return kept


def command_of(chosen: Config) -> str:
    """Return the command that trains with this config: its preset and the fields that differ."""
    base = config.load(chosen.preset).by_section()
    words = ["noisynet", "train", chosen.preset]
    for section, fields in chosen.by_section().items():
        for field, value in fields.items():
            if value != base[section][field] and field not in OF_THE_MACHINE:
                words += [config.option_name(field), _word(value)]
    return shlex.join(words)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value).lower() if value in (True, False) else str(value)


def make(run: Run, folder: Path, command: str) -> None:
    """Write the folder of an agent; replace one that is from another run or step."""
    found = run.trained()
    if folder.exists() and _is_of(folder, run, found.step):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(run.folder.config_file.read_text())
    (folder / COMMAND).write_text(f"{command}\n")
    state = {
        "elapsed": found.state["elapsed"],
        "metrics_bytes": 0,
        "config": found.state["config"],
        "agent": {"updates": found.state["agent"]["updates"]},
        "loop": {"step": found.step, "games": found.state["loop"]["games"], "returns": []},
    }
    checkpoints.write(folder / "checkpoints", found.step, acting_arrays(found.arrays), state)


def _is_of(folder: Path, run: Run, step: int) -> bool:
    same = (folder / "config.yaml").read_text() == run.folder.config_file.read_text()
    return same and checkpoints.newest_step(folder / "checkpoints") == step


def main() -> None:
    """Make an agent, play with it, and print its scores."""
    parser = argparse.ArgumentParser(description="Make a pretrained agent of a run.")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--games", type=int, default=GAMES)
    parser.add_argument("--command", help="what made the run, where its config does not say it")
    parser.add_argument("--beside", action="store_true", help="play with the run itself as well")
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    folder = AGENTS / arguments.name
    make(run, folder, arguments.command or command_of(run.config))
    played = {one.noise for one in read_evaluations(folder)}
    for draws in DRAWS if run.config.exploration.has_noise else DRAWS[:1]:
        if noise_in_words(draws) in played:
            continue
        kept = evaluate_run(folder, episodes=arguments.games, noise=draws)
        keep_evaluation(folder, kept)
        print(f"{kept['noise']}: {kept['mean']:.2f}, deviation {kept['std']:.2f}", flush=True)
        if arguments.beside:
            whole = evaluate_run(run.path, episodes=arguments.games, noise=draws)
            print(f"the run itself: {whole['mean']:.2f}", flush=True)
    print(f"{sum(one.stat().st_size for one in folder.rglob('*') if one.is_file()):,} bytes")
    print((folder / COMMAND).read_text(), end="")


if __name__ == "__main__":
    main()
