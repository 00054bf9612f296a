"""The connection to Ray, and what can be wrong with it."""
