"""Networks that stay alive: units, weights and heads drawn anew. Needs torch and nothing else."""

from .revive import Revived, revive

__all__ = ["Revived", "revive"]
