"""The paper's own table, to stand beside ours: Fortunato et al., arXiv 1706.10295."""

from __future__ import annotations

import csv
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..evaluation.scores import ReferenceScores, interquartile_mean

AGENTS = {
    "dqn": "DQN",
    "noisynet_dqn": "NoisyNet-DQN",
    "a3c": "A3C",
    "noisynet_a3c": "NoisyNet-A3C",
    "dueling": "Dueling",
    "noisynet_dueling": "NoisyNet-Dueling",
}
"""Columns of the table, and the agents' names."""

VIDEO_PINBALL = "video_pinball"
"""The game whose random score is 16256.9, and 0 in the means that the paper prints."""


@dataclass(frozen=True)
class PaperScores:
    """One game's row: mean and deviation by agent, and the scores to normalise by."""

    reference: ReferenceScores
    mean: dict[str, float]
    std: dict[str, float]


@cache
def paper_scores() -> dict[str, PaperScores]:
    """Give the table: {game, as ms_pacman: its row}."""
    folder = importlib.resources.files("noisynet.evaluation") / "data"
    text = (folder / "noisynet_paper_scores.csv").read_text(encoding="utf-8")
    return {
        row["game"]: PaperScores(
            ReferenceScores(random=float(row["random"]), human=float(row["human"])),
            {agent: float(row[agent]) for agent in AGENTS},
            {agent: float(row[f"{agent}_std"]) for agent in AGENTS},
        )
        for row in csv.DictReader(text.splitlines())
    }


def normalised(game: str, score: float, *, as_printed: bool = False) -> float:
    """Return 100 · (score − random) / (human − random), in percent.

    `as_printed`: with Video Pinball's random score as 0, as in the means that the paper prints.
    """
    reference = paper_scores()[game].reference
    random = 0.0 if as_printed and game == VIDEO_PINBALL else reference.random
    return 100.0 * (score - random) / (reference.human - random)


def paper_overall(games: Sequence[str]) -> list[dict[str, object]]:
    """Give each agent's human-normalised median, mean and interquartile mean over some games.

    The paper gives one mean a game, so its interquartile mean is one over games, without an
    interval. `mean_as_printed` takes Video Pinball's random score as 0.
    """
    rows: list[dict[str, object]] = []
    for agent, name in AGENTS.items():
        scores = {game: paper_scores()[game].mean[agent] for game in games}
        values = [normalised(game, score) for game, score in scores.items()]
        printed = [normalised(game, score, as_printed=True) for game, score in scores.items()]
        rows.append(
            {
                "label": f"{name} (the paper)",
                "games": len(values),
                "runs": None,
                "median": float(np.median(values)),
                "median_interval": None,
                "mean": float(np.mean(values)),
                "mean_interval": None,
                "mean_as_printed": float(np.mean(printed)),
                "iqm": interquartile_mean(values),
                "iqm_interval": None,
            }
        )
    return rows
