"""Noise inside RLlib's new API stack: `add_noise(DQNConfig().training(epsilon=0.0))`.

One RLModule each for DQN, SAC and PPO; nothing of the host is changed. `NoiseControl` is a callback
that sets how much noise there is. Needs the extra `rllib`.
"""

from __future__ import annotations

from ..host import check_host

TESTED = {"ray": "2.60.0"}
"""The version of the host that this was tested with."""

check_host("noisynet.integrations.rllib", extra="rllib", tested=TESTED, needs=["dm-tree"])

from .config import add_noise  # noqa: E402
from .control import NoiseControl  # noqa: E402
from .modules import (  # noqa: E402
    NOISE_SEED,
    NoisyDQNRLModule,
    NoisyPPORLModule,
    NoisySACRLModule,
)

__all__ = [
    "NOISE_SEED",
    "NoiseControl",
    "NoisyDQNRLModule",
    "NoisyPPORLModule",
    "NoisySACRLModule",
    "add_noise",
]

# Checkpoints store where the RLModules are found: here, whichever file defines them.
for _module in (NoisyDQNRLModule, NoisyPPORLModule, NoisySACRLModule):
    _module.__module__ = __name__
