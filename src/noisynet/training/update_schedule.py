"""When updates come due: by the steps that were played."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class UpdateSchedule:
    """The updates that steps make due, of a learner with a replay.

    One every `update_every` steps after the warm-up. Steps are agent steps, of all environments
    together.
    """

    warmup_steps: int = 0
    update_every: int = 4

    def updates_due(self, step: int) -> int:
        """Count the updates that have come due by an agent step."""
        return max(step - self.warmup_steps, 0) // self.update_every

    def steps_due(self, updates: int) -> int:
        """Return the steps since the warm-up at which the last of so many updates came due."""
        return updates * self.update_every
