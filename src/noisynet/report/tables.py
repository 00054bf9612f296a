"""The report's tables, as HTML: every text from a run is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ..runs.record import RunRecord
from .groups import Variant, differences


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], *, long: Sequence[int] = ()) -> str:
    """Build a table: numbers align right, texts left, and columns in `long` may wrap anywhere."""
    numbers = {
        column
        for column in range(len(heads))
        if rows and all(isinstance(row[column], int | float) or row[column] is None for row in rows)
    }

    def cell(column: int, value: Any, tag: str) -> str:
        kind = "number" if column in numbers else "long" if column in long else ""
        mark = f' class="{kind}"' if kind else ""
        # On a narrow page a row becomes a card, and each cell shows the name of its column.
        mark += f' data-head="{escape(heads[column])}"' if tag == "td" and column else ""
        return f"<{tag}{mark}>{escape(formatted(value))}</{tag}>"

    head = "".join(cell(column, name, "th") for column, name in enumerate(heads))
    body = "".join(
        f"<tr>{''.join(cell(column, value, 'td') for column, value in enumerate(row))}</tr>"
        for row in rows
    )
    inside = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    narrow = ' class="narrow"' if len(heads) <= 3 else ""
    return f'<div class="scroll"><table{narrow}>{inside}</table></div>'


def duration(seconds: float) -> str:
    """Format a time as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def runs_table(variants: Sequence[Variant]) -> str:
    """Build the table of all runs: what each is, and how far it got."""
    heads = ["run", "game", "variant", "seed", "state", "steps", "games", "mean return", "time"]
    rows = [
        [run.name, run.game, variant.label, run.seed, run.state, run.step, run.games,
         run.mean_return, duration(run.seconds)]
        for variant in variants
        for run in variant.runs
    ]  # fmt: skip
    return table(heads, rows)


def provenance_table(runs: Sequence[RunRecord]) -> str:
    """Build the table of commits, machines and versions, each with its runs."""
    found: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        made = dict(run.config.made_with)
        commit, machine = (made.pop(name, "not recorded") for name in ("commit", "processor"))
        training = run.config.training
        threads = "1 thread" if training.threads == 1 else f"{training.threads} threads"
        devices = f"{training.device}, {threads}, {training.precision}"
        versions = ", ".join(f"{name} {version}" for name, version in made.items())
        key = (commit, machine, devices, versions or "not recorded")
        found.setdefault(key, []).append(run.name)
    rows = [
        [names[0] if len(names) == 1 else f"{len(names)} runs, {names[0]} first", *key]
        for key, names in found.items()
    ]
    return table(["runs", "commit", "processor", "computed on", "versions"], rows, long=[4])


def settings_table(variants: Sequence[Variant]) -> str:
    """Build a table of the fields in which variants differ; empty if there are none."""
    names = differences([variant.settings for variant in variants])
    if not names:
        return ""
    rows = [[name, *(variant.settings.get(name, "–") for variant in variants)] for name in names]
    return table(["setting", *(variant.label for variant in variants)], rows)


def comparison_tables(found: dict[str, Any]) -> str:
    """Build the tables of a comparison, as `compare` returns it."""
    titled = [(f"{one['environment']}, at step {one['at_step']:,}", one) for one in found["games"]]
    if overall := found["overall"]:
        titled.append((f"Over {overall['games']} games, {overall['unit']}", overall))
    return "".join(
        f"<h3>{escape(title)}</h3>{score_table(one['variants'])}"
        f"{improvement_table(one['improvement'])}"
        for title, one in titled
    )


def score_table(rows: Sequence[dict[str, Any]]) -> str:
    """Build the table of scores."""
    normal = any("human_normalised_iqm" in row for row in rows)
    heads = ["variant", "runs", "mean", "IQM", "95 % interval of the IQM"]
    heads += ["IQM, human-normalised %"] if normal else []
    solved = any(row.get("solved_at") is not None for row in rows)
    heads += ["solved at step"] if solved else []
    body = [
        [row["label"], row["runs"], row["mean"], row["iqm"], interval_text(row["interval"])]
        + ([row.get("human_normalised_iqm")] if normal else [])
        + ([formatted(row.get("solved_at"), decimals=0)] if solved else [])
        for row in rows
    ]
    return table(heads, body, long=[0])


def improvement_table(pairs: Sequence[dict[str, Any]]) -> str:
    """Build the table of the probabilities of improvement; empty if there are none."""
    if not pairs:
        return ""
    body = [
        [pair["label"], pair["rival"], pair["probability"], interval_text(pair["interval"])]
        for pair in pairs
    ]
    return table(
        ["variant", "rival", "probability of improvement", "95 % interval"], body, long=[0, 1]
    )


def evaluation_table(results: Sequence[dict[str, Any]]) -> str:
    """Build the table of the games that were played for the report."""
    normal = any("human_normalised" in one for one in results)
    body = [
        [
            one["run"],
            one["environment"],
            "off: mean weights" if one["noise"] == "off" else one["noise"],
            one["episodes"],
            one["mean"],
            one["std"] if one["episodes"] > 1 else None,
            interval_text(one["interval"] if one["episodes"] > 2 else None),
        ]
        + ([one.get("human_normalised")] if normal else [])
        for one in results
    ]
    heads = ["run", "game", "noise", "games", "mean return", "deviation", "95 % interval"]
    return table(heads + (["human-normalised %"] if normal else []), body)


def interval_text(interval: Sequence[float] | None) -> str:
    """Format an interval."""
    return (
        "–"
        if interval is None
        else f"{formatted(float(interval[0]))} to {formatted(float(interval[1]))}"
    )


def formatted(value: Any, decimals: int | None = None) -> str:
    """Format a value; the larger a number, the fewer decimals it has unless they are given."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if decimals is None and 0 < abs(value) < 0.1:
            return f"{value:.3g}"
        if decimals is None:
            decimals = 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
        return f"{value:,.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
