"""`noisynet presets`."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence

from .options import add_json, print_json
from .parser import Parser

_LEGEND = (
    "A step is one decision of the agent. Times are of a machine with two CPU cores; a score is",
    "the median over seeds of the mean return of new games with the mean weights. Both are given",
    "if the preset was measured as it is now; --json says where they are recorded.",
    "`noisynet train PRESET --help-all` shows all values of a preset.",
)

_AGENTS_LEGEND = (
    "Pretrained agents, for `noisynet watch --pretrained NAME` and `evaluate`. Scores are the mean",
    "return of new games, by the mean weights and under noise; --json says how each was made.",
)


def add_presets(presets: Parser) -> None:
    """Add the options of `presets`."""
    presets.description = (
        "List the presets: agent steps, time on a machine with two cores and score where they were "
        "measured, and a description of each; then the pretrained agents of the package."
    )
    add_json(presets)
    presets.set_defaults(run=_presets)


def _presets(parsed: argparse.Namespace) -> int:
    from ..runs.cards import cards
    from ..runs.pretrained import agent_cards

    listed, agents = cards(), agent_cards()
    if parsed.json:
        print_json(
            parsed,
            {
                name: {
                    **one.config.model_dump(mode="json"),
                    "card": one.to_json(),
                    "pretrained": {
                        agent: card.to_json()
                        for agent, card in agents.items()
                        if card.config.preset == name
                    },
                }
                for name, one in listed.items()
            },
        )
        return 0
    rows = [["preset", "steps", "time", "score", "what it is"]]
    rows += [
        [name, f"{one.config.training.steps:,}", one.time or "", one.score or "", one.what]
        for name, one in listed.items()
    ]
    _print(rows, _LEGEND, sentences=True)
    print()
    rows = [["agent", "steps", "preset", "by the means", "under noise"]]
    rows += [
        [
            name,
            f"{one.step:,}",
            one.config.preset,
            one.scores.get("off", ""),
            one.scores.get("on", ""),
        ]
        for name, one in agents.items()
    ]
    _print(rows, _AGENTS_LEGEND)
    return 0


def _print(rows: list[list[str]], legend: Sequence[str], *, sentences: bool = False) -> None:
    """Print a table with its second column, the steps, right-aligned, and a legend below it.

    `sentences` says that the last column holds sentences: if the terminal is too narrow for them,
    each is wrapped below its row.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = shutil.get_terminal_size().columns
    below = sentences and sys.stdout.isatty() and sum(widths) + 2 * len(widths[1:]) > columns
    for index, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[1] = row[1].rjust(widths[1])
        print("  ".join(cells[:-1] if below else cells).rstrip())
        if below and index:  # a heading has no place there
            print(textwrap.fill(row[-1], columns, initial_indent="    ", subsequent_indent="    "))
    print()
    for line in legend:
        print(line)
