"""What noisynet's pages claim, measured; see README.md. Run from the project's folder, with -m."""
