"""Noise inside Stable-Baselines3 and sb3-contrib: `DQN(NoisyDQNPolicy, env, …)`.

One policy class for each of DQN, QR-DQN, PPO and A2C. It takes vectors, images and dicts; nothing
of the host is changed. Needs `pip install 'noisynet[sb3]'`.
"""

from __future__ import annotations

from .host import check_host

TESTED = {"stable-baselines3": "2.9.2", "sb3-contrib": "2.9.0"}
"""The versions of the host that this was tested with."""

check_host("noisynet.integrations.sb3", extra="sb3", tested=TESTED)

from .sb3_actor_critic import NoisyA2CPolicy, NoisyPPOPolicy  # noqa: E402
from .sb3_callback import NoiseCallback  # noqa: E402
from .sb3_rollout import NoisyDictRolloutBuffer, NoisyRolloutBuffer  # noqa: E402
from .sb3_value import NoisyDQNPolicy, NoisyQRDQNPolicy  # noqa: E402

__all__ = [
    "NoiseCallback",
    "NoisyA2CPolicy",
    "NoisyDQNPolicy",
    "NoisyDictRolloutBuffer",
    "NoisyPPOPolicy",
    "NoisyQRDQNPolicy",
    "NoisyRolloutBuffer",
]
