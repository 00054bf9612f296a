"""Noise inside TorchRL: noisy layers in its actors, under its collectors and its losses.

`noisynet.noisify(actor)` makes the layers noisy, `NoisyPolicy(actor)` acts with a draw for each
environment, and `attach(optimizer, loss, policy)` brings new noise after every update; nothing of
the host is changed. Needs the extra `torchrl`.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ..layers import Draw, draw, mean_weights, noisy_layers, release
from .host import check_host, run_under

TESTED = {"torchrl": "0.14.1"}
"""The version of the host that this was tested with."""

check_host("noisynet.integrations.torchrl", extra="torchrl", tested=TESTED)

from tensordict import TensorDictBase  # noqa: E402
from tensordict.nn import TensorDictModuleBase, TensorDictModuleWrapper  # noqa: E402
from torchrl.envs.utils import ExplorationType, exploration_type  # noqa: E402
from torchrl.modules import EGreedyModule  # noqa: E402
from torchrl.modules import NoisyLinear as StockNoisyLinear  # noqa: E402
from torchrl.objectives import DistributionalDQNLoss, DQNLoss  # noqa: E402

__all__ = ["NoisyPolicy", "attach"]

_LOSSES = (DQNLoss, DistributionalDQNLoss)
_DETERMINISTIC = (ExplorationType.DETERMINISTIC, ExplorationType.MODE, ExplorationType.MEAN)


class NoisyPolicy(TensorDictModuleWrapper):
    """Policy that runs an actor under one draw of noise for each environment.

    `actor` is a QValueActor or another module of the host that reads and writes tensordicts, with
    noisynet's layers somewhere in it. The batch of a tensordict, of any number of dimensions, is
    the environments. Every forward draws anew; after `attach` draws are held until the next step
    of the optimizer. A copy, in a worker process too, draws anew at every forward.

    The host's exploration type plays no part, unless `mean_when_deterministic`: then the policy
    acts by the mean weights under DETERMINISTIC, MODE and MEAN, as in evaluation. Raises TypeError
    for an actor without tensordicts, and ValueError for one without noisynet's layers.
    Source: Fortunato et al., §3.1.
    """

    def __init__(self, actor: TensorDictModuleBase, *, mean_when_deterministic: bool = False):
        if not isinstance(actor, TensorDictModuleBase):
            raise TypeError(
                f"NoisyPolicy: got {type(actor).__name__}, expected an actor that takes "
                "tensordicts, such as QValueActor"
            )
        _require_noise(actor, "NoisyPolicy", "noisynet.noisify(actor) makes its nn.Linear noisy")
        super().__init__(actor)
        self.mean_when_deterministic = mean_when_deterministic
        self._holds = False
        self._held: Draw | None = None

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Choose actions under the noise that is due, one draw for each row of the batch."""
        actor: Any = self.td_module
        if self.mean_when_deterministic and exploration_type() in _DETERMINISTIC:
            with mean_weights(actor):
                return actor(tensordict)
        drawn = self._draw(tensordict.numel() if tensordict.ndim else None)
        flat = tensordict if tensordict.ndim < 2 else tensordict.reshape(-1)
        output = run_under(drawn, actor, actor, flat)
        if output is tensordict:
            return output
        return tensordict.update(output.reshape(tensordict.shape))

    def hold(self) -> None:
        """Hold one draw for each environment from now on, until `resample`."""
        self._holds = True

    def resample(self) -> None:
        """Draw anew at the next forward."""
        self._held = None

    def release(self) -> None:
        """Draw anew at every forward again."""
        self._holds, self._held = False, None

    def _draw(self, rows: int | None) -> Draw:
        if not self._holds:
            return draw(self.td_module, rows=rows)
        if self._held is None or self._held.rows != rows:
            self._held = draw(self.td_module, rows=rows)
        return self._held

    def __getstate__(self) -> dict[str, Any]:
        # A copy does not hear of updates: what it held would be its noise for good.
        return {**self.__dict__, "_holds": False, "_held": None}


class Attached:
    """What `attach` has done; `remove` undoes it."""

    def __init__(self, policy: NoisyPolicy, handle: RemovableHandle) -> None:
        self._policy, self._handle = policy, handle

    def remove(self) -> None:
        """Detach from the optimizer; the policy draws anew at every forward again."""
        self._handle.remove()
        self._policy.release()


def attach(optimizer: Optimizer, loss: nn.Module, policy: nn.Module) -> Attached:
    """Draw new noise after every `optimizer.step()`, and let each network of a loss have its own.

    `policy` is what the collector runs: a `NoisyPolicy` or a module that has one. It holds a draw
    for each environment from now on, and draws anew after each step. The noise inside the loss is
    fresh: every forward draws, one draw for the whole minibatch, and so the online network has ε,
    the target network, whose parameters the loss puts into the same module, ε′, and the choice of
    the next action ε″ (§3.1).

    Raises TypeError for a loss that is not supported and for a policy without a `NoisyPolicy`,
    ValueError for a loss without noisy layers or an optimizer that does not have its σ; warns of
    ε-greedy left on.
    """
    if not isinstance(loss, _LOSSES):
        supported = " and ".join(one.__name__ for one in _LOSSES)
        raise TypeError(f"attach: got the loss {type(loss).__name__}; supported are {supported}")
    noisy = _find_policy(policy)
    network: Any = loss.value_network
    name = type(loss).__name__
    if any(isinstance(part, NoisyPolicy) for part in network.modules()):
        raise TypeError(f"{name}: got a NoisyPolicy, expected the actor inside it")
    _require_noise(network, name, "build the loss after noisynet.noisify(actor)")
    _require_sigma(optimizer, loss)
    for part in policy.modules():
        if isinstance(part, EGreedyModule):
            _warn_of_epsilon(part)
    release(network)
    noisy.hold()
    return Attached(noisy, optimizer.register_step_post_hook(lambda *_: noisy.resample()))


def _warn_of_epsilon(greedy: EGreedyModule) -> None:
    epsilon = float(torch.as_tensor(greedy.eps))
    if epsilon:
        warnings.warn(
            f"attach: ε-greedy explores beside the noise, ε = {epsilon:g}; turn it off by leaving "
            "EGreedyModule out of the collector's policy",
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


def _require_noise(module: nn.Module, what: str, cure: str) -> None:
    stock = [name for name, part in module.named_modules() if isinstance(part, StockNoisyLinear)]
    if stock:
        raise ValueError(
            f"{what}: got torchrl's NoisyLinear at {', '.join(map(repr, stock))}, which is silent "
            "in the host's losses; expected noisynet's layers"
        )
    if not noisy_layers(module):
        raise ValueError(f"{what}: finds no noisy layer in {type(module).__name__}; {cure}")


def _require_sigma(optimizer: Optimizer, loss: nn.Module) -> None:
    known = {id(one) for group in optimizer.param_groups for one in group["params"]}
    online: Any = loss.value_network_params
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
