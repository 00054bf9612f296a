"""The scale of the noise in a TorchRL actor, set by a schedule or for a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.data import MultiCategorical, MultiOneHot
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import DistributionalQValueModule, QValueModule

from ...control import ActionDeviation, EffectiveEpsilon, Schedule
from ...layers import Draw, draw, mean_weights, using
from ...layers.outputs import Outputs, outputs_under
from ...layers.restoring import buffers_preserved
from ..control import ControlOptions, HostControl, RecentObservations
from .noisy_policy import NoisyPolicy


class NoiseControl(HostControl):
    """A callable that sets the scale of the noise, by a schedule over frames or for a target.

    Build `control = NoiseControl(actor, effective_epsilon=0.05)`. Then call `control(batch)` for
    each batch of the collector, after the updates and before the next collection, or
    `control.register(trainer)` once; the log gets `noise/scale` and `noise/measured`. `actor` is
    what `NoisyPolicy` wraps, or the wrapper; a loss that is built from it has the same layers, and
    so the same scale, also for its target network. `values` turns the actor's output into (B, A);
    without it, that is what the actor's QValueModule reads, `action_value` by default, or its mean
    over the atoms, and for a deviation the deterministic `action`.

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
        chooses = [part for part in self._actor.modules() if isinstance(part, QValueModule)]
        self._values_key: Any = chooses[0].action_value_key if chooses else "action_value"
        self._has_values = bool(chooses) or "action_value" in self._actor.out_keys
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
            # A collector may store its batches on another device.
            seen = TensorDict(dict(observations), [batch], device=generator.device)
            with mean_weights(self._actor) if one is None else using(self._actor, one):
                return self._values(self._actor(seen))

        deterministic = set_exploration_type(ExplorationType.DETERMINISTIC)
        with buffers_preserved(self._actor), deterministic:
            drawn = draw(self._actor, rows=self.draws, generator=generator)
            return outputs_under(values, drawn)

    def _check_goal(self) -> None:
        """Raise TypeError for a goal that does not fit the actions, as far as the actor tells."""
        spec = getattr(self._actor, "spec", None)
        action = None if spec is None else spec.get("action")
        discrete = self._has_values or (action is not None and action.domain == "discrete")
        name = "discrete" if discrete else "continuous"
        if action is not None:
            name = type(action).__name__
        several = isinstance(action, MultiCategorical | MultiOneHot)
        self.check_actions(name, discrete=None if several else discrete)
        if isinstance(self.goal, EffectiveEpsilon) and not self._has_values:
            raise TypeError(
                f"NoiseControl: got {self.goal.words} for an actor without 'action_value', "
                "expected values=, which makes (B, actions) of its output"
            )

    def _values_of_goal(self, output: TensorDictBase) -> Tensor:
        if isinstance(self.goal, ActionDeviation):
            return output["action"]
        values = output[self._values_key]
        for part in self._actor.modules():
            if isinstance(part, DistributionalQValueModule):
                return (values.exp() * part.support.unsqueeze(-1)).sum(-2)
        return values
