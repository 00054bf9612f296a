"""What is known of the presets: what each is, and what it did where it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

from . import config, yaml_text
from .config import Config

FIGURES = "preset_figures.yaml"
"""Beside this file: {preset: [time, score, where they are recorded]}."""


@dataclass(frozen=True)
class Card:
    """A preset in a line."""

    config: Config
    what: str
    """What it is: the first sentence of its file."""
    time: str | None = None
    """How long it takes on two CPU cores; None where it was not measured."""
    score: str | None = None
    """Median over seeds of the mean return of new games with the mean weights."""
    measured_in: str | None = None
    """Where both are recorded."""

    def to_json(self) -> dict[str, Any]:
        """Return it without the config."""
        return {
            "what": self.what,
            "steps": self.config.training.steps,
            "time": self.time,
            "score": self.score,
            "measured_in": self.measured_in,
        }


def cards() -> dict[str, Card]:
    """Return the card of each preset that the package brings."""
    text = (resources.files("noisynet.runs") / FIGURES).read_text("utf-8")
    figures: dict[str, list[str]] = yaml_text.load(text)
    return {
        name: Card(config.load(name), config.first_comment(name), *figures.get(name, ()))
        for name in config.preset_names()
    }
