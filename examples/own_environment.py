"""Train an agent on a custom environment, by learned noise alone, and let it act."""

from pathlib import Path

import gymnasium
import numpy as np

from noisynet import assemble, training
from noisynet.evaluation.agent import TrainedAgent
from noisynet.runs import config


class Match(gymnasium.Env[np.ndarray, np.int64]):
    """One of three signs at each step; naming it is worth 1. A game has 20 steps."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def _show(self) -> np.ndarray:
        self.sign = int(self.np_random.integers(3))
        return np.eye(3, dtype=np.float32)[self.sign]

    def reset(self, *, seed: int | None = None, options: object = None):
        super().reset(seed=seed)
        self.left = 20
        return self._show(), {}

    def step(self, action: np.int64):
        reward, self.left = float(action == self.sign), self.left - 1
        return self._show(), reward, False, self.left == 0, {}


if __name__ == "__main__":
    folder = Path("runs/match")
    settings = {"environment": "own_environment:Match", "steps": 6000, "n_step": 1}
    for event in assemble.train(config.load("control", settings), folder):
        if isinstance(event, training.GameFinished) and event.game % 50 == 0:
            print(f"game {event.game}: mean return {event.mean_return:.1f}")
    agent = TrainedAgent.load(folder)
    print("signs 0, 1, 2 are named", agent.act(np.eye(3, dtype=np.float32)).tolist())
