"""The doctor's checks: small functions of what was measured, each of which returns one finding."""
