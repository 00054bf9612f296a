"""A tree of sums, which finds or changes a batch of its values in a few numpy calls."""

import numpy as np
import numpy.typing as npt


class SumTree:
    """`size` values ≥ 0, with a search for the value at a given point of their running sum.

    A node is the sum of `fan` children, and the highest level, of at most `fan`² nodes, is searched
    as a whole: a million values make three levels. A wide tree takes fewer numpy calls than a
    binary one, and a row of children fills a few cache lines. A change sums a node from all its
    children, so rounding errors do not grow with the number of changes, and the tree is a function
    of its values alone: a tree rebuilt from them is the same, bit for bit.

    The values, and their sum, must be finite; the caller checks. Suffixes: B values asked for,
    F children of a node.
    """

    def __init__(self, size: int, *, fan: int = 32) -> None:
        self._fan = fan
        self._levels: list[npt.NDArray[np.float64]] = []  # the values first, then their sums
        nodes = size
        while nodes > fan * fan:
            rows = -(-nodes // fan)
            self._levels.append(np.zeros(rows * fan))
            nodes = rows
        self._levels.append(np.zeros(nodes))
        self._rows_F = [level.reshape(-1, fan) for level in self._levels[:-1]]
        self.values = self._levels[0][:size]
        """The values (size,), for reading only; `set` and `load` change them."""

    @property
    def total(self) -> float:
        """Return the sum of all values, as `find` computes it."""
        return float(self._levels[-1].cumsum()[-1])

    def get(self, index_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the values at the given indices."""
        return self.values.take(index_B)

    def set(self, index_B: npt.NDArray[np.int64], value_B: npt.NDArray[np.float64]) -> None:
        """Change values; if an index is given twice, its last value counts."""
        self.values[index_B] = value_B
        node_B = index_B
        for row_F, above in zip(self._rows_F, self._levels[1:], strict=True):
            node_B = node_B // self._fan
            above[node_B] = np.add.reduce(row_F.take(node_B, axis=0), axis=1)

    def load(self, values: npt.NDArray[np.float64]) -> None:
        """Replace all values, (size,)."""
        self.values[:] = values
        for row_F, above in zip(self._rows_F, self._levels[1:], strict=True):
            above[: len(row_F)] = np.add.reduce(row_F, axis=1)

    def find(self, target_B: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the index i of each target: Σ_{j<i} v_j ≤ target < Σ_{j≤i} v_j.

        Targets are from 0 to less than `total`, which must be positive. Where rounding takes a
        target past its node's end, the node's last value above 0 is found: the index of a value 0
        is never returned.
        """
        top = self._levels[-1]
        end = np.zeros(len(top) + 1)
        _ = top.cumsum(out=end[1:])
        target_B = np.minimum(target_B, np.nextafter(end[-1], 0.0))
        node_B = end.searchsorted(target_B, "right") - 1
        if not self._rows_F:
            return node_B
        target_B = target_B - end.take(node_B)
        # Ends of the children, with a 0 before the first: end_BF[b, k] is where child k begins. A
        # chosen child ends past the target and begins at or before it, so its value is above 0,
        # and what is left of the target is ≥ 0 without rounding.
        end_BF = np.zeros((len(target_B), self._fan + 1))
        child_end_BF, flat = end_BF[:, 1:], end_BF.reshape(-1)
        begin_B = np.arange(0, end_BF.size, self._fan + 1)
        for row_F in reversed(self._rows_F):
            _ = row_F.take(node_B, axis=0).cumsum(axis=1, out=child_end_BF)
            target_B = np.minimum(target_B, np.nextafter(child_end_BF[:, -1], 0.0))
            child_B = (child_end_BF > target_B[:, None]).argmax(axis=1)
            target_B = target_B - flat.take(begin_B + child_B)
            node_B = node_B * self._fan + child_B
        return node_B
