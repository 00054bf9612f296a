"""Measurements for the claims of noisynet's pages; see README.md. Run with -m in the project."""
