"""Small tasks that only deep exploration solves, with an optimal return that is known exactly.

All N copies step together in numpy. Nothing in them is random, so the seed changes nothing.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .arguments import check_count_and_seed, check_state, checked_actions
from .vector import Environments, Step, UnusableEnvironment

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


class ToyEnvironments(Environments):
    """N copies of a task of `size` states or rows.

    Actions are 0 and 1, observations are float32 vectors. The state can be saved: the place of each
    copy, and the steps of its game so far.
    """

    stack = 1
    frames_per_step = 1
    action_count = 2
    can_save_state = True
    observation_dtype = np.dtype(np.float32)
    name: ClassVar[str]
    """The part of the id before the size."""
    smallest: ClassVar[int]
    """The smallest size."""
    largest: ClassVar[int]
    """The largest size."""

    def __init__(self, size: int, count: int, *, seed: int = 0) -> None:
        self.count, _ = check_count_and_seed(count, seed)
        self.size = check_size(type(self), size)
        self.id = f"{self.name}-{self.size}"
        self._place = np.zeros(self.count, dtype=np.int64)
        self._elapsed = np.zeros(self.count, dtype=np.int64)
        self._restart = np.zeros(self.count, dtype=np.bool_)
        self._started = False
        self._closed = False

    @property
    @abstractmethod
    def optimal_return(self) -> float:
        """The largest undiscounted return that a game can have."""

    @abstractmethod
    def optimal_actions(self) -> Integers:
        """Return the actions (N,) that lead to the optimal return, if it can still be reached."""

    @abstractmethod
    def _move(self, actions: Integers) -> tuple[Integers, Numbers, Flags, Flags]:
        """Return the next places, rewards, terminated and truncated, all (N,)."""

    @abstractmethod
    def _seen(self) -> Numbers:
        """Return the observations (N, *shape)."""

    def _start(self) -> int:
        """Return the place where a game starts."""
        return 0

    def reset(self) -> Numbers:
        """Start a new game in each environment; see `Environments.reset`."""
        self._check_open()
        self._started = True
        self._begin(np.ones(self.count, dtype=np.bool_))
        self._restart = np.zeros(self.count, dtype=np.bool_)
        return self._seen()

    def step(self, actions: npt.ArrayLike) -> Step:
        """Take one action in each environment; see `Environments.step`."""
        self._check_open()
        if not self._started:
            raise UnusableEnvironment(f"{self.id}: step came before the first reset")
        checked = checked_actions(self.id, actions, self.count, self.action_count)
        first = self._restart
        self._begin(first)
        self._elapsed += ~first
        place, reward, terminated, truncated = self._move(checked)
        self._place = np.where(first, self._place, place)  # a game that starts stays at its start
        reward[first] = 0.0
        terminated[first] = truncated[first] = False
        self._restart = terminated | truncated
        return Step(
            observation=self._seen(),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            first=first,
            ended=self._restart.copy(),
        )

    def state(self) -> dict[str, Any]:
        """Return places, steps taken and pending restarts; see `Environments.state`."""
        self._check_open()
        if not self._started:
            raise UnusableEnvironment(f"{self.id}: state came before the first reset")
        return {
            "id": self.id,
            "place": self._place.tolist(),
            "elapsed": self._elapsed.tolist(),
            "restart": self._restart.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> Numbers:
        """Continue from a saved state bit for bit; see `Environments.restore`."""
        self._check_open()
        check_state(self, state, len(state["place"]))
        self._place = np.array(state["place"], dtype=np.int64)
        self._elapsed = np.array(state["elapsed"], dtype=np.int64)
        self._restart = np.array(state["restart"], dtype=np.bool_)
        self._started = True
        return self._seen()

    def close(self) -> None:
        """Refuse further use; there is nothing to free."""
        self._closed = True

    def _begin(self, mask: Flags) -> None:
        self._place[mask] = self._start()
        self._elapsed[mask] = 0

    def _check_open(self) -> None:
        if self._closed:
            raise UnusableEnvironment(f"{self.id}: closed")


class ChainEnvironments(ToyEnvironments):
    """The chain of Osband et al. 2016 (arXiv 1602.04621): states s1 … sN, games start in s2.

    Action 0 goes left and 1 goes right. Going left in s1 pays 1/1000, going right in sN pays 1,
    and both stay there. A game is truncated after N + 9 steps, not terminated, since the
    observation does not show the time. The observation of state s is φ_therm, (N,): entry x is 1
    where x ≤ s.

    The optimal return is 11: N - 2 steps to sN, and 11 there. The paper gives 10, which is the
    return of N + 8 steps, or of N + 9 if the start is counted.
    """

    name = "Chain"
    smallest = 4
    largest = 1000

    def __init__(self, size: int, count: int, *, seed: int = 0) -> None:
        super().__init__(size, count, seed=seed)
        self.observation_shape = (self.size,)
        self.steps = self.size + 9
        self._therm = np.tri(self.size, dtype=np.float32)

    @property
    def optimal_return(self) -> float:
        """11: at every allowed size more than (N + 8) / 1000, the return of always going left."""
        return float(self.steps - (self.size - 2))

    def optimal_actions(self) -> Integers:
        """Return the actions (N,) of the optimal policy: always right."""
        return np.ones(self.count, dtype=np.int64)

    def _start(self) -> int:
        return 1

    def _move(self, actions: Integers) -> tuple[Integers, Numbers, Flags, Flags]:
        last = self.size - 1
        right = actions == 1
        reward = np.zeros(self.count, dtype=np.float32)
        reward[~right & (self._place == 0)] = 0.001
        reward[right & (self._place == last)] = 1.0
        place = np.clip(self._place + np.where(right, 1, -1), 0, last)
        return place, reward, np.zeros(self.count, np.bool_), self._elapsed >= self.steps

    def _seen(self) -> Numbers:
        return self._therm[self._place]


class DeepSeaEnvironments(ToyEnvironments):
    """Deep Sea (Osband et al., arXiv 1703.07608; as in bsuite, arXiv 1908.03568), deterministic.

    A diver falls through a grid of N × N, one row a step, from the upper left corner, and goes
    left or right with each. Going right costs 0.01 / N; going right in the lower right corner pays
    1 as well. After N steps the game is terminated. Which action means right differs from place to
    place, and is drawn once from `mapping_seed`: all copies, all seeds of a run and its evaluation
    play the same task, as in bsuite. The observation marks the place, (N²,), row by row; after the
    last row all of it is 0.

    The optimal return is 0.99: right in all N steps. No other of the 2^N policies pays.
    """

    name = "DeepSea"
    smallest = 2
    largest = 100

    def __init__(self, size: int, count: int, *, seed: int = 0, mapping_seed: int = 0) -> None:
        super().__init__(size, count, seed=seed)
        cells = self.size**2
        self.observation_shape = (cells,)
        self.mapping_seed = mapping_seed
        # numpy promises that raw bits stay the same between versions, but not a Generator's draws.
        bits = np.random.PCG64(mapping_seed).random_raw(cells) >> np.uint64(63)
        self._right = bits.astype(np.int64)

    @property
    def optimal_return(self) -> float:
        """0.99: the treasure's 1, less N times 0.01 / N."""
        return 0.99

    def optimal_actions(self) -> Integers:
        """Return the actions (N,) that go right from here; after the last row, any action."""
        return self._right[np.minimum(self._place, self.size**2 - 1)]

    def _move(self, actions: Integers) -> tuple[Integers, Numbers, Flags, Flags]:
        row, column = np.divmod(self._place, self.size)
        right = actions == self._right[self._place]
        reward = np.where(right, np.float32(-0.01 / self.size), np.float32(0.0))
        reward[right & (column == self.size - 1)] += np.float32(1.0)
        column = np.clip(column + np.where(right, 1, -1), 0, self.size - 1)
        terminated = row == self.size - 1
        place = np.where(terminated, self.size**2, (row + 1) * self.size + column)
        return place, reward, terminated, np.zeros(self.count, np.bool_)

    def _seen(self) -> Numbers:
        seen = np.zeros((self.count, self.size**2), dtype=np.float32)
        falling = np.flatnonzero(self._place < self.size**2)
        seen[falling, self._place[falling]] = 1.0
        return seen

    def state(self) -> dict[str, Any]:
        """Return what `ToyEnvironments.state` does, and the mapping's seed."""
        return {**super().state(), "mapping_seed": self.mapping_seed}

    def restore(self, state: dict[str, Any]) -> Numbers:
        """Continue from a saved state bit for bit; see `Environments.restore`."""
        if state.get("mapping_seed", self.mapping_seed) != self.mapping_seed:
            raise UnusableEnvironment(
                f"state: got mapping_seed {state['mapping_seed']}, expected {self.mapping_seed}"
            )
        return super().restore(state)


TOYS: tuple[type[ToyEnvironments], ...] = (ChainEnvironments, DeepSeaEnvironments)


def check_size(toy: type[ToyEnvironments], size: object) -> int:
    """Return `size` as an int; raise UnusableEnvironment unless the toy has that size."""
    if (
        isinstance(size, bool)
        or not isinstance(size, int | np.integer)
        or not toy.smallest <= size <= toy.largest
    ):
        raise UnusableEnvironment(
            f"{toy.name}-{size}: size: got {size!r}, expected a whole number from {toy.smallest} "
            f"to {toy.largest}, as in {toy.name}-10"
        )
    return int(size)


def toy_of(environment_id: str) -> type[ToyEnvironments] | None:
    """Return the toy whose name precedes the first hyphen of an id; None if there is none."""
    name = environment_id.partition("-")[0]
    return next((toy for toy in TOYS if toy.name == name), None)


def make_toy(environment_id: str, count: int, *, seed: int) -> ToyEnvironments:
    """Make `Chain-<N>` or `DeepSea-<N>`; raise UnusableEnvironment if it has no such size."""
    toy = toy_of(environment_id)
    assert toy is not None, "the caller asks `toy_of` first"
    digits = environment_id.partition("-")[2]
    plain = digits.isdecimal() and digits.isascii() and not digits.startswith("0")
    size = check_size(toy, int(digits) if plain and len(digits) < 10 else digits)
    return toy(size, count, seed=seed)
