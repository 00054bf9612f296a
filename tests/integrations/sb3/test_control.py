"""The scale of a Stable-Baselines3 agent's noise: by a schedule, and held at a target."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import numpy as np
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env

import noisynet
from noisynet.control import Linear, scale
from noisynet.integrations.sb3 import (
    NoiseCallback,
    NoiseControl,
    NoisyDQNPolicy,
    NoisyPPOPolicy,
    NoisySACPolicy,
)

QUIET = {"exploration_initial_eps": 0.0, "exploration_final_eps": 0.0}


def dqn(**options: Any) -> Any:
    settings: dict[str, Any] = {
        "learning_starts": 0,
        "learning_rate": 1e-3,
        "buffer_size": 5000,
        "train_freq": 4,
        "target_update_interval": 100,
        "policy_kwargs": {"net_arch": [32]},
        **QUIET,
        "device": "cpu",
        "seed": 0,
        **options,
    }
    return DQN(NoisyDQNPolicy, make_vec_env("CartPole-v1", 4, seed=0), **settings)


def ppo(environment: str, **options: Any) -> PPO:
    """PPO with noise in all layers, and one epoch for each rollout of two environments."""
    return PPO(
        NoisyPPOPolicy,
        make_vec_env(environment, 2, seed=0),
        policy_kwargs={"noise_in": "all"},
        n_epochs=1,
        device="cpu",
        seed=0,
        **options,
    )


def test_a_schedule_sets_both_networks_by_the_host_s_steps() -> None:
    model = dqn()
    seen: list[tuple[int, float]] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            seen.append((self.num_timesteps, scale(self.model.policy)))
            return True

    model.learn(200, callback=[NoiseControl(Linear(1.0, 0.2, until=160)), Watch()])
    assert scale(model.q_net) == scale(model.q_net_target)
    # It is set where a collection of train_freq = 4 vector steps of 4 environments starts.
    for step, found in seen:
        start = (step - 4) // 16 * 16
        assert found == pytest.approx(max(1.0 - 0.8 * start / 160, 0.2))
    assert seen[-1][1] == pytest.approx(0.2)
    assert "linear schedule, 1 to 0.2" in noisynet.doctor(model.q_net)["control"].message


def test_a_target_moves_in_every_training_when_it_is_due() -> None:
    model = dqn()
    control = NoiseControl(effective_epsilon=0.05, every=48, draws=2)
    scales: list[float] = []
    for options in ({}, {}, {"reset_num_timesteps": False}):
        model.learn(160, callback=control, **options)
        scales.append(scale(model.policy))
    assert len({1.0, *scales}) == 4
    # A new callback of a training that goes on waits as the first one did.
    moved: list[int] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            if scale(self.model.policy) != scales[-1]:
                moved.append(self.num_timesteps)
            return True

    model.learn(
        160,
        callback=[NoiseControl(effective_epsilon=0.05, every=48, draws=2), Watch()],
        reset_num_timesteps=False,
    )
    assert moved[0] == 320 + 48 + 4


def test_a_training_in_short_parts_is_one_training() -> None:
    def trained(parts: int) -> tuple[float, list[int]]:
        model = ppo("CartPole-v1", n_steps=16, batch_size=32)
        control, logged_at = NoiseControl(effective_epsilon=0.05, every=64), []
        logs = [NoiseCallback(every=64) for _ in range(2)]
        for log in logs:
            log.figures = lambda: logged_at.append(model.num_timesteps) or {}
        for _ in range(parts):
            model.learn(160 // parts, callback=[control, logs[0]], reset_num_timesteps=False)
        # A new callback of a training that goes on waits as the first one did.
        model.learn(96, callback=logs[1], reset_num_timesteps=False)
        model.learn(96, callback=logs[1])  # begins at step 0 again
        return scale(model.policy), logged_at

    # Five rollouts of 32 steps, each shorter than `every`. The host resets the environments.
    moved, logged_at = trained(parts=5)
    assert moved != 1
    assert logged_at == trained(parts=1)[1] == [64, 128, 224, 64]


def test_the_draws_that_measure_follow_from_the_seed() -> None:
    def scale_after(**options: Any) -> float:
        model = dqn()
        model.learn(80, callback=NoiseControl(effective_epsilon=0.05, every=16, draws=2, **options))
        return scale(model.policy)

    # The model's is 0.
    assert scale_after() == scale_after(seed=0) != scale_after(seed=1)


def sac(**options: Any) -> SAC:
    return SAC(
        NoisySACPolicy,
        make_vec_env("Pendulum-v1", 2, seed=0),
        policy_kwargs={"net_arch": [16], "learned": False},
        learning_starts=20,
        batch_size=8,
        buffer_size=1000,
        device="cpu",
        seed=0,
        **options,
    )


RESUMED = {
    "dqn": (dqn, {"effective_epsilon": 0.05, "every": 16, "draws": 2}),
    "sac": (sac, {"action_deviation": 0.1, "every": 16, "draws": 2, "factor": 1.2}),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_control_is_saved_beside_the_model_and_resumed(name: str, tmp_path: Path) -> None:
    build, options = RESUMED[name]
    model, control = build(), NoiseControl(**options)
    model.learn(200, callback=control)
    saved = scale(model.policy.noisy_network)
    assert saved != 1
    model.save(tmp_path / "model")
    torch.save(control.state_dict(), tmp_path / "control")
    # The host saves state_dicts, and builds the policy anew.
    loaded = type(model).load(tmp_path / "model", env=model.get_env())
    assert scale(loaded.policy.noisy_network) == 1
    resumed = NoiseControl(**options)
    resumed.load_state_dict(torch.load(tmp_path / "control"))
    assert resumed.state_dict() == control.state_dict()
    scales: list[float] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            scales.append(scale(self.model.policy.noisy_network))
            return True

    loaded.learn(100, callback=[resumed, Watch()], reset_num_timesteps=False)
    assert scales[0] == saved
    assert len(set(scales)) > 1
    assert {scale(module) for module in loaded.policy.scaled_modules} == {scales[-1]}
    # A state is loaded once: later trainings go on.
    loaded.learn(50, callback=resumed, reset_num_timesteps=False)
    counts = [one.state_dict()["measurements"] for one in (control, resumed)]
    assert counts[1] > counts[0] + 5
    # A control that has a model takes it, too.
    resumed.load_state_dict(control.state_dict())
    loaded.learn(2, callback=resumed)
    assert scale(loaded.policy.noisy_network) == saved


def test_ppo_learns_a_rollout_under_the_scale_that_acted() -> None:
    model = ppo("Pendulum-v1", n_steps=32, batch_size=16)
    scales: list[float] = []
    ratios: list[float] = []
    policy = model.policy
    evaluate, forward = policy.evaluate_actions, policy.forward

    def acting(*arguments: Any, **options: Any) -> Any:
        scales.append(scale(policy))
        return forward(*arguments, **options)

    def learning(*arguments: Any) -> Any:
        assert scale(policy) == scales[-1]
        values = evaluate(*arguments)
        ratios.append(scales[-1])
        return values

    policy.forward, policy.evaluate_actions = acting, learning
    control = NoiseControl(action_deviation=0.2, every=32, observations=64)
    model.learn(400, callback=control)
    changes = [n for n in range(1, len(scales)) if scales[n] != scales[n - 1]]
    assert changes
    assert all(n % 32 == 0 for n in changes), "the scale moved inside a rollout"
    assert ratios
    # Plappert's factor, up or down at every measurement.
    for n in changes:
        assert abs(math.log(scales[n] / scales[n - 1])) == pytest.approx(math.log(1.01))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="NoiseControl: draws: got 1, expected at least 2"):
        NoiseControl(effective_epsilon=0.1, draws=1)
    with pytest.raises(
        RuntimeError, match=r"^NoiseCallback: it has no model yet, pass it to learn"
    ):
        NoiseCallback().figures()
    with pytest.raises(RuntimeError, match=r"^NoiseControl: it has no model yet, pass it to learn"):
        NoiseControl(effective_epsilon=0.1).state_dict()
    with pytest.raises(TypeError, match=r"got action deviation 0\.2 for Discrete actions"):
        dqn().learn(8, callback=NoiseControl(action_deviation=0.2))
    plain = DQN("MlpPolicy", make_vec_env("CartPole-v1", 1), device="cpu")
    with pytest.raises(TypeError, match="NoiseControl: got DQNPolicy, expected one of"):
        plain.learn(8, callback=NoiseControl(effective_epsilon=0.1))


@pytest.mark.parametrize("state", [{}, {"scale": 0.5}, 3, {"scale": "1", "measurements": 0}])
def test_a_damaged_state_is_refused_at_once(state: Any) -> None:
    control = NoiseControl(effective_epsilon=0.1)
    with pytest.raises(TypeError, match=r"NoiseControl: state: got .*, expected what state_dict"):
        control.load_state_dict(state)
    dqn().learn(8, callback=control)  # as if nothing had been loaded


@pytest.mark.parametrize("listed", [False, True])
def test_a_callback_for_events_is_refused(listed: bool) -> None:
    """EveryNTimesteps forwards no rollout: inside it the callbacks would do nothing."""
    for inner in (NoiseControl(effective_epsilon=0.1), NoiseCallback()):
        callback = EveryNTimesteps(4, CallbackList([inner]) if listed else inner)
        expected = f"{type(inner).__name__}: got EveryNTimesteps around it"
        with pytest.raises(TypeError, match=expected):
            dqn().learn(8, callback=callback)


class Measured(BaseCallback):
    """Effective ε over the last observations and draws of its own, every 250 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []
        self.found: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        self.seen = [*self.seen[-63:], self.locals["new_obs"]]
        if self.num_timesteps % 250 < 4:
            observations, _ = self.model.policy.obs_to_tensor(np.concatenate(self.seen))
            found = noisynet.behaviour(self.model.q_net, observations, draws=16)
            self.found.append((self.num_timesteps, found.effective_epsilon))
        return True


@pytest.mark.slow
def test_a_target_is_held_over_a_training_of_the_host_s_dqn() -> None:
    measured = Measured()
    model = dqn(learning_starts=1000, buffer_size=20_000)
    control = NoiseControl(effective_epsilon=0.05, every=40, observations=256)
    model.learn(20_000, callback=[control, measured])
    after = [share for step, share in measured.found if step > 2000]
    # Each of ten parts of the training, and the whole.
    parts = [float(np.mean(part)) for part in np.array_split(after, 10)]
    assert float(np.mean(after)) == pytest.approx(0.05, rel=0.2)
    assert min(parts) > 0.025
    assert max(parts) < 0.1
