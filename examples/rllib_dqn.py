"""Make RLlib's DQN explore CartPole by learned noise alone: no ε, no schedule."""

import argparse
from typing import Any

import ray
from ray.rllib.algorithms.dqn import DQNConfig

import noisynet
from noisynet.integrations.rllib import add_noise

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=80_000)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()

ray.init(num_cpus=2, include_dashboard=False)
config = (
    DQNConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
    .training(
        epsilon=0.0,
        lr=[[0, 1e-3], [80_000, 1e-4]],
        train_batch_size_per_learner=128,
        num_steps_sampled_before_learning_starts=1000,
        dueling=False,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 50_000},
    )
    .rl_module(
        model_config={
            "fcnet_hiddens": [128],
            "fcnet_activation": "relu",
            "head_fcnet_hiddens": [128],
        }
    )
    .evaluation(evaluation_duration=20, evaluation_config={"explore": False})
    .reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=1000)
    .debugging(seed=arguments.seed)
)
algorithm = add_noise(config, sigma0=0.2, noise_in="head").build_algo()
step = 0
while step < arguments.steps:
    result = algorithm.train()
    step = int(result["num_env_steps_sampled_lifetime"])
    print(f"step {step}: {result['env_runners'].get('episode_return_mean', 0.0):.1f}", flush=True)
module: Any = algorithm.get_module()
for name, value in noisynet.snr(module).items():
    print(f"snr/{name}: {value:.3f}")
returns = algorithm.evaluate()["env_runners"]["episode_return_mean"]
print(f"mean return of 20 games by the mean weights: {returns:.1f}")
algorithm.stop()
ray.shutdown()
