"""Make Stable-Baselines3's DQN explore CartPole by learned noise alone: no ε, no schedule."""

import argparse

from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from noisynet.integrations.sb3 import NoiseCallback, NoisyDQNPolicy

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=50_000)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()

model = DQN(
    NoisyDQNPolicy,
    make_vec_env("CartPole-v1", seed=arguments.seed),
    exploration_initial_eps=0.0,
    exploration_final_eps=0.0,
    learning_rate=2.3e-3,
    batch_size=64,
    buffer_size=100_000,
    learning_starts=1000,
    target_update_interval=10,
    train_freq=256,
    gradient_steps=128,
    policy_kwargs={"net_arch": [256, 256]},
    seed=arguments.seed,
    device="cpu",
)
noise = NoiseCallback()
model.learn(arguments.steps, callback=noise)
for name, value in noise.figures().items():
    print(f"{name}: {value:.3f}")
mean, spread = evaluate_policy(model, make_vec_env("CartPole-v1", 10, seed=1), 50)
print(f"mean return of 50 games by the mean weights: {mean:.1f} ± {spread:.1f}")
