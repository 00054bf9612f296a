"""Noise inside TorchRL: noisy layers in its actors, under its collectors and its losses.

`noisynet.noisify(actor)` makes the layers noisy, `NoisyPolicy(actor)` acts with a draw for each
environment, and `attach(optimizer, loss, policy)` redraws after every update; nothing of the host
is changed. `NoiseControl(actor, …)` sets how much noise there is. Needs the extra `torchrl`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Self, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ..control import ActionDeviation, EffectiveEpsilon, Schedule
from ..layers import Draw, draw, mean_weights, noisy_layers, release, using
from ..layers.outputs import Outputs, outputs_under
from ..layers.restoring import buffers_preserved
from .control import ControlOptions, HostControl, RecentObservations
from .host import check_host, run_under

TESTED = {"torchrl": "0.14.1"}
"""The version of the host that this was tested with."""

check_host("noisynet.integrations.torchrl", extra="torchrl", tested=TESTED)

from tensordict import TensorDict, TensorDictBase  # noqa: E402
from tensordict.nn import TensorDictModuleBase, TensorDictModuleWrapper  # noqa: E402
from torchrl.data import MultiCategorical, MultiOneHot  # noqa: E402
from torchrl.envs.utils import (  # noqa: E402
    ExplorationType,
    exploration_type,
    set_exploration_type,
)
from torchrl.modules import (  # noqa: E402
    AdditiveGaussianModule,
    DistributionalQValueModule,
    EGreedyModule,
    OrnsteinUhlenbeckProcessModule,
)
from torchrl.modules import NoisyLinear as StockNoisyLinear  # noqa: E402
from torchrl.objectives import (  # noqa: E402
    DDPGLoss,
    DistributionalDQNLoss,
    DQNLoss,
    SACLoss,
    TD3Loss,
)

__all__ = ["NoiseControl", "NoisyPolicy", "attach"]

_LOSSES = {
    DQNLoss: "value_network",
    DistributionalDQNLoss: "value_network",
    SACLoss: "actor_network",
    TD3Loss: "actor_network",
    DDPGLoss: "actor_network",
}
"""The supported losses, and the attribute of each that has the acting network."""
_DETERMINISTIC = (ExplorationType.DETERMINISTIC, ExplorationType.MODE, ExplorationType.MEAN)


class NoisyPolicy(TensorDictModuleWrapper):
    """A policy that runs an actor under one draw of noise for each environment.

    `actor` is a QValueActor or another module of the host that reads and writes tensordicts, with
    noisynet's layers somewhere in it. The batch dimensions of a tensordict, however many, are the
    environments. Every forward redraws; after `attach`, draws are held until the next step of the
    optimizer. A copy, in a worker process for example, redraws at every forward.

    With `redraw="episode"`, each environment holds its draw until its episode ends, regardless of
    updates, and in a copy as well; the environments need the host's `InitTracker`.

    The host's exploration type has no effect unless `mean_when_deterministic` is true: then the
    policy acts by the mean weights under DETERMINISTIC, MODE and MEAN, as in evaluation. Raises
    TypeError for an actor without tensordicts, and ValueError for one without noisynet's layers, an
    unknown `redraw`, and environments that do not tell where an episode begins.
    Sources: Fortunato et al., §3.1; Plappert et al., arXiv 1706.01905, for draws by episode.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        *,
        redraw: Literal["update", "episode"] = "update",
        mean_when_deterministic: bool = False,
    ) -> None:
        if not isinstance(actor, TensorDictModuleBase):
            raise TypeError(
                f"NoisyPolicy: got {type(actor).__name__}, expected an actor that takes "
                "tensordicts, such as QValueActor"
            )
        _require_noise(actor, "NoisyPolicy", "noisynet.noisify(actor) makes its nn.Linear noisy")
        if redraw not in ("update", "episode"):
            raise ValueError(f"redraw: got {redraw!r}, expected 'update' or 'episode'")
        super().__init__(actor)
        self.redraw = redraw
        self.mean_when_deterministic = mean_when_deterministic
        self.release()

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Choose actions under the noise that is due, one draw for each row of the batch."""
        actor: Any = self.td_module
        if self.mean_when_deterministic and exploration_type() in _DETERMINISTIC:
            with mean_weights(actor):
                return actor(tensordict)
        drawn = self._draw(tensordict)
        flat = tensordict if tensordict.ndim < 2 else tensordict.reshape(-1)
        output = run_under(drawn, actor, actor, flat)
        if output is tensordict:
            return output
        return tensordict.update(output.reshape(tensordict.shape))

    def hold(self) -> None:
        """Hold one draw for each environment from now on, until `resample`."""
        self._holds = True

    def resample(self) -> None:
        """Redraw at the next forward."""
        self._held = None

    def release(self) -> None:
        """Return to a new draw at every forward or, with `redraw="episode"`, in every episode."""
        self._holds = self.redraw == "episode"
        self._held: Draw | None = None

    def after_update(self) -> None:
        """Redraw at the next forward, unless draws last for an episode."""
        if self.redraw == "update":
            self.resample()

    def _draw(self, tensordict: TensorDictBase) -> Draw:
        rows = tensordict.numel() if tensordict.ndim else None
        held = self._held
        if not self._holds or held is None or held.rows != rows:
            fresh = draw(self.td_module, rows=rows)
            self._held = fresh if self._holds else None
            return fresh
        if self.redraw == "episode":
            self._held = held = self._where_episodes_begin(tensordict, held)
        return held

    def _where_episodes_begin(self, tensordict: TensorDictBase, held: Draw) -> Draw:
        begins = tensordict.get("is_init", None)
        if begins is None:
            raise ValueError(
                "NoisyPolicy: got a tensordict without 'is_init' for redraw='episode', expected "
                "environments with torchrl.envs.InitTracker()"
            )
        if not begins.any():
            return held
        fresh = draw(self.td_module, rows=held.rows)
        begins = begins.reshape(*fresh.flats[0].shape[:-1], 1)
        pairs = zip(fresh.flats, held.flats, strict=True)
        return replace(held, flats=tuple(torch.where(begins, new, old) for new, old in pairs))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # A held draw would stay on the device where the layers were.
        self.resample()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        # A copy is not told of updates: it would keep a held draw forever.
        return {**self.__dict__, "_holds": self.redraw == "episode", "_held": None}


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
    _require_noise(network, name, "build the loss after noisynet.noisify(actor)")
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


class NoiseControl(HostControl):
    """A callable that sets the scale of the noise, by a schedule over frames or for a target.

    Build `control = NoiseControl(actor, effective_epsilon=0.05)`. Then call `control(batch)` for
    each batch of the collector, after the updates and before the next collection, or
    `control.register(trainer)` once; the log gets `noise/scale` and `noise/measured`. `actor` is
    what `NoisyPolicy` wraps, or the wrapper; a loss that is built from it has the same layers, and
    so the same scale, also for its target network. `values` turns the actor's output into (B, A);
    without it, that is `action_value`, or its mean over the atoms, and for a deviation the
    deterministic `action`.

    Options and errors are those of `HostControl`; raises ValueError for an actor without noise,
    and TypeError for a target that does not fit its actions, unless `values` are given.
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
        if values is None:
            self._check_goal()
        self._values = values or self._values_of_goal
        self._seen = RecentObservations(self.observations)
        self._frames = 0
        self.begin((self._actor,), self._outputs)

    def __call__(self, batch: TensorDictBase) -> dict[str, float]:
        """Count a collected batch, (…,) frames; move the scale if due, and return what to log.

        Raises TypeError if there is no batch, as from a collector that writes to a replay itself.
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
        """Return the state to resume from: the host's own checkpoints do not store the scale."""
        return {**super().state_dict(), "frames": self._frames}

    def load_state_dict(self, state: Any) -> None:
        """Restore a state that `state_dict` returned."""
        super().load_state_dict(state)
        self._frames = int(state["frames"])

    @torch.no_grad()
    def _outputs(self, observations: Any, generator: torch.Generator) -> Outputs:
        batch = len(next(iter(observations.values())))

        def values(one: Draw | None) -> Tensor:
            with mean_weights(self._actor) if one is None else using(self._actor, one):
                return self._values(self._actor(TensorDict(dict(observations), [batch])))

        deterministic = set_exploration_type(ExplorationType.DETERMINISTIC)
        with buffers_preserved(self._actor), deterministic:
            drawn = draw(self._actor, rows=self.draws, generator=generator)
            return outputs_under(values, drawn)

    def _check_goal(self) -> None:
        """Raise TypeError for a goal that does not fit the actions, as far as the actor tells."""
        spec = getattr(self._actor, "spec", None)
        action = None if spec is None else spec.get("action")
        has_values = "action_value" in self._actor.out_keys
        discrete = has_values or (action is not None and action.domain == "discrete")
        name = "discrete" if discrete else "continuous"
        if action is not None:
            name = type(action).__name__
        several = isinstance(action, MultiCategorical | MultiOneHot)
        self.check_actions(name, discrete=None if several else discrete)
        if isinstance(self.goal, EffectiveEpsilon) and not has_values:
            raise TypeError(
                f"NoiseControl: got {self.goal.words} for an actor without 'action_value', "
                "expected values=, which makes (B, actions) of its output"
            )

    def _values_of_goal(self, output: TensorDictBase) -> Tensor:
        if isinstance(self.goal, ActionDeviation):
            return output["action"]
        values = output["action_value"]
        for part in self._actor.modules():
            if isinstance(part, DistributionalQValueModule):
                return (values.exp() * part.support.unsqueeze(-1)).sum(-2)
        return values


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


def _require_noise(module: nn.Module, what: str, cure: str) -> None:
    stock = [name for name, part in module.named_modules() if isinstance(part, StockNoisyLinear)]
    if stock:
        raise ValueError(
            f"{what}: got torchrl's NoisyLinear at {', '.join(map(repr, stock))}, which is silent "
            "in the host's losses; expected noisynet's layers"
        )
    if not noisy_layers(module):
        raise ValueError(f"{what}: finds no noisy layer in {type(module).__name__}; {cure}")


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
