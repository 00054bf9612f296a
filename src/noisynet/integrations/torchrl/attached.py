"""`attach`, which redraws after every update, and gives each network of a loss its own noise."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from torchrl.modules import AdditiveGaussianModule, EGreedyModule, OrnsteinUhlenbeckProcessModule
from torchrl.objectives import DDPGLoss, DistributionalDQNLoss, DQNLoss, SACLoss, TD3Loss

from ...layers import noisy_layers, release
from .noisy_policy import NoisyPolicy, require_noise

_LOSSES = {
    DQNLoss: "value_network",
    DistributionalDQNLoss: "value_network",
    SACLoss: "actor_network",
    TD3Loss: "actor_network",
    DDPGLoss: "actor_network",
}
"""The supported losses, and the attribute of each that has the acting network."""


class Attached:
    """A handle on what `attach` has done; `remove` undoes it."""

    def __init__(self, policy: NoisyPolicy, handle: RemovableHandle) -> None:
        self._policy, self._handle = policy, handle

    def remove(self) -> None:
        """Detach from the optimizer; the policy draws as before."""
        self._handle.remove()
        self._policy.release()


def attach(optimizer: Optimizer, loss: nn.Module, policy: nn.Module) -> Attached:
    """Redraw after every `optimizer.step()`, and give each network of a loss its own noise.

    `policy` is what the collector runs: a `NoisyPolicy` or a module that contains one. From now on,
    it holds a draw for each environment, and redraws after each step. If a loss has several
    optimizers, `optimizer` is the one with the actor's parameters. The noise inside the loss is
    fresh: every forward makes one draw for the whole minibatch. So in DQN the online network has ε,
    the target network, whose parameters the loss puts into the same module, ε′, and the choice of
    the next action ε″ (§3.1). In SAC, TD3 and DDPG, the actor has one draw for its own loss and
    another for the next actions.

    Raises TypeError for a loss that is not supported or is built from a `NoisyPolicy`, and for a
    policy without one; ValueError for a loss without noisy layers in its actor, or with some in
    critics that the host runs as one batch, and for an optimizer without the actor's σ. Warns if
    the host's own exploration is left on.
    """
    acting = next((one for kind, one in _LOSSES.items() if isinstance(loss, kind)), None)
    if acting is None:
        supported = ", ".join(one.__name__ for one in _LOSSES)
        raise TypeError(f"attach: got the loss {type(loss).__name__}; supported are {supported}")
    noisy = _find_policy(policy)
    network: Any = getattr(loss, acting)
    name = type(loss).__name__
    if any(isinstance(part, NoisyPolicy) for part in network.modules()):
        raise TypeError(f"{name}: got a NoisyPolicy, expected the actor inside it")
    require_noise(network, name, "build the loss after noisynet.noisify(actor)")
    critics: Any = getattr(loss, "qvalue_network", None)
    if critics is not None and noisy_layers(critics):
        raise ValueError(
            f"{name}: got noise in the critics, whose copies the host runs under one vmap; "
            "expected noise in the actor alone"
        )
    _require_sigma(optimizer, getattr(loss, f"{acting}_params"))
    for part in policy.modules():
        _warn_of_exploration(part)
    release(network)
    noisy.hold()
    return Attached(noisy, optimizer.register_step_post_hook(lambda *_: noisy.after_update()))


def _warn_of_exploration(part: nn.Module) -> None:
    """Warn of a module of the host that explores, unless its scale is 0."""
    match part:
        case EGreedyModule():
            what, symbol, scale = "ε-greedy", "ε", part.eps
        case AdditiveGaussianModule():
            what, symbol, scale = "Gaussian noise", "σ", part.sigma
        case OrnsteinUhlenbeckProcessModule():
            what, symbol, scale = "Ornstein-Uhlenbeck noise", "ε", part.eps
        case _:
            return
    size = float(torch.as_tensor(scale))
    if size:
        warnings.warn(
            f"attach: {what} explores beside the noise, {symbol} = {size:g}; turn it off by "
            f"leaving {type(part).__name__} out of the collector's policy",
            stacklevel=3,
        )


def _find_policy(policy: nn.Module) -> NoisyPolicy:
    for part in policy.modules():
        if isinstance(part, NoisyPolicy):
            return part
    raise TypeError(
        f"attach: got the policy {type(policy).__name__} without a NoisyPolicy in it, expected "
        "NoisyPolicy(actor), which the collector runs"
    )


def _require_sigma(optimizer: Optimizer, online: Any) -> None:
    known = {id(one) for group in optimizer.param_groups for one in group["params"]}
    missing = [
        ".".join(key) if isinstance(key, tuple) else key
        for key, parameter in online.items(True, True)
        if str(key[-1] if isinstance(key, tuple) else key).endswith("_sigma")
        and id(parameter) not in known
    ]
    if missing:
        raise ValueError(
            f"attach: the optimizer has no {', '.join(missing)}; build it of loss.parameters()"
        )
