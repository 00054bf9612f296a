"""Compare noise with ε-greedy on every task that has both, the worst for noise first.

    python -m benchmarks.study.verdict

reads the runs of the study, of CartPole's presets, of MinAtar and of Atari, and writes
results/study/verdict.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import false_discovery_control

from ..provenance import RESULTS
from ..tables import markdown_table
from . import atari100k, cartpole, minatar
from .compare import Compared, cell, iqm_cell, paired, ratios
from .run import ARMS, read_runs

TABLE = RESULTS / "study" / "verdict.md"


@dataclass(frozen=True)
class Row:
    """A task, and what noise adds to ε-greedy on it."""

    task: str
    final: Compared
    area: Compared | None
    """Of the whole learning curve; None where no curves are kept."""
    later: Compared | None
    """Of the learning curve once ε has fallen."""
    time: list[float]
    """The time of a run with noise divided by that of a run with ε-greedy, for each seed."""

    @property
    def sign(self) -> int:
        """−1 if noise is behind in *final* or *later*; else 1 if ahead in one, or 0 if in none."""
        signs = {one.sign for one in (self.final, self.later) if one is not None}
        return -1 if -1 in signs else max(signs)


WORDS = {-1: "behind", 0: "not told", 1: "ahead"}
FALSE_DISCOVERIES = 0.05


def rows() -> list[Row]:
    """Compare noise, as in its paper, with ε-greedy on each task, those with noise behind first.

    On Atari, the noise is that of data-efficient Rainbow's authors.
    """
    found: list[Row] = []
    atari = [{**one, "task": f"{atari100k.name_of(one['task'])} (Atari 100k)"}
             for one in atari100k.PART.records()]  # fmt: skip
    by_pqn, by_dqn = [], []
    for one in minatar.PART.records():
        (by_pqn if one["task"].endswith("by PQN") else by_dqn).append(one)
    small = [one for one in read_runs() if one["task"] not in minatar.TASKS]
    # The share of a run in which ε falls.
    for records, noise, falls in (
        (small, "noise", ARMS["epsilon"]["epsilon_share"]),
        (cartpole.twins(), "noise", None),
        (by_dqn, "noise", minatar.OF_DQN["epsilon"]["epsilon_share"]),
        (by_pqn, "noise", minatar.OF_PQN["epsilon"]["epsilon_share"]),
        (atari, atari100k.AUTHORS, atari100k.EPSILON_SHARE),
    ):
        kept = [one if falls is None else {**one, "later": _later(one["curve"], falls)}
                for one in records]  # fmt: skip
        figures = ("final",) if falls is None else ("final", "area", "later")
        for task in dict.fromkeys(one["task"] for one in kept):
            of = {figure: paired(kept, task, noise, "epsilon", figure) for figure in figures}
            final = of["final"]
            if final is not None and final.seeds > 1:
                time = ratios(kept, task, noise, "epsilon", "wall_seconds")
                found.append(Row(task, final, of.get("area"), of.get("later"), time))
    return sorted(found, key=lambda row: row.sign)


def _later(curve: Sequence[float], falls: float) -> float:
    """Return the mean of a learning curve without the first part, in which ε falls."""
    return float(np.mean(curve[round(falls * len(curve)) :]))


def doubtful(found: Sequence[Row]) -> tuple[int, list[str]]:
    """Count the bold differences, and name those that a false discovery rate leaves out.

    By Benjamini and Hochberg's procedure, over all differences of the table that vary by seed.
    """
    named = [
        (f"{row.task} ({figure})", one)
        for row in found
        for figure, one in (("final", row.final), ("area", row.area), ("later", row.later))
        if one is not None and one.p_value is not None
    ]
    if not named:
        return 0, []
    adjusted = false_discovery_control([one.p_value for _, one in named])
    bold = [(name, value) for (name, one), value in zip(named, adjusted, strict=True) if one.sign]
    return len(bold), [name for name, value in bold if value > FALSE_DISCOVERIES]


def table(found: Sequence[Row]) -> str:
    """Return a table of the rows, and below it what they come to."""
    counts = {words: sum(row.sign == sign for row in found) for sign, words in WORDS.items()}
    said = ", ".join(f"{count} {words}" for words, count in counts.items())
    lines = markdown_table(
        ("task", "noise is", "final", "area", "later", "time"),
        [
            [
                row.task,
                WORDS[row.sign],
                *("–" if one is None else cell(one) for one in (row.final, row.area, row.later)),
                iqm_cell(row.time),
            ]
            for row in found
        ],
    )
    bold, left_out = doubtful(found)
    rate = f"{100 * FALSE_DISCOVERIES:g} %"
    remain = f"With a false discovery rate of {rate}, {bold - len(left_out)} of the {bold} bold"
    without = f": all but {', '.join(left_out)}" if left_out else ""
    return "\n".join([
        *lines, "", f"{len(found)} tasks: {said}. {remain} differences remain{without}.", ""
    ])  # fmt: skip


def main() -> None:
    """Write the table."""
    TABLE.write_text(table(rows()))


if __name__ == "__main__":
    main()
