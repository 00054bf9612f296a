"""The doctor: a model's noise, examined by all checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..layers.kernels.tracing import uncompiled
from ..layers.optimizers import optimizers_in
from ..layers.outputs import ToValues
from .checks import parameters
from .examination import Examination
from .findings import Diagnosis
from .preserve import preserved
from .recognise import find_noisy_layers, noisy_layers_without_shape
from .subject import Act, Subject


def doctor(
    model: nn.Module,
    batch: Any = None,
    *,
    loss: Callable[[], Tensor] | None = None,
    target: nn.Module | None = None,
    act: Act | None = None,
    evaluate: Act | None = None,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    resample: Callable[[], Any] | None = None,
    values: ToValues | None = None,
    update: Callable[[], Any] | None = None,
    on_policy: bool = False,
    continuous: bool = False,
    epsilon: float | None = None,
    entropy_bonus: float | None = None,
) -> Diagnosis:
    """Check whether a model's noise acts, changes and is learned; return a finding per check.

    `model` may have noisynet's layers or another library's, which are recognised by structure; lazy
    ones get their shape from a forward, which must come first. `batch` is an observation batch (B,
    …), or the tuple of arguments that the model takes; it is also passed to `act` and `evaluate`. A
    check that needs an argument which is not given is skipped, with a finding that names the
    argument:

    - `act`: maps the batch to actions in the way that the agent really acts while it explores,
      through the framework's collector or policy. It may also return None; actions that it returns
      are compared;
    - `evaluate`: the same, in the way that the agent is evaluated;
    - `loss`: computes the loss once and returns it, a tensor of one value with its graph;
    - `target`: the target network;
    - `optimizer`: the optimizer that trains the model, or a sequence of them that have its
      parameters together, in the order in which they step;
    - `resample`: the program's own redraw; by default, each layer's own method is called;
    - `values`: makes Q, logits or continuous actions (B, A) from any other output of the model,
      such as a distribution (B, A, atoms);
    - `update`: runs a whole update; by default, one step of loss and optimizer is tried, unless
      that step takes a closure;
    - `on_policy`: the loss must run under the draw that acted (A2C, A3C, PPO);
    - `continuous`: the model returns continuous actions (B, A), not Q or logits: how far the noise
      moves them is measured, and not how often it changes the greedy action;
    - `epsilon`, `entropy_bonus`: what else explores.

    The model, target and optimizers are left as they were, with their values, gradients, modes and
    draws, and so are the global generators. What the functions change elsewhere stays changed.
    Raises TypeError if the model or target is not a module, a function is not callable, an
    optimizer is something else, or the loss is not a tensor of one value; ValueError for an empty
    sequence of optimizers, and for a σ that is parametrised or pruned.
    """
    layers = find_noisy_layers(model)
    without_shape = noisy_layers_without_shape(model)
    found = parameters.layers_found(layers, without_shape, type(model).__name__)
    if not layers or without_shape:
        return Diagnosis([found])
    for name, layer in layers.items():
        # Not by reading the means: a parametrised one would take a step of its power iteration.
        if all(sigma.ndim < 2 for sigma in layer.tensors(layer.sigmas)):
            raise ValueError(
                f"{name!r}: got a σ that a parametrisation or pruning computes, expected its own"
            )
    if target is not None and not isinstance(target, nn.Module):
        raise TypeError(f"target: got {type(target).__name__}, expected an nn.Module or None")
    functions = {"loss": loss, "act": act, "evaluate": evaluate, "resample": resample,
                 "values": values, "update": update}  # fmt: skip
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name}: got {type(function).__name__}, expected a function or None")
    optimizers = () if optimizer is None else optimizers_in(optimizer)
    subject = Subject(model, layers, batch, resample)
    kept = preserved(model, None if target is model else target, *optimizers)
    # The loss needs a graph, whatever holds around this call.
    with torch.enable_grad(), uncompiled(), kept:
        examined = Examination(
            subject=subject,
            loss=loss,
            act=act,
            evaluate=evaluate,
            optimizers=optimizers,
            update=update,
            values=values,
            on_policy=on_policy,
            continuous=continuous,
        )
        return Diagnosis(
            [
                found,
                *examined.layers(),
                *examined.draws(),
                examined.units(),
                *examined.acting(epsilon, entropy_bonus),
                examined.target(target),
                *examined.learning(),
                *examined.updating(),
            ]
        )
