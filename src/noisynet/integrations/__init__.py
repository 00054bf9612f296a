"""Noise inside other people's agents: one module for each host, imported by its own name."""
