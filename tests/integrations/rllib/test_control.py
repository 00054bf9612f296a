"""The scale of an RLlib agent's noise: one for all its processes, by a schedule or for a target."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "ray.rllib", reason="needs noisynet[rllib], which has an environment of its own"
)

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig

import noisynet
from noisynet.control import Linear, scale
from noisynet.integrations.rllib import NoiseControl

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    # The host warns of itself.
    pytest.mark.filterwarnings("ignore"),
]


def test_a_schedule_sets_learner_and_env_runners(
    built: Any, config_of: Any, learner_module: Any
) -> None:
    schedule = Linear(1.0, 0.2, until=400)
    config = config_of(DQNConfig, runners=2).callbacks(partial(NoiseControl, schedule))
    algorithm = built(config)
    for _ in range(5):
        result = algorithm.train()
    steps = result["env_runners"]["num_env_steps_sampled_lifetime"]
    assert steps >= 40
    assert result["noise/scale"] == pytest.approx(schedule(int(steps)))
    everywhere = algorithm.env_runner_group.foreach_env_runner(lambda one: scale(one.module))
    assert len(everywhere) == 3
    assert {*everywhere, scale(learner_module(algorithm))} == {result["noise/scale"]}
    said = noisynet.doctor(learner_module(algorithm))["control"].message
    assert "linear schedule, 1 to 0.2" in said


def test_a_loaded_agent_goes_on_with_the_schedule(
    built: Any, config_of: Any, learner_module: Any, tmp_path: Path
) -> None:
    control = partial(NoiseControl, Linear(1.0, 0.2, until=400))
    algorithm = built(config_of(DQNConfig).callbacks(control))
    for _ in range(5):
        result = algorithm.train()
    assert result["noise/scale"] < 1
    algorithm.save_to_path(tmp_path / "checkpoint")
    loaded = built(config_of(DQNConfig).callbacks(control))
    loaded.load_checkpoint(str(tmp_path / "checkpoint"))
    assert scale(learner_module(loaded)) == result["noise/scale"]
    assert scale(loaded.get_module()) == result["noise/scale"]
    # The host tells nobody of this one.
    other = Algorithm.from_checkpoint(str(tmp_path / "checkpoint"))
    try:
        after = other.train()["noise/scale"]
        assert scale(other.get_module()) == after < result["noise/scale"]
    finally:
        other.stop()


@pytest.mark.parametrize(
    ("kind", "env", "goal"),
    [
        (DQNConfig, "CartPole-v1", {"effective_epsilon": 0.05}),
        (SACConfig, "Pendulum-v1", {"action_deviation": 0.1}),
    ],
)
def test_a_target_is_measured_on_what_the_env_runner_acted_on(
    kind: Any, env: str, goal: dict[str, float], built: Any, config_of: Any, learner_module: Any
) -> None:
    control = partial(NoiseControl, every=16, observations=32, **goal)
    config = config_of(kind, env).evaluation(evaluation_interval=12, evaluation_duration=1)
    algorithm = built(config.callbacks(control))
    results = [algorithm.train() for _ in range(12)]
    moved = [one for one in results if "noise/measured" in one]
    assert len(moved) >= 3
    module = algorithm.get_module()
    assert moved[-1]["noise/scale"] == scale(module) == scale(learner_module(algorithm)) != 1
    assert len(module.seen.last()) == 32
    evaluated = algorithm.eval_env_runner_group.foreach_env_runner(
        lambda one: (scale(one.module), one.module.seen)
    )
    assert evaluated == [(scale(module), None)]
    assert all(0 <= one["noise/measured"] <= 2 for one in moved)


@pytest.mark.parametrize(
    ("env", "goal"),
    [("CartPole-v1", {"effective_epsilon": 0.1}), ("Pendulum-v1", {"action_deviation": 0.1})],
)
def test_ppo_learns_a_rollout_under_the_scale_that_acted(
    env: str, goal: dict[str, float], built: Any, config_of: Any, learner_module: Any
) -> None:
    control = partial(NoiseControl, every=64, observations=64, **goal)
    algorithm = built(config_of(PPOConfig, env).callbacks(control))
    module = algorithm.get_module()
    acted: list[float] = []
    learned: list[float] = []
    acting, learning = module._forward_exploration, learner_module(algorithm)._forward_train

    def act(*arguments: Any, **options: Any) -> Any:
        acted.append(scale(module))
        return acting(*arguments, **options)

    def learn(*arguments: Any, **options: Any) -> Any:
        learned.append(scale(learner_module(algorithm)))
        return learning(*arguments, **options)

    module._forward_exploration, learner_module(algorithm)._forward_train = act, learn
    rollouts = []
    for _ in range(3):
        acted.clear()
        learned.clear()
        result = algorithm.train()
        rollouts.append({*acted, *learned})
        assert learned
        assert result["noise/scale"] == scale(module)
    assert [len(one) for one in rollouts] == [1, 1, 1]
    assert len(set.union(*rollouts)) > 1


def test_an_agent_without_noise_is_refused(built: Any, config_of: Any) -> None:
    config = config_of(DQNConfig, noisy=False).callbacks(
        partial(NoiseControl, effective_epsilon=0.05)
    )
    with pytest.raises(TypeError, match="NoiseControl: found no noisy RLModule"):
        built(config)


@pytest.mark.parametrize(
    ("kind", "env", "goal", "expected"),
    [
        (DQNConfig, "CartPole-v1", "action_deviation", "Discrete actions, expected effective_eps"),
        (SACConfig, "Pendulum-v1", "effective_epsilon", "Box actions, expected action_deviation"),
        (PPOConfig, "Pendulum-v1", "effective_epsilon", "Box actions, expected action_deviation"),
    ],
)
def test_a_target_that_does_not_fit_the_actions_is_refused(
    kind: Any, env: str, goal: str, expected: str, built: Any, config_of: Any
) -> None:
    config = config_of(kind, env).callbacks(partial(NoiseControl, **{goal: 0.1}))
    with pytest.raises(TypeError, match=expected):
        built(config)
