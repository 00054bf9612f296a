"""Reports: what runs did, beside each other, as tables and as one page of HTML."""

from .comparison import compare
from .groups import Variant, variants
from .record import RunRecord, find_runs, read_run

__all__ = ["RunRecord", "Variant", "compare", "find_runs", "read_run", "variants"]
