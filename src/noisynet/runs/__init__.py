"""A run on disk: its configuration, folder, metrics and checkpoints. Needs no torch."""

from .config import Config
from .errors import NewerFormat, RunError
from .folder import RunFolder, default_path
from .metrics import MetricsWriter, read_metrics

__all__ = [
    "Config",
    "MetricsWriter",
    "NewerFormat",
    "RunError",
    "RunFolder",
    "default_path",
    "read_metrics",
]
