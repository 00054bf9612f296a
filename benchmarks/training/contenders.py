"""The contenders of run.py: each is built, warmed up, and trained for seconds at a time."""

from __future__ import annotations

import importlib.util
import resource
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .parts import time_parts

BATCH, REPLAY, TARGET_EVERY, LEARNING_RATE = 32, 100_000, 1_000, 1e-4
RANDOM_STEPS = 2_000
WARM_UP_STEPS = 2_400  # learning has begun, and its first updates are over


class Contender(ABC):
    """A training that counts its steps and updates, and can be continued at will."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.steps = self.updates = 0

    @abstractmethod
    def train_until(self, done: Callable[[], bool]) -> None:
        """Train until `done()` is true; it is called now and then."""

    def warm_up(self) -> None:
        """Fill the replay at random, and let learning begin."""
        self.train_until(lambda: self.steps >= WARM_UP_STEPS)

    def train_for(self, seconds: float) -> dict[str, float]:
        """Train for some seconds and return steps, updates and samples a second."""
        steps, updates, began = self.steps, self.updates, time.perf_counter()
        self.train_until(lambda: time.perf_counter() - began >= seconds)
        took = time.perf_counter() - began
        rate = (self.updates - updates) / took
        return {"steps": (self.steps - steps) / took, "updates": rate, "samples": BATCH * rate}

    def finish(self) -> dict[str, Any]:
        """Return the process's peak memory."""
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"peak_mb": kilobytes / (1024**2 if sys.platform == "darwin" else 1024)}


class Noisynet(Contender):
    """Our own loop, as `noisynet train` runs it: metrics and games are logged."""

    def __init__(
        self,
        threads: int,
        *,
        environments: int,
        exploration: str,
        update_every: int,
        precision: str,
    ) -> None:
        super().__init__(threads)
        from noisynet.assemble import train
        from noisynet.runs import config

        settings = config.load(
            "noisy-dqn" if exploration == "noise" else "dqn",
            {
                "device": "cpu", "threads": threads, "environments": environments,
                "precision": precision,
                "batch_size": BATCH, "replay_capacity": REPLAY, "warmup_steps": RANDOM_STEPS,
                "update_every": update_every, "target_every": TARGET_EVERY, "optimizer": "adam",
                "learning_rate": LEARNING_RATE, "checkpoint_every": 10**8, "steps": 10**8,
            },
        )  # fmt: skip
        self._update_every = update_every
        self._seconds = time_parts()
        self._folder = tempfile.TemporaryDirectory()
        self._run = Path(self._folder.name) / "run"
        self._events = train(settings, self._run)
        self._measured = 0.0

    def train_until(self, done: Callable[[], bool]) -> None:
        """Take events, which the loop yields every 100 updates and at the end of each game."""
        began = time.perf_counter()
        for event in self._events:
            self.steps = event.step
            self.updates = max(0, (event.step - RANDOM_STEPS) // self._update_every)
            if done():
                break
        self._measured += time.perf_counter() - began

    def warm_up(self) -> None:
        """Warm up, and leave the time it took out of the shares."""
        super().warm_up()
        self._seconds.clear()
        self._measured = 0.0

    def finish(self) -> dict[str, Any]:
        """Close the run, and return the share of the time that each part took as well."""
        shares = {part: spent / self._measured for part, spent in self._seconds.items()}
        shares["the rest"] = 1 - sum(shares.values())
        self._events.close()
        from noisynet.runs import RunFolder, config

        chosen = config.from_yaml(RunFolder.open(self._run).config_text, str(self._run))
        self._folder.cleanup()
        return {**super().finish(), "parts": shares, "precision": chosen.training.precision}


class StableBaselines(Contender):
    """Stable-Baselines3's DQN with its own Atari wrappers."""

    def __init__(self, threads: int, *, environments: int, noisy: bool) -> None:
        super().__init__(threads)
        import ale_py
        import gymnasium
        from stable_baselines3 import DQN
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.env_util import make_atari_env
        from stable_baselines3.common.vec_env import VecFrameStack

        gymnasium.register_envs(ale_py)
        games = VecFrameStack(make_atari_env("PongNoFrameskip-v4", environments, seed=0), 4)
        policy: Any = "CnnPolicy"
        explores: dict[str, Any] = {"exploration_fraction": 1e-6, "exploration_final_eps": 0.02}
        if noisy:
            from noisynet.integrations.sb3 import NoisyDQNPolicy

            policy = NoisyDQNPolicy
            explores = {"exploration_initial_eps": 0.0, "exploration_final_eps": 0.0}
        # One update for 4 steps of the game: with 8 environments two after each vector step.
        every, gradient_steps = (4, 1) if environments == 1 else (1, environments // 4)
        self._model = DQN(
            policy, games, learning_rate=LEARNING_RATE, buffer_size=REPLAY,
            learning_starts=RANDOM_STEPS, batch_size=BATCH, train_freq=every,
            gradient_steps=gradient_steps, target_update_interval=TARGET_EVERY, device="cpu",
            seed=0, **explores,
        )  # fmt: skip

        class Referee(BaseCallback):
            def __init__(self, done: Callable[[], bool], owner: StableBaselines) -> None:
                super().__init__()
                self.done, self.owner = done, owner

            def _on_step(self) -> bool:
                self.owner.steps = self.num_timesteps
                self.owner.updates = vars(self.model)["_n_updates"]
                return not self.done()

        self._referee = partial(Referee, owner=self)

    def train_until(self, done: Callable[[], bool]) -> None:
        """Learn until the callback ends it."""
        self._model.learn(10**9, callback=self._referee(done), reset_num_timesteps=False)


class BookLoop(Contender):
    """The loop of "Deep Reinforcement Learning Hands-On", chapter 8, written from its description.

    One environment behind Python wrappers, transitions as objects in a list, batches stacked by
    numpy, and one update for each step.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import ale_py
        import gymnasium
        from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

        gymnasium.register_envs(ale_py)
        game: Any = gymnasium.make("PongNoFrameskip-v4")
        self._game: Any = FrameStackObservation(AtariPreprocessing(game), 4)
        self._replay: deque[tuple[Any, ...]] = deque(maxlen=REPLAY)
        self._network, self._target = self._build(), self._build()
        self._target.load_state_dict(self._network.state_dict())
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=LEARNING_RATE)
        self._generator = np.random.Generator(np.random.PCG64(0))
        self._observation, _ = self._game.reset(seed=0)

    def _build(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, int(self._game.action_space.n)),
        )  # fmt: skip

    def train_until(self, done: Callable[[], bool]) -> None:
        """Play a step, then learn from a batch, again and again."""
        while True:
            self._play()
            if self.steps > RANDOM_STEPS:
                self._learn()
            if done():
                return

    def _play(self) -> None:
        epsilon = 1.0 if self.steps < RANDOM_STEPS else 0.02
        if self._generator.random() < epsilon:
            action = int(self._generator.integers(self._game.action_space.n))
        else:
            with torch.no_grad():
                seen = torch.as_tensor(np.array(self._observation, np.float32)[None] / 255)
                action = int(self._network(seen).argmax())
        following, reward, terminated, truncated, _ = self._game.step(action)
        self._replay.append((self._observation, action, reward, terminated, following))
        self._observation = following
        if terminated or truncated:
            self._observation, _ = self._game.reset()
        self.steps += 1

    def _learn(self) -> None:
        chosen = self._generator.integers(len(self._replay), size=BATCH)
        before, action, reward, terminated, after = zip(
            *(self._replay[index] for index in chosen), strict=True
        )
        q = self._network(torch.as_tensor(np.array(before, np.float32) / 255))
        q_tm1 = q.gather(1, torch.tensor(action)[:, None]).squeeze(1)
        with torch.no_grad():
            q_t = self._target(torch.as_tensor(np.array(after, np.float32) / 255)).amax(1)
            q_t[torch.tensor(terminated)] = 0
            target = torch.tensor(reward, dtype=torch.float32) + 0.99 * q_t
        loss = nn.functional.mse_loss(q_tm1, target)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.updates += 1
        if self.steps % TARGET_EVERY == 0:
            self._target.load_state_dict(self._network.state_dict())


class _Entry:
    """A contender's piece of work and what it needs."""

    def __init__(self, work: str, make: Callable[[int], Contender], *needs: str) -> None:
        self.work, self.make, self.needs = work, make, needs

    def __call__(self, threads: int) -> Contender:
        return self.make(threads)


def _ours(
    environments: int, exploration: str, update_every: int = 4, precision: str = "auto"
) -> Callable[[int], Contender]:
    return partial(
        Noisynet,
        environments=environments,
        exploration=exploration,
        update_every=update_every,
        precision=precision,
    )


def _sb3(environments: int, noisy: bool) -> Callable[[int], Contender]:
    return partial(StableBaselines, environments=environments, noisy=noisy)


_SB3 = ("stable_baselines3", "cv2")
CONTENDERS = {
    "noisynet, 1 environment": _Entry("one environment", _ours(1, "noise")),
    "noisynet, 1 environment, float32": _Entry(
        "one environment", _ours(1, "noise", precision="float32")
    ),
    "noisynet, 1 environment, ε-greedy": _Entry("one environment", _ours(1, "epsilon")),
    "SB3, 1 environment": _Entry("one environment", _sb3(1, False), *_SB3),
    "SB3, 1 environment, our noise": _Entry("one environment", _sb3(1, True), *_SB3),
    "noisynet, 8 environments": _Entry("eight environments", _ours(8, "noise")),
    "noisynet, 8 environments, float32": _Entry(
        "eight environments", _ours(8, "noise", precision="float32")
    ),
    "noisynet, 8 environments, ε-greedy": _Entry("eight environments", _ours(8, "epsilon")),
    "SB3, 8 environments": _Entry("eight environments", _sb3(8, False), *_SB3),
    "SB3, 8 environments, our noise": _Entry("eight environments", _sb3(8, True), *_SB3),
    "noisynet, the book's work": _Entry("the book's work", _ours(1, "noise", 1)),
    "the book's loop": _Entry("the book's work", BookLoop, "cv2"),
}


def missing(name: str) -> str | None:
    """Return the package that a contender lacks, as a reason; None where it can take part."""
    for package in CONTENDERS[name].needs:
        if importlib.util.find_spec(package) is None:
            return f"needs {package}"
    return None
