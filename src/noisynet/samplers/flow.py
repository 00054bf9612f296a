"""The figures of the flow between samplers and learner that are logged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .crew import Crew
from .messages import Report


@dataclass
class FlowFigures:
    """The figures of the fragments that arrive between two lines of the log."""

    lost: int = 0
    """Fragments of this session that were lost or came too late."""
    _staleness: list[int] = field(default_factory=list)
    _steps: int = 0
    _bytes: int = 0
    _weight_bytes: int = 0

    def arrived(self, report: Report, staleness: int) -> None:
        """Count a fragment; `staleness` is the age of its weights on arrival, in versions."""
        self._staleness.append(staleness)
        self._steps += report.steps
        self._bytes += report.nbytes

    def taken(self, crew: Crew, updates_per_step: float) -> dict[str, float]:
        """Return the figures by their tags, and reset them.

        Bytes are those of the arrays, per agent step: of fragments sent to the replay or the
        learner, and of weights sent to samplers.
        """
        figures = {
            "scale/updates_per_step": updates_per_step,
            "scale/samplers": float(sum(member.playing for member in crew.members)),
            "scale/lost_fragments": float(self.lost),
        }
        if self._staleness:
            weights = crew.weight_bytes - self._weight_bytes
            steps = max(self._steps, 1)
            figures |= {
                "scale/staleness": float(np.mean(self._staleness)),
                "scale/staleness_max": float(max(self._staleness)),
                "scale/fragment_bytes_per_step": self._bytes / steps,
                "scale/weight_bytes_per_step": weights / steps,
            }
            self._weight_bytes = crew.weight_bytes
            self._steps = self._bytes = 0
            self._staleness.clear()
        return figures
