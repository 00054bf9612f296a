"""The error of work on a cluster: one line that can be printed as it is."""

from ..runs.errors import RunError


class ScaleError(RunError):
    """An error of Ray, of its cluster, or of a request to either, in one line."""
