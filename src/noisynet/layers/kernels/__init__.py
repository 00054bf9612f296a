"""Which form computes a layer, and the forms themselves."""
