"""The paper's own table, to stand beside ours: Fortunato et al., arXiv 1706.10295."""

from __future__ import annotations

import csv
import importlib.resources
import re
from dataclasses import dataclass
from functools import cache

from ..evaluation.scores import ReferenceScores, atari57_games

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
    """Return the table: {game, as ms_pacman: its row}."""
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


def atari_environment(game: str) -> str:
    """Return the environment id of a game, such as ALE/MsPacman-v5 for ms_pacman."""
    return f"ALE/{game.title().replace('_', '')}-v5"


def atari_game(environment: str) -> str | None:
    """Return the game of an environment id of any version; None for none of the paper's 57."""
    games = {atari_environment(game): game for game in atari57_games()}
    return games.get(re.sub(r"-v\d+$", "-v5", environment))
