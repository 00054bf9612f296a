"""What can be wrong with a run on disk: each error is one line, fit to print as it is."""


class RunError(Exception):
    """Say what is wrong with a run in one line: what it is, what was found, what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class NewerFormat(RunError):
    """Say that a newer noisynet wrote this, so that reading on would be guessing."""
