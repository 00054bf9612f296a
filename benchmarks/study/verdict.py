"""Compare noise with ε-greedy on every task that has both, the worst for noise first.

    python -m benchmarks.study.verdict

reads the study's runs and those of MinAtar and Atari, and writes results/study/verdict.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..provenance import RESULTS
from ..tables import markdown_table
from . import atari100k, minatar
from .compare import Compared, cell, iqm_cell, paired, ratios
from .run import read_runs

TABLE = RESULTS / "study" / "verdict.md"


@dataclass(frozen=True)
class Row:
    """A task, and what noise adds to ε-greedy on it."""

    task: str
    final: Compared
    area: Compared
    time: list[float]
    """The time of a run with noise divided by that of a run with ε-greedy, for each seed."""

    @property
    def sign(self) -> int:
        """−1 if noise is behind in either figure; else 1 if it is ahead in one, or 0 if in none."""
        signs = {self.final.sign, self.area.sign}
        return -1 if -1 in signs else max(signs)


WORDS = {-1: "behind", 0: "not told", 1: "ahead"}


def rows() -> list[Row]:
    """Compare noise, as in its paper, with ε-greedy on each task, those with noise behind first.

    On Atari, the noise is that of data-efficient Rainbow's authors.
    """
    found: list[Row] = []
    atari = [{**one, "task": f"{atari100k.name_of(one['task'])} (Atari 100k)"}
             for one in atari100k.PART.records()]  # fmt: skip
    of_minatar = minatar.PART.records()
    small = [one for one in read_runs() if one["task"] not in minatar.TASKS]
    for records, noise in ((small, "noise"), (of_minatar, "noise"), (atari, atari100k.AUTHORS)):
        for task in dict.fromkeys(one["task"] for one in records):
            final, area = (
                paired(records, task, noise, "epsilon", figure) for figure in ("final", "area")
            )
            if final is not None and area is not None and final.seeds > 1:
                time = ratios(records, task, noise, "epsilon", "wall_seconds")
                found.append(Row(task, final, area, time))
    return sorted(found, key=lambda row: row.sign)


def table(found: Sequence[Row]) -> str:
    """Return a table of the rows, and below it the number of rows of each verdict."""
    counts = {words: sum(row.sign == sign for row in found) for sign, words in WORDS.items()}
    said = ", ".join(f"{count} {words}" for words, count in counts.items())
    lines = markdown_table(
        (
            "task",
            "noise is",
            "final, noise − ε-greedy",
            "area, noise − ε-greedy",
            "time, noise / ε-greedy",
        ),
        [
            [row.task, WORDS[row.sign], cell(row.final), cell(row.area), iqm_cell(row.time)]
            for row in found
        ],
    )
    return "\n".join([*lines, "", f"{len(found)} tasks: {said}.", ""])


def main() -> None:
    """Write the table."""
    TABLE.write_text(table(rows()))


if __name__ == "__main__":
    main()
