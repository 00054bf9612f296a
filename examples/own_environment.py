"""Train an agent on a custom environment, by learned noise alone, and let it act."""

import gymnasium
import numpy as np

import noisynet


class Match(gymnasium.Env[np.ndarray, np.int64]):
    """A game of 20 steps. Each shows one of three signs; naming it gives a reward of 1."""

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
    agent = noisynet.train(Match, out="runs/match", steps=6000, n_step=1)
    print("signs 0, 1, 2 are named", agent.predict(np.eye(3, dtype=np.float32)).tolist())
