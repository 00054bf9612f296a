"""Evaluation: playing whole games without learning, and statistics of their scores."""
