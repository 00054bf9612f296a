"""What can be wrong beyond one process: each error is one line, fit to print as it is."""

from ..runs.errors import RunError


class ScaleError(RunError):
    """One line on what is wrong with Ray, with its cluster, or with what was asked of them."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that has text, or else the error's type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
