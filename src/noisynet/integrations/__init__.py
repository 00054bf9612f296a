"""Noise inside other people's agents: one host each, which is imported by its own name."""
