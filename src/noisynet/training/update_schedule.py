"""The schedule by which agent steps make updates due, for learners with a replay."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class UpdateSchedule:
    """A schedule of one update every `update_every` agent steps after the warm-up.

    Steps are counted over all environments together.
    """

    warmup_steps: int = 0
    update_every: int = 4

    def updates_due(self, step: int) -> int:
        """Count the updates that have come due by an agent step."""
        return max(step - self.warmup_steps, 0) // self.update_every

    def steps_due(self, updates: int) -> int:
        """Return how many steps after the warm-up update number `updates` came due."""
        return updates * self.update_every
