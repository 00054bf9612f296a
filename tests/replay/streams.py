"""Streams of records for the tests of the replay, and the slow, obvious reference."""

from dataclasses import dataclass, field

import numpy as np

from noisynet.replay import Batch, FrameReplay


@dataclass
class Record:
    """One record of one environment, in plain Python."""

    frame: int
    action: int
    reward: float
    terminated: bool = False
    truncated: bool = False
    first: bool = False
    ignored: bool = False


@dataclass
class Row:
    """One transition of the reference; `next_frames` is None where it must not matter."""

    frames: list[int]
    action: int
    total: float
    discount: float
    next_frames: list[int] | None


@dataclass
class Reference:
    """Episodes as Python lists: what may be sampled, and what a transition is.

    Every environment is a list of episodes, an episode a list of (vector step, record).
    """

    stack: int
    episodes: list[list[list[tuple[int, Record]]]] = field(default_factory=list)

    def add(self, step: int, records: list[Record]) -> None:
        if not self.episodes:
            self.episodes = [[[]] for _ in records]
        for episodes, record in zip(self.episodes, records, strict=True):
            if record.first:
                episodes.append([])
            episodes[-1].append((step, record))

    def transitions(self, low: int, n_step: int, discount: float) -> dict[tuple[int, int], Row]:
        """Return the row of every (vector step, environment) whose data begin at step `low`."""
        rows = {}
        for environment, episodes in enumerate(self.episodes):
            for episode in episodes:
                for place, (step, _) in enumerate(episode):
                    row = self._row(episode, place, low, n_step, discount)
                    if row is not None:
                        rows[step, environment] = row
        return rows

    def _row(
        self,
        episode: list[tuple[int, Record]],
        place: int,
        low: int,
        n_step: int,
        discount: float,
    ) -> Row | None:
        frames = self._stack(episode, place, low)
        if frames is None or episode[place][1].ignored:
            return None
        total = 0.0
        for k in range(n_step):
            if place + k == len(episode):
                return None  # the episode was cut off here, or goes on in the future
            record = episode[place + k][1]
            if record.ignored:
                return None
            total += discount**k * record.reward
            if record.terminated:
                return Row(frames, episode[place][1].action, total, 0.0, None)
            if record.truncated:
                break
        following = place + k + 1
        if following == len(episode):
            return None
        next_frames = self._stack(episode, following, low)
        assert next_frames is not None
        return Row(frames, episode[place][1].action, total, discount ** (k + 1), next_frames)

    def _stack(self, episode: list[tuple[int, Record]], place: int, low: int) -> list[int] | None:
        """Return the frames of a stack, or None if one has left the window."""
        begin = max(0, place - self.stack + 1)
        # An episode without a first record has no known beginning.
        if not episode[0][1].first and place - self.stack + 1 < 0:
            return None
        if episode[begin][0] < low:
            return None
        frames = [record.frame for _, record in episode[begin : place + 1]]
        return [0] * (self.stack - len(frames)) + frames


def add_step(replay: FrameReplay, records: list[Record], frame_shape: tuple[int, ...]) -> None:
    """Add one vector step; a frame is filled with its number."""
    frames = np.stack([np.full(frame_shape, record.frame, np.uint8) for record in records])
    replay.add(
        frames,
        np.array([record.action for record in records]),
        np.array([record.reward for record in records]),
        *(
            np.array([getattr(record, name) for record in records])
            for name in ("terminated", "truncated", "first", "ignored")
        ),
    )


def random_stream(
    seed: int, environments: int, steps: int, end: float = 0.1, start: int = 0
) -> list[list[Record]]:
    """Return `steps` vector steps of NEXT_STEP environments with every kind of ending."""
    generator = np.random.default_rng(seed)
    ended, first = [False] * environments, [True] * environments
    result = []
    for step in range(start, start + steps):
        records = []
        for environment in range(environments):
            record = Record(
                frame=1 + (step * environments + environment) % 255,
                action=int(generator.integers(18)),
                reward=float(generator.normal()),
                first=first[environment],
                ignored=ended[environment],
            )
            kind = generator.random() / end
            first[environment], ended[environment] = record.ignored, False
            if record.ignored:
                record.reward = 0.0
            elif kind < 0.4:
                record.terminated = ended[environment] = True
            elif kind < 0.7:
                record.truncated = ended[environment] = True
            elif kind < 1:
                record.terminated = True  # a lost life: the game goes on
            records.append(record)
        result.append(records)
    return result


def assert_equal(left: Batch, right: Batch) -> None:
    for name in Batch.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
