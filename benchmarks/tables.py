"""Tables in Markdown, as the pages include them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int | None = None
) -> list[str]:
    """Return the lines of a table; all columns but the first `left` are aligned to the right."""
    rule = "|---" * len(heads) + "|"
    if left is not None:
        rule = f"| {' | '.join(['---'] * left + ['--:'] * (len(heads) - left))} |"
    return [_line(heads), rule, *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
