"""Proportional prioritised replay (Schaul et al., arXiv 1511.05952): which records are drawn.

Suffixes: B samples, R records looked at.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .arguments import check_array, check_fraction, is_number, whole
from .ring import Integers, Numbers, Ring
from .sampling import CHUNK, mark_samplable, nothing_to_sample
from .sum_tree import SumTree

_LARGEST_ERROR = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class PrioritySettings:
    """How a TD error δ becomes a priority: (|δ| + ε)^α. Raises ValueError for invalid values."""

    exponent: float
    """α, from 0 (all priorities equal) to 1 (proportional to the error)."""
    epsilon: float
    """ε, above 0, in the unit of the TD error, so that every transition can be drawn."""

    def __post_init__(self) -> None:
        check_fraction("priority exponent", self.exponent)
        if not is_number(self.epsilon) or not 0.0 < self.epsilon <= _LARGEST_ERROR:
            raise ValueError(
                f"priority epsilon: got {self.epsilon!r}, expected a finite number above 0"
            )


class PrioritisedSampler:
    """A sampler that draws a ring's records in proportion to their priorities.

    A leaf of the sum tree is the priority of a record of the window, or 0 while it cannot be
    sampled. Record i, which is step i // N of environment i % N, has leaf i modulo `capacity`, so
    that draws do not depend on the ring's slack. The tree is brought up to date before each draw: a
    record whose window of steps has become complete gets the largest priority so far (1 before the
    first error is known), and one that was overwritten or has lost the beginning of its stack gets
    0. So the tree depends only on what was added, drawn and updated.
    """

    def __init__(self, ring: Ring, settings: PrioritySettings) -> None:
        self.settings = settings
        self._ring = ring
        self._tree = SumTree(ring.shape.capacity)
        self._largest = 1.0  # priority so far
        self._known = 0  # vector steps that the tree has seen
        self._n_step = 0  # of the windows that the tree holds; 0 before the first draw

    def draw(
        self, generator: np.random.Generator, samples: int, n_step: int
    ) -> tuple[Integers, npt.NDArray[np.float64]]:
        """Draw a record, with its priority, from each of `samples` equal parts of the sum.

        Raises RuntimeError if nothing can be sampled.
        """
        self._catch_up(n_step)
        total = self._tree.total
        if total == 0.0:
            raise nothing_to_sample(self._ring, n_step)
        part_B = np.arange(samples) + generator.random(samples)
        leaf_B = self._tree.find(part_B * (total / samples))
        newest = self._ring.end - 1
        return newest - (newest - leaf_B) % self._ring.shape.capacity, self._tree.get(leaf_B)

    def update(self, indices: npt.NDArray[np.integer], td_errors: npt.NDArray[np.floating]) -> None:
        """Set the priorities of drawn records, both (B,); see `FrameReplay.update_priorities`."""
        check_array("indices", indices, np.shape(indices)[:1], "iu")
        check_array("td_errors", td_errors, indices.shape, "iuf")
        index_B, error_B = indices.astype(np.int64), td_errors.astype(np.float64)
        good_B = (error_B >= 0.0) & (error_B <= _LARGEST_ERROR)  # false for NaN
        if not good_B.all():
            row = int(np.argmin(good_B))
            raise ValueError(
                f"td_errors: got {error_B[row]} in row {row}, "
                "expected finite float32 numbers from 0 up"
            )
        seen = self._known * self._ring.shape.environments
        good_B = (index_B >= 0) & (index_B < seen)
        if not good_B.all():
            got = indices[np.argmin(good_B)]
            raise ValueError(f"indices: got {got}, expected those of a batch of this replay")
        leaf_B = index_B % self._ring.shape.capacity
        # A leaf stands for the newest known record that has it, not for an overwritten one.
        alive_B = index_B >= self._ring.oldest
        alive_B &= self._tree.get(leaf_B) > 0.0
        priority_B = (error_B + self.settings.epsilon) ** self.settings.exponent
        leaf_B, priority_B = leaf_B[alive_B], priority_B[alive_B]
        if len(leaf_B):
            self._tree.set(leaf_B, priority_B)
            self._largest = max(self._largest, float(priority_B.max()))

    def _catch_up(self, n_step: int) -> None:
        """Bring the tree up to date with the ring, for windows of `n_step` steps."""
        ring, known, low = self._ring, self._known, self._ring.low
        same_windows = n_step == self._n_step
        if same_windows and known == ring.head:
            return
        environments = ring.shape.environments
        known_low = max(0, known - ring.shape.window)
        left_R = np.arange(known_low * environments, min(low, known) * environments)
        self._tree.set(left_R % ring.shape.capacity, np.zeros(len(left_R)))
        # Two ends of the window can have changed: stacks that have lost their beginning, and
        # windows of steps that were not complete when the tree last looked.
        ends_at = max(low, known - n_step) if same_windows else low
        begins_to = min(low + ring.shape.stack - 1, ends_at) if low > known_low else low
        looked_R = np.concatenate(
            [
                np.arange(ring.oldest, begins_to * environments),
                np.arange(ends_at * environments, ring.end),
            ]
        )
        for start in range(0, len(looked_R), CHUNK):
            self._look_at(looked_R[start : start + CHUNK], n_step)
        self._known, self._n_step = ring.head, n_step

    def _look_at(self, record_R: Integers, n_step: int) -> None:
        """Give newly samplable records the largest priority so far, and unsamplable ones 0."""
        leaf_R = record_R % self._ring.shape.capacity
        before_R = self._tree.get(leaf_R)
        valid_R = mark_samplable(self._ring, record_R, n_step)
        after_R = np.where(valid_R, np.where(before_R > 0.0, before_R, self._largest), 0.0)
        changed_R = after_R != before_R
        self._tree.set(leaf_R[changed_R], after_R[changed_R])

    @property
    def leaves(self) -> npt.NDArray[np.float64]:
        """Priorities (capacity,), indexed by record modulo `capacity`; 0 for unsamplable ones."""
        return self._tree.values

    def state(self) -> dict[str, object]:
        """Return what `restore` needs beside the leaves and the ring; it can be written as JSON."""
        return {
            "exponent": float(self.settings.exponent),
            "epsilon": float(self.settings.epsilon),
            "largest": self._largest,
            "known": self._known,
            "n_step": self._n_step,
        }

    @classmethod
    def restore(
        cls, ring: Ring, state: Mapping[str, object], leaves: npt.NDArray[np.float64]
    ) -> "PrioritisedSampler":
        """Return the sampler with the given `state` and `leaves`.

        Raises KeyError, TypeError or ValueError if the state is invalid.
        """
        settings = PrioritySettings(
            exponent=cast(Any, state["exponent"]), epsilon=cast(Any, state["epsilon"])
        )
        sampler = cls(ring, settings)
        largest = state["largest"]
        if not is_number(largest) or not 0.0 < largest < math.inf:
            raise ValueError(f"largest: got {largest!r}, expected a finite number above 0")
        sampler._largest = float(largest)
        sampler._known = whole("known", state["known"], 0)
        sampler._n_step = whole("n_step", state["n_step"], 0)
        if sampler._known > ring.head:
            raise ValueError(f"known: got {sampler._known}, expected at most {ring.head}")
        sampler._tree.load(leaves)
        return sampler


def importance_weights(priority_B: npt.NDArray[np.float64], beta: float) -> Numbers:
    """Return w_i = (N · P(i))^-β / max_j w_j of a batch, (B,) (Schaul et al., §3.4).

    N and the sum of all priorities are the same in each row and cancel: (p_min / p_i)^β remains.
    """
    return ((priority_B.min() / priority_B) ** beta).astype(np.float32)


def annealed_beta(start: float, step: int, steps: int) -> float:
    """Return β at `step`, which rises linearly from `start` at 0 to 1 at `steps` and stays there.

    Raises ValueError if `start` is not from 0 to 1, `step` is below 0 or `steps` below 1.
    """
    check_fraction("start", start)
    left = max(0.0, 1.0 - whole("step", step, 0) / whole("steps", steps, 1))
    return 1.0 - left * (1.0 - start)
