"""Cures for networks that stop learning: new units, shrunk weights, new heads; needs only torch."""

from .dormant import ActivationsNotFinite
from .revive import Revived, revive

__all__ = ["ActivationsNotFinite", "Revived", "revive"]
