"""Reports: what runs did, beside each other, as tables and as one page of HTML."""

from ..runs.record import RunRecord, find_runs, read_run
from .comparison import compare
from .groups import Variant, variants

__all__ = ["RunRecord", "Variant", "compare", "find_runs", "read_run", "variants"]
