"""Noise inside TorchRL: noisy layers in its actors, under its collectors and its losses.

`noisynet.noisify(actor)` makes the layers noisy, `NoisyPolicy(actor)` acts with a draw for each
environment, and `attach(optimizer, loss, policy)` brings new noise after every update; nothing of
the host is changed. `NoiseControl(actor, …)` sets how much noise there is. Needs
`pip install 'noisynet[torchrl]'`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ..control import Schedule
from ..layers import Draw, draw, mean_weights, noisy_layers, release, using
from ..layers.outputs import Outputs, outputs_under
from ..layers.restoring import buffers_preserved
from .control import ControlOptions, HostControl, Seen
from .host import check_host, run_under

TESTED = {"torchrl": "0.14.1"}
"""The version of the host that this was tested with."""

check_host("noisynet.integrations.torchrl", extra="torchrl", tested=TESTED)

from tensordict import TensorDict, TensorDictBase  # noqa: E402
from tensordict.nn import TensorDictModuleBase, TensorDictModuleWrapper  # noqa: E402
from torchrl.envs.utils import ExplorationType, exploration_type  # noqa: E402
from torchrl.modules import DistributionalQValueModule, EGreedyModule  # noqa: E402
from torchrl.modules import NoisyLinear as StockNoisyLinear  # noqa: E402
from torchrl.objectives import DistributionalDQNLoss, DQNLoss  # noqa: E402

__all__ = ["NoiseControl", "NoisyPolicy", "attach"]

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


class NoiseControl(HostControl):
    """What sets the scale of the noise, by a schedule over frames or to hold a target.

    `control = NoiseControl(actor, effective_epsilon=0.05)`, then `control(batch)` for each batch of
    the collector, or `control.register(trainer)` once. It stands between two collections, after the
    updates, and gives the host's log `noise/scale` and `noise/measured`. `actor` is what
    `NoisyPolicy` wraps, or the wrapper; a loss that is built of it has the same layers, and so the
    same scale, for its target too. `values` makes (B, A) of the actor's output; without it that is
    `action_value`, or its mean over the atoms.

    Options and errors are those of `HostControl`; raises ValueError for an actor without noise.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        schedule: Schedule | None = None,
        *,
        values: Callable[[TensorDictBase], Tensor] | None = None,
        **options: Unpack[ControlOptions],
    ) -> None:
        super().__init__(schedule, **options)
        self._actor: Any = actor.td_module if isinstance(actor, NoisyPolicy) else actor
        self._values = values or self._action_values
        self._seen = Seen(self.observations)
        self._frames = 0
        self.begin((self._actor,), self._outputs)

    def __call__(self, batch: TensorDictBase) -> dict[str, float]:
        """See a batch of the collector, (…,) frames; move the scale and return what to log.

        Raises TypeError where the collector returns none, as one that writes to a replay itself.
        """
        if not isinstance(batch, TensorDictBase):
            raise TypeError(
                f"NoiseControl: got {type(batch).__name__}, expected a batch that was collected"
            )
        mask = batch.get(("collector", "mask"), None)
        flat = batch.reshape(-1) if mask is None else batch[mask]
        self._frames += len(flat)
        if self.goal is not None:
            self._seen.add({key: flat[key] for key in self._actor.in_keys})
        return self.move_by(self._frames, self._seen)

    def register(self, trainer: Any, name: str = "noise_control") -> None:
        """Move the scale after each collection of the host's Trainer and its updates."""
        trainer.register_module(name, self)
        trainer.register_op("post_steps_log", self)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs: the host's own checkpoints keep no scale."""
        return {**super().state_dict(), "frames": self._frames}

    def load_state_dict(self, state: Any) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self._frames = int(state["frames"])

    @torch.no_grad()
    def _outputs(self, observations: Any, generator: torch.Generator) -> Outputs:
        batch = len(next(iter(observations.values())))

        def values(one: Draw | None) -> Tensor:
            with mean_weights(self._actor) if one is None else using(self._actor, one):
                return self._values(self._actor(TensorDict(dict(observations), [batch])))

        with buffers_preserved(self._actor):
            drawn = draw(self._actor, rows=self.draws, generator=generator)
            return outputs_under(values, drawn)

    def _action_values(self, output: TensorDictBase) -> Tensor:
        values = output["action_value"]
        for part in self._actor.modules():
            if isinstance(part, DistributionalQValueModule):
                return (values.exp() * part.support.unsqueeze(-1)).sum(-2)
        return values


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
