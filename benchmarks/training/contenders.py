"""The contenders of run.py: each is built, warmed up, and trained for seconds at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

from .contender import Contender


class Entry:
    """A contender: the work that it does, how it is built, and the packages that it needs."""

    def __init__(self, work: str, make: Callable[[int], Contender], *needs: str) -> None:
        self.work, self.make, self.needs = work, make, needs

    def __call__(self, threads: int) -> Contender:
        """Build the contender in this process."""
        return self.make(threads)

    def missing(self) -> str | None:
        """Return as a reason which package is missing; None if the contender can take part."""
        for package in self.needs:
            if importlib.util.find_spec(package) is None:
                return f"needs {package}"
        return None


# Each contender imports its library only when it is built, in its own process.


def _replay(
    threads: int,
    environments: int,
    exploration: str = "noise",
    update_every: int = 4,
    precision: str = "auto",
) -> Contender:
    from .ours import ReplayRun

    return ReplayRun(
        threads,
        environments=environments,
        exploration=exploration,
        update_every=update_every,
        precision=precision,
    )


def _rollouts(threads: int, preset: str) -> Contender:
    from .ours import RolloutRun

    return RolloutRun(threads, preset)


def _sb3(threads: int, environments: int, *, noisy: bool = False) -> Contender:
    from .sb3 import StableDQN

    return StableDQN(threads, environments=environments, noisy=noisy)


def _sb3_ppo(threads: int, environments: int) -> Contender:
    from .sb3 import StablePPO, pong

    return StablePPO(threads, games=partial(pong, environments))


def _tianshou(threads: int, environments: int) -> Contender:
    from .tianshou import TianshouDQN

    return TianshouDQN(threads, environments=environments)


def _torchrl(threads: int, environments: int) -> Contender:
    from .torchrl import TorchRLDQN

    return TorchRLDQN(threads, environments=environments)


def _book(threads: int) -> Contender:
    from .book import BookLoop

    return BookLoop(threads)


def _entries(work: str, environments: int, suffix: str) -> dict[str, Entry]:
    """Return the contenders that do the same work with this number of environments."""
    ours = partial(_replay, environments=environments)
    sb3 = partial(_sb3, environments=environments)
    return {
        f"noisynet, {suffix}": Entry(work, ours),
        f"noisynet, {suffix}, float32": Entry(work, partial(ours, precision="float32")),
        f"noisynet, {suffix}, ε-greedy": Entry(work, partial(ours, exploration="epsilon")),
        f"SB3, {suffix}": Entry(work, sb3, *_SB3),
        f"SB3, {suffix}, our noise": Entry(work, partial(sb3, noisy=True), *_SB3),
    }


_SB3 = ("stable_baselines3", "cv2")
CONTENDERS = {
    **_entries("one environment", 1, "1 environment"),
    **_entries("eight environments", 8, "8 environments"),
    "Tianshou, 8 environments": Entry(
        "eight environments", partial(_tianshou, environments=8), "tianshou", "cv2"
    ),
    "TorchRL, 8 environments": Entry(
        "eight environments", partial(_torchrl, environments=8), "torchrl", "cv2"
    ),
    "noisynet, the book's work": Entry(
        "the book's work", partial(_replay, environments=1, update_every=1)
    ),
    "the book's loop": Entry("the book's work", _book, "cv2"),
    "noisynet, pqn-pong": Entry("rollouts", partial(_rollouts, preset="pqn-pong")),
    "SB3 PPO, 8 environments": Entry("rollouts", partial(_sb3_ppo, environments=8), *_SB3),
    "SB3 PPO, 64 environments": Entry("rollouts", partial(_sb3_ppo, environments=64), *_SB3),
}
