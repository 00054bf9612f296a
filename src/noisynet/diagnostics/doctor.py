"""Is the noise of a model acting, different, learning? The checks, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .checks import acting, draws, learning, values
from .checks.draws import Seen
from .findings import Diagnosis, Finding
from .patient import Act, Patient, seen_in
from .policy import policy_noise
from .preserve import preserved
from .probe import is_fresh, see
from .recognise import find_noisy_layers
from .trial import numbers_made_on_cpu, redrawn_before_backward
from .watch import Call, calls_of

_DRAWS = 32
"""Draws that are compared, so that even a layer of one output shows 32 values."""
_ACTIONS = 4


def doctor(
    model: nn.Module,
    batch: Any = None,
    *,
    loss: Callable[[], Tensor] | None = None,
    target: nn.Module | None = None,
    act: Act | None = None,
    evaluate: Act | None = None,
    optimizer: Optimizer | None = None,
    resample: Callable[[], Any] | None = None,
    update: Callable[[], Any] | None = None,
    on_policy: bool = False,
    epsilon: float | None = None,
    entropy_bonus: float | None = None,
) -> Diagnosis:
    """Check whether a model's noise acts, differs and learns, one finding for each check.

    `model` may have noisynet's layers or another library's, which are recognised by structure.
    `batch` is an observation batch (B, …), or the tuple of arguments that the model takes; it goes
    to `act` and `evaluate` too. Whatever is not given leaves its checks out, and they say so:

    - `act`: batch to actions, the way the agent really acts while it explores: through the
      framework's collector or policy. Actions that it returns are compared; None is as good;
    - `evaluate`: the same, the way it is evaluated;
    - `loss`: computes the loss once and returns it, a tensor of one value with its graph;
    - `target`: the target network; `optimizer`: the one that learns;
    - `resample`: what the program calls to redraw; without it each layer's own method;
    - `update`: runs a whole update; without it one step of loss and optimizer is tried;
    - `on_policy`: the loss must run under the draw that acted (A2C, A3C, PPO);
    - `epsilon`, `entropy_bonus`: what else explores.

    Model, target and optimizer are left as they were found: values, gradients, modes, draws, and
    the global generators too. What the functions do elsewhere stays done. Raises TypeError for
    what is no module, and for a loss that is no tensor of one value.
    """
    layers = find_noisy_layers(model)
    found = values.layers_found(layers, type(model).__name__)
    if not layers:
        return Diagnosis([found])
    if target is not None and not isinstance(target, nn.Module):
        raise TypeError(f"target: got {type(target).__name__}, expected an nn.Module or None")
    for name, function in (("loss", loss), ("act", act), ("evaluate", evaluate),
                           ("resample", resample), ("update", update)):  # fmt: skip
        if function is not None and not callable(function):
            raise TypeError(f"{name}: got {type(function).__name__}, expected a function or None")
    patient = Patient(model, layers, batch, resample)
    own_target = None if target is model else target
    with preserved(model, own_target, optimizer):
        examined = _Examination(
            patient,
            loss=loss,
            act=act,
            evaluate=evaluate,
            optimizer=optimizer,
            update=update,
            on_policy=on_policy,
        )
        return Diagnosis(
            [
                found,
                *examined.layers(),
                *examined.draws(),
                *examined.acting(epsilon, entropy_bonus),
                *examined.target(target),
                *examined.learning(),
            ]
        )


class _Examination:
    """One visit: what was given, and what has been measured with it."""

    def __init__(
        self,
        patient: Patient,
        *,
        loss: Callable[[], Tensor] | None,
        act: Act | None,
        evaluate: Act | None,
        optimizer: Optimizer | None,
        update: Callable[[], Any] | None,
        on_policy: bool,
    ) -> None:
        self._patient = patient
        self._layers = patient.layers
        self._loss = loss
        self._act = act
        self._evaluate = evaluate
        self._optimizer = optimizer
        self._update = update
        self._on_policy = on_policy
        self._acted: list[Call] | None = None
        self._actions: list[Any] = []
        self._moments: list[Seen] = []
        """What each of some actions was chosen under."""
        if act is not None:
            for _ in range(_ACTIONS):
                calls, action = patient.run(act)
                self._acted = calls if self._acted is None else self._acted
                self._actions.append(action)
                self._moments.append(seen_in(calls))
        self._draws = self._some_draws()
        self._kinds = draws.kinds_of(self._layers, self._draws)

    def _some_draws(self) -> list[Seen]:
        """Look at draw after draw: at the layers themselves, or while the agent acts."""
        patient = self._patient
        if patient.sees:
            with preserved(patient.model):
                patient.model.train(patient.mode)
                seen: list[Seen] = [patient.look()]
                for _ in range(_DRAWS):
                    patient.redraw()
                    seen.append(patient.look())
            return seen
        if self._act is None:
            return []
        seen = [self._moments[-1]]
        for _ in range(_ACTIONS):
            patient.redraw()
            seen.append(seen_in(patient.run(self._act)[0]))
        return seen if all(any(noise.is_on for noise in one.values()) for one in seen) else []

    def layers(self) -> list[Finding]:
        """Check what lies in the layers."""
        weight = next(iter(self._layers.values())).weights()[0][0]
        made = {name: numbers_made_on_cpu(found) for name, found in self._layers.items()}
        return [
            values.initial_sigma(self._layers, self._kinds),
            values.initial_mean(self._layers, self._kinds),
            values.sigma_size(self._layers),
            values.registered_noise(self._layers),
            *values.optimizer_has_sigma(self._layers, self._optimizer),
            learning.device_of_draws(
                {name: count for name, count in made.items() if count},
                on_accelerator=weight.device.type not in ("cpu", "meta"),
            ),
        ]

    def draws(self) -> list[Finding]:
        """Check draws against each other, and what they do to the policy."""
        patient, seen = self._patient, self._draws
        how = "resample" if patient.resample is not None else "a redraw"
        if not seen:
            # A draw that cannot be seen at work may still lie in a buffer.
            reason = "no noise to be seen: it is off in train and eval mode, and in acting"
            names = ("redraw", "own draws", "distribution", "policy")
            return [Finding(name, "skipped", reason) for name in names]
        return [
            draws.redraws(self._layers, seen[0], seen[1], how),
            draws.own_draws(self._layers, seen),
            draws.distribution(self._layers, self._kinds, seen),
            self._policy(),
        ]

    def _policy(self) -> Finding:
        patient = self._patient
        if not patient.sees or patient.batch is None:
            missing = "no observations were given" if patient.batch is None else "noise is off here"
            return Finding("policy", "skipped", missing)
        with preserved(patient.model):
            patient.model.train(patient.mode)
            return policy_noise(patient.model, self._layers, patient.batch, patient.redraw)

    def acting(self, epsilon: float | None, entropy_bonus: float | None) -> list[Finding]:
        """Check acting and evaluating."""
        patient = self._patient
        training, evaluating = patient.modes[True], patient.modes[False]
        began = None
        if self._act is not None and self._optimizer is not None:
            began = bool(self._optimizer.state)
        evaluated = None if self._evaluate is None else patient.run(self._evaluate)[0]
        return [
            acting.modes(
                self._layers,
                training,
                evaluating,
                is_training=patient.was_training,
                acts=self._act is not None,
            ),
            acting.acting(self._layers, self._acted),
            acting.rows(self._acted),
            acting.warm_up(
                self._moments,
                learning_began=began,
                holds_rollout=self._on_policy,
                keeps_state=_keeps_state(self._optimizer),
            ),
            acting.other_exploration(
                epsilon=epsilon,
                entropy_bonus=entropy_bonus,
                actions=self._comparable_actions(),
                stochastic_policy=self._on_policy,
            ),
            acting.evaluation(self._layers, evaluated, training, evaluating),
        ]

    def _comparable_actions(self) -> list[Tensor] | None:
        """Give the actions of several calls where all were chosen under one draw."""
        first = self._moments[0] if self._moments else {}
        one_draw = first and all(
            name in moment and moment[name].equals(noise)
            for moment in self._moments
            for name, noise in first.items()
        )
        if not one_draw:
            return None
        try:
            actions = [torch.as_tensor(action) for action in self._actions]
        except (TypeError, ValueError, RuntimeError):
            return None
        return actions if len({action.shape for action in actions}) == 1 else None

    def target(self, target: nn.Module | None) -> list[Finding]:
        """Check the target network's noise against the online network's."""
        patient = self._patient
        seen: Seen | None = None
        if target is not None:
            theirs = find_noisy_layers(target)
            with preserved(target):
                target.train(patient.mode)
                found = {name: see(layer) for name, layer in theirs.items()}
                seen = {name: noise for name, noise in found.items() if noise is not None}
        same = target is patient.model
        return [learning.target_draws(patient.modes[patient.mode], seen, same_module=same)]

    def learning(self) -> list[Finding]:
        """Check the loss, its gradient and an update."""
        patient, layers = self._patient, self._layers
        learned: list[Call] | None = None
        loss: Tensor | None = None
        acted = self._acted
        if self._loss is not None:
            if self._act is not None:
                # The draw may have been changed since: what matters is the one before this loss.
                acted = patient.run(self._act)[0]
            losses: list[Any] = []
            compute = self._loss
            with torch.enable_grad():
                learned = calls_of(layers, lambda: losses.append(compute()))
            loss = _checked_loss(losses[0])
        findings = [
            learning.in_the_loss(layers, learned),
            learning.gradients(layers, loss),
            learning.draws_in_the_loss(learned, on_policy=self._on_policy),
            learning.learned_as_acted(acted, learned, on_policy=self._on_policy),
            learning.backward(self._backward()),
        ]
        return [*findings, *self._updated(loss)]

    def _backward(self) -> dict[str, str]:
        patient = self._patient
        with preserved(patient.model):
            patient.model.train(patient.mode)
            results = {name: redrawn_before_backward(found) for name, found in self._layers.items()}
        return {name: result for name, result in results.items() if result is not None}

    def _updated(self, loss: Tensor | None) -> list[Finding]:
        optimizer = self._optimizer
        if self._update is None and (loss is None or optimizer is None or not loss.requires_grad):
            return learning.no_update(optimizer)
        before = {
            name: found.weights()[0][1].detach().clone() for name, found in self._layers.items()
        }
        noise_before, fresh = self._noise_now()
        if self._update is not None:
            self._update()
        elif loss is not None and optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        noise_after, _ = self._noise_now()
        noise = None if fresh else (noise_before, noise_after)
        own = self._update is not None
        findings = learning.after_update(self._layers, before, noise, own_update=own)
        if not noise_before and not fresh:
            findings[1] = Finding(findings[1].name, "skipped", "no noise to be seen")
        return findings

    def _noise_now(self) -> tuple[Seen, bool]:
        """Give the noise in force, and whether every forward draws anew."""
        patient = self._patient
        if all(is_fresh(found) for found in self._layers.values()):
            return {}, True
        if not patient.sees:
            return {}, False
        with preserved(patient.model):
            patient.model.train(patient.mode)
            first, second = patient.look(), patient.look()
        fresh = bool(first) and not any(first[one].equals(second[one]) for one in first)
        return first, fresh


def _keeps_state(optimizer: Optimizer | None) -> bool:
    """Tell whether an optimizer's state shows its first step: SGD without momentum has none."""
    if not isinstance(optimizer, torch.optim.SGD):
        return True
    return any(group["momentum"] for group in optimizer.param_groups)


def _checked_loss(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(f"loss: its function gave {got}, expected a tensor of one value")
    return loss.reshape(())
