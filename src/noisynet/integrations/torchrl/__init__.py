"""Noise inside TorchRL: noisy layers in its actors, under its collectors and its losses.

`noisynet.noisify(actor)` makes the layers noisy, `NoisyPolicy(actor)` acts with a draw for each
environment, and `attach(optimizer, loss, policy)` redraws after every update; nothing of the host
is changed. `NoiseControl(actor, …)` sets how much noise there is. Needs the extra `torchrl`.
"""

from __future__ import annotations

from ..host import check_host

TESTED = {"torchrl": "0.14.1"}
"""The version of the host that this was tested with."""

check_host("noisynet.integrations.torchrl", extra="torchrl", tested=TESTED)

from .attached import attach  # noqa: E402
from .control import NoiseControl  # noqa: E402
from .noisy_policy import NoisyPolicy  # noqa: E402

__all__ = ["NoiseControl", "NoisyPolicy", "attach"]

# Pickled policies store where their class is found: here, whichever file defines it.
for _name in __all__:
    globals()[_name].__module__ = __name__
