"""A run on disk: its configuration, folder, metrics and checkpoints. Needs no torch."""

from .config import Config
from .errors import NewerFormat, RunError
from .folder import RunFolder, default_path
from .metrics import MetricsWriter, read_metrics
from .opening import Run, open_run

__all__ = [
    "Config",
    "MetricsWriter",
    "NewerFormat",
    "Run",
    "RunError",
    "RunFolder",
    "default_path",
    "open_run",
    "read_metrics",
]
