"""Detection of the algorithm that builds a policy, or that asks it for actions to collect.

Both are read from the caller's stack frame, since the host has no supported way to find out
(Stable-Baselines3 2.9.2):

- `_setup_model` builds a policy from spaces, learning rate schedule and `policy_kwargs`, calls
  `to(device)` on it and reads its networks. Neither the algorithm nor ε, the entropy bonus or the
  rollout buffer's class is among the arguments, a schedule does not know its owner, and no method
  of a policy is called with the algorithm later. Callbacks get it, but a user need not pass one,
  and they get it in `learn` only.
- An off-policy algorithm collects through `predict(last observation, deterministic=False)`, as
  a user may. `set_training_mode(False)` precedes both collecting and any prediction, and no call
  tells that collecting ended when a callback stops a run.

The only alternative would be another class of algorithm in the user's script.
"""

from __future__ import annotations

import inspect
import warnings
from types import FrameType

from sb3_contrib import QRDQN, TQC, CrossQ, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "NoisyDQNPolicy": DQN,
    "NoisyQRDQNPolicy": QRDQN,
    "NoisyPPOPolicy": PPO,
    "NoisyA2CPolicy": A2C,
    "NoisyTD3Policy": TD3,
    "NoisyDDPGPolicy": DDPG,
    "NoisySACPolicy": SAC,
    "NoisyTQCPolicy": TQC,
    "NoisyCrossQPolicy": CrossQ,
    "NoisyRecurrentPPOPolicy": RecurrentPPO,
}
"""Each policy, and the algorithm that it is for."""

_OF_THE_HOST = {"__init__", "_check_algorithm", "_setup_model", "_sample_action"}
"""The only functions whose local variables are read.

Before Python 3.13, reading them keeps all of them alive until the function returns: in a user's
loop over models, the former model with its replay buffer.
"""


def check_algorithm(policy: BasePolicy, expected: type[BaseAlgorithm]) -> BaseAlgorithm | None:
    """Return the algorithm that is building a policy; None if no algorithm is.

    Raises TypeError if the policy is not for that algorithm, naming those that are supported; warns
    of ε-greedy, an entropy bonus, action noise or gSDE beside the noise, with the way to turn it
    off.
    """
    name = type(policy).__name__
    frame = inspect.currentframe()
    frame, level = frame and frame.f_back, 1
    while frame is not None and _owner(frame) is policy:
        frame, level = frame.f_back, level + 1
    algorithm = None if frame is None else _owner(frame)
    if not isinstance(algorithm, BaseAlgorithm):
        return None
    if not isinstance(algorithm, expected):
        supported = ", ".join(f"{ours} for {one.__name__}" for ours, one in ALGORITHMS.items())
        raise TypeError(
            f"{name}: got the algorithm {type(algorithm).__name__}, expected "
            f"{expected.__name__}; there is {supported}"
        )
    while frame is not None and _owner(frame) is algorithm:
        frame, level = frame.f_back, level + 1
    for rival in _rivals(algorithm):
        warnings.warn(f"{type(algorithm).__name__} with {name}: {rival}", stacklevel=level + 1)
    return algorithm


def collecting_algorithm() -> OffPolicyAlgorithm | None:
    """Return the algorithm that is collecting, by calling `predict` in `_sample_action`, if any."""
    frame = inspect.currentframe()
    # This function, the policy's `predict`, the algorithm's, and `_sample_action` above them.
    for _ in range(4):
        frame = frame and frame.f_back
        if frame is not None and frame.f_code.co_name == "_sample_action":
            algorithm = _owner(frame)
            return algorithm if isinstance(algorithm, OffPolicyAlgorithm) else None
    return None


def _owner(frame: FrameType) -> object:
    return frame.f_locals.get("self") if frame.f_code.co_name in _OF_THE_HOST else None


def _rivals(algorithm: BaseAlgorithm) -> list[str]:
    """List what explores beside the noise, each with the way to turn it off."""
    found: list[str] = []
    initial = getattr(algorithm, "exploration_initial_eps", 0.0)
    final = getattr(algorithm, "exploration_final_eps", 0.0)
    if initial or final:
        found.append(
            f"ε-greedy explores beside the noise, ε from {initial:g} to {final:g}; turn it off "
            "with exploration_initial_eps=0, exploration_final_eps=0"
        )
    # SAC's coefficient is part of its objective, not a bonus.
    bonus = algorithm.ent_coef if isinstance(algorithm, OnPolicyAlgorithm) else 0.0
    if bonus:
        found.append(
            f"an entropy bonus of {bonus:g} explores beside the noise; turn it off with ent_coef=0"
        )
    action_noise = getattr(algorithm, "action_noise", None)
    if action_noise is not None:
        found.append(
            f"{type(action_noise).__name__} explores beside the noise; turn it off with "
            "action_noise=None"
        )
    if algorithm.use_sde:
        found.append("gSDE explores beside the noise; turn it off with use_sde=False")
    return found
