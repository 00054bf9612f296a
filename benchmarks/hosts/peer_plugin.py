"""A pytest plugin that replaces a peer's classes with noisynet's, and records each test.

peer_suites.py loads it into the peer's own suite. A test counts as touching noisynet where it
builds at least one noisy layer; the others say nothing about us.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import noisynet
from noisynet.layers import NoisyLayer

REPLACED: set[str] = set()
"""Peers whose models are made noisy where they are built, in a file of ours."""


def rename(package: str, theirs: Any, ours: Any) -> None:
    """Replace `theirs` with `ours`, under whatever name, in all loaded modules of a package."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == package:
            for key in [key for key, value in vars(module).items() if value is theirs]:
                setattr(module, key, ours)


def stable_baselines3() -> None:
    """Make the names of policies, such as "MlpPolicy", mean ours."""
    from stable_baselines3 import A2C, DQN, PPO

    from noisynet.integrations import sb3

    for algorithm, policy in (
        (A2C, sb3.NoisyA2CPolicy),
        (DQN, sb3.NoisyDQNPolicy),
        (PPO, sb3.NoisyPPOPolicy),
    ):
        algorithm.policy_aliases = dict.fromkeys(algorithm.policy_aliases, policy)


def sb3_contrib() -> None:
    """Make the names of QR-DQN's policies mean ours, and those of Stable-Baselines3 as well."""
    from sb3_contrib import QRDQN

    from noisynet.integrations import sb3

    stable_baselines3()
    QRDQN.policy_aliases = dict.fromkeys(QRDQN.policy_aliases, sb3.NoisyQRDQNPolicy)


def pfrl() -> None:
    """Replace the layer and the converter, as docs/peers.md describes."""
    import pfrl.nn as theirs

    def layer(linear: nn.Linear, sigma_scale: float = 0.4) -> noisynet.NoisyLinear:
        return noisynet.NoisyLinear.from_linear(linear, init="pfrl", sigma0=sigma_scale)

    def convert(module: nn.Module, sigma_scale: float = 0.4) -> nn.Module:
        return noisynet.noisify(module, init="pfrl", sigma0=sigma_scale)

    rename("pfrl", theirs.FactorizedNoisyLinear, layer)
    rename("pfrl", theirs.to_factorized_noisy, convert)


def torchrl() -> None:
    """Replace both layers with ours, which the exploration type switches off as it does theirs.

    The means also have TorchRL's names. A layer holds a draw from the start if its sizes are known.
    """
    from torchrl.envs import ExplorationType
    from torchrl.envs.utils import exploration_type
    from torchrl.modules import models
    from torchrl.modules.models.utils import LazyMapping

    class Renamed(NoisyLayer):
        def __init__(
            self,
            *arguments: Any,
            std_init: float = 0.5,
            use_exploration_type: bool | None = None,
            **options: Any,
        ) -> None:
            super().__init__(*arguments, init="torchrl", sigma0=std_init, **options)
            self._use_exploration_type = use_exploration_type is not False
            self.std_init = std_init
            if not isinstance(self, noisynet.LazyNoisyLinear):
                noisynet.hold(self)

        weight_mu = property(lambda self: self.weight)
        bias_mu = property(lambda self: self.bias)

        def reset_noise(self) -> None:
            noisynet.resample(self)

        def forward(self, *inputs: Any) -> Any:
            if self._use_exploration_type and exploration_type() == ExplorationType.DETERMINISTIC:
                with noisynet.mean_weights(self):
                    return super().forward(*inputs)
            return super().forward(*inputs)

    ours = type("NoisyLinear", (Renamed, noisynet.NoisyLinear), {})
    lazy = type("NoisyLazyLinear", (Renamed, noisynet.LazyNoisyLinear), {"cls_to_become": ours})
    rename("torchrl", models.NoisyLinear, ours)
    rename("torchrl", models.NoisyLazyLinear, lazy)
    LazyMapping[ours] = lazy


def tianshou() -> None:
    """Replace the layer, and the policies of DQN, C51 and QR-DQN."""
    from tianshou.algorithm.modelfree import c51, dqn, qrdqn
    from tianshou.utils.net import discrete

    from noisynet.integrations import tianshou as ours

    class NoisyLinear(noisynet.NoisyLinear):
        def __init__(self, inputs: int, outputs: int, noisy_std: float = 0.5) -> None:
            super().__init__(inputs, outputs, init="tianshou", sigma0=noisy_std)

        def sample(self) -> None:
            noisynet.resample(self)

    rename("tianshou", discrete.NoisyLinear, NoisyLinear)
    rename("tianshou", dqn.DiscreteQLearningPolicy, ours.NoisyDiscreteQLearningPolicy)
    rename("tianshou", c51.C51Policy, ours.NoisyC51Policy)
    rename("tianshou", qrdqn.QRDQNPolicy, ours.NoisyQRDQNPolicy)


def transformers() -> None:
    """Make tiny_transformers.py build noisy models."""
    REPLACED.add("transformers")


def timm() -> None:
    """Make every model noisy as it is created, and hold one draw."""
    import timm as host

    create = host.create_model

    def create_noisy(*arguments: Any, **options: Any) -> nn.Module:
        model = noisynet.noisify(create(*arguments, **options))
        noisynet.hold(model)
        return model

    rename("timm", create, create_noisy)


PEERS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (stable_baselines3, sb3_contrib, pfrl, torchrl, tianshou, transformers, timm)
}


class Recorder:
    """A recorder of the outcome of each test, which it writes when the session ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.touched = False
        self.tests: dict[str, dict[str, Any]] = {}
        register_module_parameter_registration_hook(self._note)

    def _note(self, module: nn.Module, *_: Any) -> None:
        self.touched = self.touched or isinstance(module, NoisyLayer)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Mark the test that begins as not touching noisynet."""
        self.touched = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Iterator[Any]:
        """Keep the worst outcome of a test's three phases, and its error in one line."""
        report = yield
        one = self.tests.setdefault(report.nodeid, {"outcome": "passed"})
        one["touches"] = self.touched
        if report.outcome != "passed" and one["outcome"] == "passed":
            one["outcome"] = report.outcome
            one["error"] = " ".join(call.excinfo.exconly().split())[:300] if call.excinfo else ""
        return report

    def pytest_sessionfinish(self) -> None:
        """Write what was recorded."""
        self.path.write_text(json.dumps(self.tests, indent=1))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add which peer's classes to replace, and where to write."""
    parser.addoption("--in-place-of", choices=[*PEERS, "nothing"], default="nothing")
    parser.addoption("--record", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Replace the peer's classes before its tests are collected."""
    peer: Any = config.getoption("--in-place-of")
    record: Any = config.getoption("--record")
    if peer != "nothing":
        PEERS[peer]()
    config.pluginmanager.register(Recorder(record))
