"""Reports that compare runs, as tables and as a single HTML page."""

from ..runs.record import RunRecord, find_runs, read_run
from .comparison import compare
from .groups import Variant, variants

__all__ = ["RunRecord", "Variant", "compare", "find_runs", "read_run", "variants"]
