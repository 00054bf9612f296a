"""One examination of a model: what it measures once, and the findings that follow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..layers.outputs import ToValues
from .checks import acting, control, draws, initial, learning, optimizer, parameters
from .checks.policy import policy_noise
from .checks.units import dormant_units
from .findings import Check, Finding
from .forward_calls import Call, calls_of
from .layer_trials import largest_cpu_tensor, redrawn_before_backward
from .preserve import preserved
from .read_noise import NoiseByLayer, is_fresh, read_all, same_draws
from .recognise import find_noisy_layers
from .subject import Act, Subject, seen_in
from .unit_flow import tensors_in

_DRAWS = 32
"""Number of redraws to compare, so that even a layer with one output shows 32 values."""
_ACTIONS = 4


@dataclass(kw_only=True)
class Examination:
    """One examination: the arguments of `doctor`, and what has been measured with them."""

    subject: Subject
    loss: Callable[[], Tensor] | None
    act: Act | None
    evaluate: Act | None
    optimizers: Sequence[Optimizer]
    update: Callable[[], Any] | None
    values: ToValues | None
    on_policy: bool
    continuous: bool

    acts: list[list[Call]] = field(default_factory=list)
    """Forwards of each action; none without `act`."""
    actions: list[Any] = field(default_factory=list)
    computed_loss: Tensor | None = None

    def __post_init__(self) -> None:
        if self.act is not None:
            for _ in range(_ACTIONS):
                calls, action = self.subject.run(self.act)
                self.acts.append(calls)
                self.actions.append(action)
        self.seen = self._some_draws()
        self.kinds = draws.kinds_of(self.subject.layers, self.seen)

    def _some_draws(self) -> list[NoiseByLayer]:
        """Read several draws: from the layers or, if those show no noise, while the agent acts."""
        subject = self.subject
        if subject.shows_noise:
            with subject.in_noisy_mode():
                seen = [read_all(subject.layers)]
                for _ in range(_DRAWS):
                    subject.redraw()
                    seen.append(read_all(subject.layers))
            return seen
        if self.act is None:
            return []
        seen = [seen_in(self.acts[-1])]
        for _ in range(_ACTIONS):
            subject.redraw()
            seen.append(seen_in(subject.run(self.act)[0]))
        return seen if all(any(noise.is_on for noise in one.values()) for one in seen) else []

    def layers(self) -> list[Finding]:
        """Check the layers: σ, μ, scale, stored noise, the optimizers, and the device of draws."""
        layers = self.subject.layers
        weight = next(iter(layers.values())).weights()[0][0]
        made = {name: largest_cpu_tensor(found) for name, found in layers.items()}
        return [
            initial.initial_sigma(layers, self.kinds),
            initial.initial_mean(layers, self.kinds),
            control.control(layers),
            parameters.sigma_size(layers),
            parameters.registered_noise(layers),
            optimizer.in_the_optimizer(layers, self.optimizers),
            optimizer.weight_decay(layers, self.optimizers),
            learning.device_of_draws(
                {name: count for name, count in made.items() if count},
                on_accelerator=weight.device.type not in ("cpu", "meta"),
            ),
        ]

    def draws(self) -> list[Finding]:
        """Check draws against each other, and what they do to the policy."""
        layers, seen = self.subject.layers, self.seen
        if not seen:
            # Not a failure: a draw that no forward shows may still lie in a buffer.
            reason = "no noise to be seen: it is off in train and eval mode, and in acting"
            names = ("redraw", "own draws", "distribution", "policy")
            return [Check(name).skipped(reason) for name in names]
        how = "a redraw" if self.subject.resample is None else "resample"
        return [
            draws.redraws(layers, seen[0], seen[1], how),
            draws.own_draws(layers, self.kinds, seen),
            draws.distribution(layers, self.kinds, seen),
            self._policy(),
        ]

    def _policy(self) -> Finding:
        subject = self.subject
        if subject.batch is None:
            return Check("policy").skipped("no observations were given")
        if not subject.shows_noise:
            return Check("policy").skipped("noise is off here")
        with subject.in_noisy_mode():
            return policy_noise(subject, self.values, continuous=self.continuous)

    def units(self) -> Finding:
        """Check how many units of the hidden layers are dormant."""
        if self.subject.batch is None:
            return Check("units").skipped("no observations were given")
        return dormant_units(self.subject.model, self.subject.batch)

    def acting(self, epsilon: float | None, entropy_bonus: float | None) -> list[Finding]:
        """Check acting and evaluating."""
        subject, layers = self.subject, self.subject.layers
        training, evaluating = subject.modes[True], subject.modes[False]
        began = None
        if self.act is not None and self.optimizers:
            began = any(bool(one.state) for one in self.optimizers)
        evaluated = None if self.evaluate is None else subject.run(self.evaluate)[0]
        acted = self.acts[0] if self.acts else None
        return [
            acting.modes(
                layers,
                training,
                evaluating,
                is_training=subject.was_training,
                acts=self.act is not None,
            ),
            acting.acting(layers, acted),
            acting.rows(acted, self._environments()),
            acting.warm_up(
                [seen_in(calls) for calls in self.acts],
                learning_began=began,
                holds_rollout=self.on_policy,
                keeps_state=any(map(_keeps_state, self.optimizers)),
            ),
            acting.other_exploration(
                epsilon=epsilon,
                entropy_bonus=entropy_bonus,
                actions=self._comparable_actions(),
                stochastic_policy=self.on_policy,
                dropout=any(call.training for call in acted or ()) and _has_dropout(subject.model),
            ),
            acting.evaluation(layers, evaluated, training, evaluating),
        ]

    def _environments(self) -> int:
        """Count the environments, by the actions and the observations; 0 if neither shows them."""
        batch = self.subject.batch
        sizes = map(_rows_of, [next(tensors_in(batch), batch), *self.actions[:1]])
        return min((size for size in sizes if size is not None), default=0)

    def _comparable_actions(self) -> list[Tensor] | None:
        """Return the actions of several calls if all were chosen from the same Q, else None.

        Q differs if every forward draws, or if the agent saw something new: with a recurrent state
        of its own, or in a collector.
        """
        outputs = [[call.output for call in calls if call.of == "online"] for calls in self.acts]
        if not all(one and _same(one, outputs[0]) for one in outputs):
            return None
        try:
            actions = [torch.as_tensor(action, device="cpu") for action in self.actions]
        except (TypeError, ValueError, RuntimeError):
            # `act` is the program's own, and may return anything.
            return None
        return actions if len({action.shape for action in actions}) == 1 else None

    def target(self, target: nn.Module | None) -> Finding:
        """Check the target network's noise against the online network's."""
        subject = self.subject
        seen: NoiseByLayer | None = None
        if target is not None:
            with preserved(target):
                target.train(subject.mode)
                # Fresh noise is read from the generators' state from which the online network's
                # was: the second time, it is other noise.
                for _ in range(2):
                    seen = read_all(find_noisy_layers(target))
        same = target is subject.model
        return learning.target_draws(subject.modes[subject.mode], seen, same_module=same)

    def learning(self) -> list[Finding]:
        """Check the loss and its gradient."""
        subject, layers = self.subject, self.subject.layers
        # Before the loss, whose graph a redraw in place would break.
        with subject.in_noisy_mode():
            trials = {name: redrawn_before_backward(found) for name, found in layers.items()}
        learned: list[Call] | None = None
        acted: list[Call] | None = None
        if self.loss is not None:
            if self.act is not None:
                # What counts is the draw before this loss: the noise may have been redrawn since.
                acted = subject.run(self.act)[0]
            losses: list[Any] = []
            compute = self.loss
            learned = calls_of(layers, lambda: losses.append(compute()))
            self.computed_loss = _checked_loss(losses[0])
        return [
            learning.in_the_loss(layers, learned),
            learning.gradients(layers, self.computed_loss),
            learning.draws_in_the_loss(learned, on_policy=self.on_policy),
            learning.learned_as_acted(acted, learned, on_policy=self.on_policy),
            learning.backward({name: one for name, one in trials.items() if one is not None}),
        ]

    def updating(self) -> list[Finding]:
        """Check an update: the program's own, or one step of the loss of `learning`."""
        layers, optimizers, loss = self.subject.layers, self.optimizers, self.computed_loss
        closures = [type(one).__name__ for one in optimizers if _takes_closure(one)]
        sigmas = {name: found.weights()[0][1].detach().clone() for name, found in layers.items()}
        before, fresh = self._noise_now()
        if self.update is not None:
            self.update()
        elif loss is not None and optimizers and not closures and loss.requires_grad:
            for one in optimizers:
                one.zero_grad()
            loss.backward()
            for one in optimizers:
                one.step()
        else:
            reason = f"it takes {'loss=' if optimizers else 'update=, or loss= and optimizer='}"
            if closures:
                reason = f"the step of {closures[0]} takes a closure: give update="
            names = ("sigma moves", "redraw between updates")
            return [Check(name).skipped(reason) for name in names]
        after, _ = self._noise_now()
        return [
            learning.sigma_moves(layers, sigmas),
            learning.redraw_between_updates(
                None if fresh else (before, after), own_update=self.update is not None
            ),
        ]

    def _noise_now(self) -> tuple[NoiseByLayer, bool]:
        """Return the noise in force, and whether every forward has a new draw."""
        subject = self.subject
        if all(is_fresh(found) for found in subject.layers.values()):
            return {}, True
        if not subject.shows_noise:
            return {}, False
        with subject.in_noisy_mode():
            first, second = read_all(subject.layers), read_all(subject.layers)
        return first, bool(first) and not same_draws(first, second)


def _keeps_state(optimizer: Optimizer) -> bool:
    """Return whether an optimizer has state after its first step; SGD without momentum has none."""
    if not isinstance(optimizer, torch.optim.SGD):
        return True
    return any(group["momentum"] for group in optimizer.param_groups)


def _takes_closure(optimizer: Optimizer) -> bool:
    """Return whether an optimizer's step needs a function that computes the loss, as LBFGS does."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _has_dropout(model: nn.Module) -> bool:
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
    return any(isinstance(part, kinds) and part.p > 0 for part in model.modules())


def _rows_of(value: Any) -> int | None:
    """Return the length of an array's first dimension, 1 for a number; None for other objects."""
    if isinstance(value, int):
        return 1
    shape = getattr(value, "shape", None)
    return None if shape is None else int(shape[0]) if len(shape) else 1


def _same(outputs: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> bool:
    """Return whether two actions' forwards of noisy layers had the same outputs."""
    return len(outputs) == len(others) and all(
        one is not None and other is not None and one.shape == other.shape
        and torch.allclose(one, other, rtol=1e-5, atol=1e-6)
        for one, other in zip(outputs, others, strict=True)
    )  # fmt: skip


def _checked_loss(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(f"loss: its function gave {got}, expected a tensor of one value")
    return loss.reshape(())
