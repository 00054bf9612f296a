"""Reports that compare runs, as tables and as a single HTML page."""
