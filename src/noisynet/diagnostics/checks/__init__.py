"""The doctor's checks: small pure functions of what was measured, each giving one finding."""
