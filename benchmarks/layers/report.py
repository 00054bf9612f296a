"""What run.py reports: the targets compared with the measurements, and the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..tables import markdown_table
from .peers import MARK

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A title, the heads of the columns, the rows, and a note for the reader."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    note: str = ""


NATURE = (3136, 512)
"""The shape of the targets: the first fully connected layer of a Nature CNN."""


@dataclass(frozen=True)
class Target:
    """The largest ratio to nn.Linear that is allowed, for 3136→512 on two CPU cores."""

    text: str
    name: str
    mode: str
    batch: int
    limit: float


TARGETS = (
    Target(
        "factorised, shared draw, forward+backward, batch 32",
        "noisynet-factorised",
        "forward+backward",
        32,
        1.6,
    ),
    Target(
        "factorised, shared draw, forward+backward, batch 256",
        "noisynet-factorised",
        "forward+backward",
        256,
        1.15,
    ),
    Target(
        "factorised, fresh draw, forward alone, batch 1",
        "noisynet-factorised",
        "forward",
        1,
        2.3,
    ),
    Target(
        "factorised, one draw per row, forward+backward, batch 32",
        "noisynet-factorised-rows",
        "forward+backward",
        32,
        2.1,
    ),
    Target(
        "factorised, held draw per row, forward alone, batch 8",
        "noisynet-factorised-rows-held",
        "forward",
        8,
        2.2,
    ),
    Target(
        "the same, redrawn before each forward",
        "noisynet-factorised-rows-resample",
        "forward",
        8,
        2.2,
    ),
    Target(
        "independent, fresh draws per row, forward+backward, batch 32",
        "noisynet-independent-rows",
        "forward+backward",
        32,
        2.4,
    ),
)
NO_PEER_FASTER = "factorised, shared draw, forward+backward, batch {}: time / fastest peer's"
REDRAW_LIMIT = 100e-6
REDRAW_TARGET = "redraw of a Nature CNN agent with two factorised layers, in µs"


def judge(text: str, limit: float, measured: float | None) -> Row:
    """Compare a target with what was measured; `met` is None where nothing was."""
    met = None if measured is None else measured <= limit
    return {"target": text, "limit": limit, "measured": measured, "met": met}


def targets(rows: list[Row], redraws: list[Row]) -> list[Row]:
    """Compare every target with the rows of a run."""
    nature = [row for row in rows if (row["inputs"], row["outputs"]) == NATURE]

    def ratio(name: str, mode: str, batch: int) -> float | None:
        for row in nature:
            if (row["name"], row["mode"], row["batch"]) == (name, mode, batch):
                return row["ratio"]["median"]
        return None

    judged = [
        judge(target.text, target.limit, ratio(target.name, target.mode, target.batch))
        for target in TARGETS
    ]
    for batch in (32, 256, 2048):
        mode = "forward+backward"
        own = ratio("noisynet-factorised", mode, batch)
        peers = [
            row["ratio"]["median"]
            for row in nature
            if row["is_peer"] and (row["mode"], row["batch"]) == (mode, batch)
        ]
        measured = own / min(peers) if own is not None and peers else None
        judged.append(judge(NO_PEER_FASTER.format(batch), 1.0, measured))
    shared = [row["seconds"]["median"] for row in redraws if row["rows"] is None]
    judged.append(judge(REDRAW_TARGET, REDRAW_LIMIT * 1e6, shared[0] * 1e6 if shared else None))
    return judged


def target_table(judged: list[Row]) -> Table:
    """Return the table of the targets."""
    said = {True: "yes", False: "no", None: "not measured"}
    cells = [
        [
            row["target"],
            f"{row['limit']:g}",
            "–" if row["measured"] is None else f"{row['measured']:.2f}",
            said[row["met"]],
        ]
        for row in judged
    ]
    heads = ["target: ratio to nn.Linear for 3136→512", "at most", "measured", "met"]
    return Table("Targets", heads, cells)


def redraw_table(redraws: list[Row]) -> Table:
    """Return the table of redraws of a whole agent."""
    cells = [
        [row["label"], time_of(row["seconds"]["median"]), quartiles(row["seconds"], time_of)]
        for row in redraws
    ]
    title = "Redraw of a Nature CNN agent, two factorised layers"
    return Table(title, ["call", "time", "quartiles"], cells)


def cell_tables(rows: list[Row], skipped: list[Row]) -> Iterator[Table]:
    """Yield a table for each shape and mode: a line per contender, four columns per batch."""
    blocks: dict[tuple[int, int, str], list[Row]] = {}
    for row in rows:
        blocks.setdefault((row["inputs"], row["outputs"], row["mode"]), []).append(row)
    for (inputs, outputs, mode), block in blocks.items():
        batches = sorted({row["batch"] for row in block})
        heads = ["layer"]
        for batch in batches:
            heads += [f"batch {batch}: ratio", "quartiles", "time", "peak"]
        lines: list[list[str]] = []
        for name, label in {row["name"]: row["label"] for row in block}.items():
            found = {row["batch"]: row for row in block if row["name"] == name}
            line = [label.replace(MARK, " *")]
            for batch in batches:
                line += figures(found[batch]) if batch in found else ["–", "", "", ""]
            lines.append(line)
        notes = [
            f"– {row['name']} at batch {row['batch']}: {row['reason']}"
            for row in skipped
            if (row.get("inputs"), row.get("outputs"), row.get("mode")) == (inputs, outputs, mode)
        ]
        if any(row["origin"] == "re-implemented" for row in block):
            notes.insert(0, f"* {MARK.strip(' ()')}")
        yield Table(f"{inputs}→{outputs}, {mode}", heads, lines, "; ".join(notes))


def figures(row: Row) -> list[str]:
    """Return the four figures of a row as text."""
    return [
        f"{row['ratio']['median']:.2f}",
        quartiles(row["ratio"], "{:.2f}".format),
        time_of(row["seconds"]["median"]),
        memory_of(row["peak_bytes"]),
    ]


def quartiles(spread: dict[str, float], write: Callable[[float], str]) -> str:
    """Return the quartiles of a spread as text."""
    low, high = write(spread["low"]), write(spread["high"])
    return f"{low} – {high}" if " " in low else f"{low}–{high}"


def time_of(seconds: float) -> str:
    """Return a time with a fitting unit."""
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def memory_of(count: int) -> str:
    """Return a number of bytes with a fitting unit."""
    return f"{count / 2**10:.1f} KiB" if count < 2**20 else f"{count / 2**20:.1f} MiB"


def plain_text(table: Table) -> str:
    """Return a table as aligned text: the first column to the left, the others to the right."""
    written = [table.heads, *table.rows]
    widths = [max(map(len, column)) for column in zip(*written, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in written
    ]
    return "\n".join([table.title, *lines, *([table.note] if table.note else []), ""])


def markdown(table: Table) -> str:
    """Return a table for the pages."""
    written = markdown_table(table.heads, table.rows, left=1)
    note = [table.note.replace("*", "\\*"), ""] if table.note else []
    return "\n".join([f"**{table.title}**", "", *written, "", *note])
