"""Noise in the agents of other libraries: one module or package for each host."""
