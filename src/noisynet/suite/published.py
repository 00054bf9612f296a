"""Published scores of other agents, which are shown beside ours."""

from __future__ import annotations

import csv
import importlib.resources
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ..evaluation.scores import atari57_games, reference_scores

PublishedName = Literal["noisynet", "atari100k"]


@dataclass(frozen=True)
class Published:
    """A table of scores by game."""

    file: str
    source: str
    """The source in words, for the rows of a table."""
    agents: dict[str, str]
    """The table's columns, each with the name of its agent."""


PUBLISHED: dict[PublishedName, Published] = {
    # Fortunato et al., arXiv 1706.10295: 200 million frames, with DQN's and Dueling's.
    "noisynet": Published(
        "noisynet_paper_scores.csv",
        "the paper",
        {
            "dqn": "DQN",
            "noisynet_dqn": "NoisyNet-DQN",
            "a3c": "A3C",
            "noisynet_a3c": "NoisyNet-A3C",
            "dueling": "Dueling",
            "noisynet_dueling": "NoisyNet-Dueling",
        },
    ),
    # 400,000 frames: van Hasselt et al., arXiv 1906.05243, and Laskin et al., arXiv 2004.04136.
    "atari100k": Published(
        "atari100k_scores.csv",
        "published",
        {"data_efficient_rainbow": "data-efficient Rainbow", "curl": "CURL"},
    ),
}


@cache
def published_scores(name: PublishedName) -> dict[str, dict[str, float]]:
    """Return a table's columns by game, such as ms_pacman.

    These are the mean of each agent, and `random` and `human`, the scores to normalise by.
    """
    table = PUBLISHED[name]
    folder = importlib.resources.files("noisynet.evaluation") / "data"
    text = (folder / table.file).read_text(encoding="utf-8")
    return {
        row["game"]: {name: float(row[name]) for name in ("random", "human", *table.agents)}
        for row in csv.DictReader(text.splitlines())
    }


def normalised(game: str, score: float, *, as_printed: bool = False) -> float:
    """Return 100 · (score − random) / (human − random), in percent, for one of the 57 games.

    `as_printed` takes 0 as Video Pinball's random score, in place of 16256.9, as the means that the
    NoisyNet paper prints do.
    """
    reference = reference_scores(game)
    assert reference is not None, "one of the 57 games"
    if as_printed and game == "video_pinball":
        return 100.0 * score / reference.human
    return 100.0 * (score - reference.random) / (reference.human - reference.random)


def atari_environment(game: str) -> str:
    """Return the environment id of a game, such as ALE/MsPacman-v5 for ms_pacman."""
    return f"ALE/{game.title().replace('_', '')}-v5"


def atari_game(environment: str) -> str | None:
    """Return the game of an environment id of any version; None unless it is one of the 57."""
    games = {atari_environment(game): game for game in atari57_games()}
    return games.get(re.sub(r"-v\d+$", "-v5", environment))
