"""`noisynet presets`."""

from __future__ import annotations

import argparse

from .options import add_json, print_json
from .parser import Parser

_LEGEND = (
    "A step is one decision of the agent. Times are of two CPU cores; a score is the median over",
    "seeds of the mean return of new games with the mean weights. Both stand where they were",
    "measured with the preset as it is; --json says where they are recorded.",
)


def add_presets(presets: Parser) -> None:
    """Add the options of `presets`."""
    presets.description = (
        "List the presets: agent steps, time on two cores and score where they were measured, and "
        "what each is."
    )
    add_json(presets)
    presets.set_defaults(run=_presets)


def _presets(parsed: argparse.Namespace) -> int:
    from ..runs.cards import cards

    listed = cards()
    if parsed.json:
        print_json(
            parsed,
            {
                name: {**one.config.model_dump(mode="json"), "card": one.to_json()}
                for name, one in listed.items()
            },
        )
        return 0
    rows = [["preset", "steps", "time", "score", "what it is"]]
    rows += [
        [name, f"{one.config.training.steps:,}", one.time or "", one.score or "", one.what]
        for name, one in listed.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, steps, time, score, what in rows:
        cells = [
            name.ljust(widths[0]),
            steps.rjust(widths[1]),
            time.ljust(widths[2]),
            score.ljust(widths[3]),
            what,
        ]
        print("  ".join(cells).rstrip())
    print()
    for line in _LEGEND:
        print(line)
    return 0
