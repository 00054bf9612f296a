"""Cards of the presets: a description of each, with its time and score if measured."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

from . import config, yaml_text
from .config import Config

FIGURES = "preset_figures.yaml"
"""The file beside this one that holds {preset: [time, score, where they are recorded]}."""


@dataclass(frozen=True)
class Card:
    """What is shown of a preset: its config, a description, and measured results."""

    config: Config
    what: str
    """A description: the first sentence of the preset's file."""
    time: str | None = None
    """Training time on a machine with two CPU cores; None if it was not measured."""
    score: str | None = None
    """Median over seeds of the mean return of new games with the mean weights."""
    measured_in: str | None = None
    """The file in which both are recorded."""

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values, with only the number of steps from its config."""
        return {
            "what": self.what,
            "steps": self.config.training.steps,
            "time": self.time,
            "score": self.score,
            "measured_in": self.measured_in,
        }


def cards() -> dict[str, Card]:
    """Return the cards of the package's presets, by name."""
    text = (resources.files("noisynet.runs") / FIGURES).read_text("utf-8")
    figures: dict[str, list[str]] = yaml_text.load(text)
    return {
        name: Card(config.load(name), config.first_comment(name), *figures.get(name, ()))
        for name in config.preset_names()
    }
