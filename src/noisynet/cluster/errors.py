"""What can be wrong beyond one process: each error is one line, fit to print as it is."""

from ..runs.errors import RunError


class ScaleError(RunError):
    """One line on what is wrong with Ray, with its cluster, or with what was asked of them."""
