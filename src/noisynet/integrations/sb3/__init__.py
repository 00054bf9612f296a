"""Noise inside Stable-Baselines3 and sb3-contrib: `DQN(NoisyDQNPolicy, env, …)`.

There is one policy class for each of DQN, QR-DQN, PPO, A2C, RecurrentPPO, TD3, DDPG, SAC, TQC and
CrossQ, for vectors, images and dicts; nothing of the host is changed. Two more, for images in DQN
and QR-DQN, have BTR's torso. Needs the extra `sb3`.
"""

from __future__ import annotations

from ..host import check_host

TESTED = {"stable-baselines3": "2.9.2", "sb3-contrib": "2.9.0"}
"""The versions of the host that this was tested with."""

check_host("noisynet.integrations.sb3", extra="sb3", tested=TESTED)

from .actor_critic import (  # noqa: E402
    NoisyA2CPolicy,
    NoisyDictRolloutBuffer,
    NoisyPPOPolicy,
    NoisyRolloutBuffer,
)
from .btr import BTRDQNPolicy, BTRQRDQNPolicy, ImpalaExtractor  # noqa: E402
from .callback import NoiseCallback  # noqa: E402
from .continuous import (  # noqa: E402
    NoisyCrossQPolicy,
    NoisyDDPGPolicy,
    NoisySACPolicy,
    NoisyTD3Policy,
    NoisyTQCPolicy,
)
from .control import NoiseControl  # noqa: E402
from .recurrent import NoisyRecurrentPPO, NoisyRecurrentPPOPolicy  # noqa: E402
from .value import NoisyDQNPolicy, NoisyQRDQNPolicy  # noqa: E402

__all__ = [
    "BTRDQNPolicy",
    "BTRQRDQNPolicy",
    "ImpalaExtractor",
    "NoiseCallback",
    "NoiseControl",
    "NoisyA2CPolicy",
    "NoisyCrossQPolicy",
    "NoisyDDPGPolicy",
    "NoisyDQNPolicy",
    "NoisyDictRolloutBuffer",
    "NoisyPPOPolicy",
    "NoisyQRDQNPolicy",
    "NoisyRecurrentPPO",
    "NoisyRecurrentPPOPolicy",
    "NoisyRolloutBuffer",
    "NoisySACPolicy",
    "NoisyTD3Policy",
    "NoisyTQCPolicy",
]

# A saved model stores where its policy and buffer are found: here, whichever file defines them.
for _name in __all__:
    globals()[_name].__module__ = __name__
