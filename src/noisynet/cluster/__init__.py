"""The connection to Ray, and its errors."""
