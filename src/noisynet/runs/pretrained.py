"""The package's pretrained agents: each is a run folder that holds only what acting needs.

    agents/NAME/config.yaml          the config that it was trained with
                checkpoints/         its newest checkpoint, with only the acting network
                evaluations.jsonl    the games that its scores are from
                command.txt          the commands that made it

`python -m benchmarks.pretrained RUN NAME` makes one from a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import checkpoint
from .config import Config
from .errors import RunError, did_you_mean
from .evaluations import Evaluation, read_evaluations
from .opening import open_run

AGENTS = Path(__file__).parent / "agents"
COMMAND = "command.txt"


@dataclass(frozen=True)
class AgentCard:
    """What is shown of a pretrained agent: its config, how it was made, and its scores."""

    config: Config
    step: int
    """Agent steps that it was trained for."""
    command: str
    """The commands that made it, one per line."""
    evaluations: tuple[Evaluation, ...]
    """Evaluations on new games: with the mean weights first, then under noise."""

    @property
    def scores(self) -> dict[str, str]:
        """Mean return and number of games by noise, such as {"off": "500.0 (100 games)"}."""
        return {one.noise: f"{one.mean:.1f} ({len(one.returns)} games)" for one in self.evaluations}

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values, with those fields of the config that tell its origin."""
        return {
            "environment": self.config.environment.environment,
            "preset": self.config.preset,
            "seed": self.config.training.seed,
            "step": self.step,
            "commit": self.config.made_with.get("commit"),
            "command": self.command,
            "scores": {
                one.noise: {"mean": one.mean, "games": len(one.returns)} for one in self.evaluations
            },
        }


def names() -> list[str]:
    """Return the names of the pretrained agents."""
    return sorted(one.name for one in AGENTS.iterdir() if (one / "config.yaml").exists())


def pretrained(name: str) -> Path:
    """Return the folder of a pretrained agent, which is read like that of a run.

    Raises RunError, with the nearest name, if there is no agent of this name.
    """
    if name not in names():
        meant = did_you_mean(name, names())
        raise RunError(f"pretrained: got {name!r}, expected one of {', '.join(names())}{meant}")
    return AGENTS / name


def check_resumable(folder: Path) -> None:
    """Raise RunError for a pretrained agent: it has neither optimizer nor replay."""
    if folder.resolve().parent == AGENTS.resolve():
        raise RunError(
            f"{folder.name}: got a pretrained agent, expected a run: it keeps no optimizer"
        )


def agent_cards() -> dict[str, AgentCard]:
    """Return the cards of the pretrained agents, by name."""
    return {name: _card(AGENTS / name) for name in names()}


def _card(folder: Path) -> AgentCard:
    step = checkpoint.newest_step(folder / "checkpoints")
    assert step is not None, f"{folder} holds no checkpoint"
    return AgentCard(
        open_run(folder).config,
        step,
        (folder / COMMAND).read_text("utf-8").strip(),
        tuple(read_evaluations(folder)),
    )
