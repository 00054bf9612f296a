"""A film of a run's agent at play, its values and their noise beside the game."""

from .video import Film, default_name, film, has_ffmpeg

__all__ = ["Film", "default_name", "film", "has_ffmpeg"]
