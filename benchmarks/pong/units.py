"""Count the units of Pong's CNNs that are alive, in the newest checkpoints of runs.

    python -m benchmarks.pong.units [NAME=]runs/a [NAME=]runs/b …

adds the figures to results/pong/units.json, or to the file that --out names. All are computed with
the mean weights on the same eight observations, from new games after 60 random actions.

- `alive`: the share of the CNN's features that are above 0;
- `feature_deviation`: the deviation of a feature over the observations, averaged over features;
- `q_deviation`: the deviation of an action's Q, divided by its largest |Q|; the largest of all
  actions.

For comparison, the file also has untrained networks: of the preset `pong`, and with a small torso.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noisynet import mean_weights
from noisynet.agents import QLearning
from noisynet.assemble import make_environments
from noisynet.runs import Config, RunFolder, checkpoint, config

from ..provenance import RESULTS, write_json
from ..training.made_up import ACTIONS, pong_agent

FILE = RESULTS / "pong" / "units.json"

NEW = {"nature": "new, nature", "data-efficient": "new, data-efficient"}


def observations(seed: int = 0) -> torch.Tensor:
    """Play 60 random actions in eight games; return the observations then, (8, 4, 84, 84)."""
    environments = make_environments(config.load("pong"), seed=seed)
    generator = np.random.default_rng(seed)
    seen = environments.reset()
    for _ in range(60):
        seen = environments.step(generator.integers(ACTIONS, size=environments.count)).observation
    environments.close()
    return torch.from_numpy(seen)


def agent_of(chosen: Config) -> QLearning:
    """Build a new agent on the CPU, in float32."""
    return pong_agent(chosen.replaced(device="cpu", precision="float32"))


@torch.no_grad()
def units(agent: QLearning, seen: torch.Tensor) -> dict[str, float]:
    """Compute the figures that the module's docstring defines."""
    with mean_weights(agent.online):
        features, q = agent.online.torso(seen), agent.online(seen)
    return {
        "alive": float((features > 0).float().mean()),
        "feature_deviation": float(features.std(0).mean()),
        "q_deviation": float((q.std(0) / q.abs().amax(0)).max()),
    }


def of_run(path: Path, seen: torch.Tensor) -> dict[str, Any]:
    """Measure a run's newest checkpoint."""
    chosen = config.from_yaml(RunFolder.open(path).config_text, str(path))
    found = checkpoint.read_newest(path / "checkpoints")
    if found is None:
        raise SystemExit(f"{path}: no checkpoint")
    agent = agent_of(chosen)
    agent.load_acting(found.arrays)
    updates = int(found.state["agent"]["updates"])
    return {"step": found.step, "updates": updates, **units(agent, seen)}


def main() -> None:
    """Measure untrained networks and runs, and write the file."""
    parser = argparse.ArgumentParser(description="How many units of Pong's CNNs are alive?")
    parser.add_argument("runs", nargs="*", metavar="[NAME=]RUN", help="a name, and a run's folder")
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    seen = observations()
    measured: dict[str, Any] = (
        json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    )
    for torso, name in NEW.items():
        for seed in range(4):
            new = agent_of(config.load("pong", {"torso": torso, "seed": seed}))
            measured[f"{name}, seed {seed}"] = {"step": 0, "updates": 0, **units(new, seen)}
    for one in arguments.runs:
        name, _, path = one.rpartition("=")
        measured[name or Path(path).name] = of_run(Path(path), seen)
    write_json(arguments.out, measured)
    for name, figures in measured.items():
        print(name, {key: float(f"{value:.2g}") for key, value in figures.items()})


if __name__ == "__main__":
    main()
