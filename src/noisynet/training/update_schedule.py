"""When updates come due: by the steps that were played, and further apart once the agent wins."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

RECENT_GAMES = 10
"""Games whose mean return says whether the agent wins."""


class UpdateSchedule:
    """The updates that steps make due, of a learner with a replay.

    One every `update_every` steps after the warm-up; from the step at which the last ten games
    returned `final_update_return` in the mean, one every `final_update_every`, whatever later games
    return. Steps are agent steps, of all environments together.
    """

    def __init__(
        self,
        *,
        warmup_steps: int = 0,
        update_every: int = 4,
        final_update_every: int | None = None,
        final_update_return: float | None = None,
    ) -> None:
        self.warmup_steps = warmup_steps
        self.update_every = update_every
        self._final_update_every = final_update_every
        self._final_update_return = final_update_return
        self._recent: deque[float] = deque(maxlen=RECENT_GAMES)
        self.thinned_from: int | None = None
        """Agent step from which updates are further apart; None: not yet."""

    def game_finished(self, step: int, game_return: float) -> None:
        """Take note of a game that ended while the run was at an agent step."""
        wanted = self._final_update_return
        if wanted is None or self.thinned_from is not None:
            return
        self._recent.append(game_return)
        if len(self._recent) == RECENT_GAMES and sum(self._recent) / RECENT_GAMES >= wanted:
            self.thinned_from = step

    def updates_due(self, step: int) -> int:
        """Count the updates that have come due by an agent step."""
        since_warmup = max(step - self.warmup_steps, 0)
        if self.thinned_from is None:
            return since_warmup // self.update_every
        early = min(since_warmup, self._early_steps)
        return early // self.update_every + (since_warmup - early) // self._final_every

    def steps_due(self, updates: int) -> int:
        """Return the steps since the warm-up at which the last of so many updates came due."""
        every = self.update_every
        if self.thinned_from is None:
            return updates * every
        early = min(updates, self._early_steps // every)
        if updates == early:
            return early * every
        return self._early_steps + (updates - early) * self._final_every

    @property
    def _early_steps(self) -> int:
        assert self.thinned_from is not None, "updates have not thinned out yet"
        return max(self.thinned_from - self.warmup_steps, 0)

    @property
    def _final_every(self) -> int:
        every = self._final_update_every
        assert every is not None, "the two are given together"
        return every

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain JSON values."""
        return {"thinned_from": self.thinned_from, "recent_returns": list(self._recent)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.thinned_from = state["thinned_from"]
        self._recent.extend(state["recent_returns"])
