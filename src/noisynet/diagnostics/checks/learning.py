"""Checks of learning: whether σ gets a gradient and moves, and whether the draws are right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from ..findings import Check, Finding, counted, listed
from ..forward_calls import Call, layers_where_noise_is
from ..read_noise import Noise, NoiseByLayer, same_draws
from ..recognise import RecognisedLayer

_LOSS_CURES = {
    "torchrl": "loss_module.deterministic_sampling_mode = ExplorationType.RANDOM, for every loss",
    "tianshou": "compute the loss in train mode, or use noisynet.NoisyLinear",
}
_THREE_DRAWS = "three draws: noisynet.draw(online, target, online), and noisynet.using"
_LOSS_CURE = "compute the loss with the noise on: noisynet.NoisyLinear knows no mode that stops it"


def in_the_loss(layers: Mapping[str, RecognisedLayer], calls: Sequence[Call] | None) -> Finding:
    """Check whether there is noise in the forwards of the loss that have a gradient."""
    check = Check("noise in the loss")
    if calls is None:
        return check.skipped("no loss function was given")
    learned = [call for call in calls if call.of == "online" and call.learning]
    if not learned:
        return check.failed(
            "the loss ran no noisy layer of the model with a gradient",
            "compute it from this model's outputs, outside of no_grad",
        )
    off = layers_where_noise_is(learned, on=False)
    if off:
        return check.failed(
            f"the loss runs {listed(off)} without noise: σ cannot learn", _cure(layers, off)
        )
    return check.passed(f"on in {counted(len(learned), 'forward')} with a gradient")


def gradients(layers: Mapping[str, RecognisedLayer], loss: Tensor | None) -> Finding:
    """Check whether σ of each layer gets a gradient from the loss."""
    check = Check("sigma gradient")
    if loss is None:
        return check.skipped("no loss function was given")
    layers = {one: found for one, found in layers.items() if found.learns_sigma}
    if not layers:
        return check.skipped("σ is not learned (learned=False)")
    frozen = [
        one
        for one, found in layers.items()
        if not all(sigma.requires_grad for sigma in found.tensors(found.sigmas))
    ]
    if frozen:
        return check.failed(
            f"σ of {listed(frozen)} does not require grad: it is frozen",
            "for one in noisynet.sigma_parameters(model): one.requires_grad_()",
        )
    if not loss.requires_grad:
        return check.failed("the loss has no gradient at all", "compute it outside of no_grad")
    sigmas = {one: found.weights()[0][1] for one, found in layers.items()}
    given = torch.autograd.grad(loss, list(sigmas.values()), retain_graph=True, allow_unused=True)
    # Torch's annotation leaves out that the gradient of an unused parameter is None.
    found = cast("Sequence[Tensor | None]", given)
    sizes = {
        one: 0.0 if gradient is None else float(gradient.detach().abs().max())
        for one, gradient in zip(sigmas, found, strict=True)
    }
    none = [one for one, size in sizes.items() if size == 0]
    if none:
        message = f"σ of {listed(none)} gets no gradient from the loss"
        return check.failed(message, _cure(layers, none))
    broken = [one for one, size in sizes.items() if not size < float("inf")]
    if broken:
        return check.failed(
            f"σ of {listed(broken)} gets a gradient that is not finite",
            "look at the loss: a reward or target out of bounds",
        )
    low, high = min(sizes.values()), max(sizes.values())
    return check.passed(f"largest entry of ∂σ {low:.2g} to {high:.2g} over the layers")


def _cure(layers: Mapping[str, RecognisedLayer], names: Sequence[str]) -> str:
    libraries = [layers[one].library for one in names]
    return next((_LOSS_CURES[one] for one in libraries if one in _LOSS_CURES), _LOSS_CURE)


def draws_in_the_loss(calls: Sequence[Call] | None, *, on_policy: bool) -> Finding:
    """Check whether gradient, target and action choice have their own draws, ε, ε′ and ε″."""
    check = Check("draws in the loss")
    if calls is None or on_policy:
        reason = "no loss function was given" if calls is None else "a rollout has one draw"
        return check.skipped(reason)
    learned = _first(calls, "online", learning=True)
    chosen = _first(calls, "online", learning=False)
    target = _first(calls, "other", learning=False)
    if not _on(learned):
        return check.skipped("no noise in the loss")
    others = {
        which: found for which, found in (("target", target), ("action choice", chosen)) if found
    }
    if not others:
        return check.skipped("the loss ran the online network alone, once")
    same = {which: same_draws(_on(learned), found) for which, found in others.items()}
    sharing = [which for which, layers in same.items() if layers]
    if sharing:
        verb = "uses" if len(sharing) == 1 else "use"
        stuck = dict.fromkeys(one for layers in same.values() for one in layers)
        return check.failed(
            f"{' and '.join(sharing)} {verb} the gradient's own draw in {listed(stuck)}: their "
            "errors are then correlated with those of what is learned",
            _THREE_DRAWS,
        )
    if both := same_draws(_on(chosen), target):
        return check.failed(
            f"target and action choice use one draw in {listed(both)}: the action that its noise "
            "makes look best is then valued under the same noise",
            _THREE_DRAWS,
        )
    quiet = [which for which, found in others.items() if len(_on(found)) < len(found)]
    if quiet:
        return check.warned(
            f"no noise in the {' and the '.join(quiet)}: the paper has ε′ and ε″ there",
            "leave the noise on in the whole loss, drawn for each network",
        )
    return check.passed(f"{', '.join(['gradient', *others])} each have a draw of their own")


def _on(noises: NoiseByLayer) -> NoiseByLayer:
    """Return the noise of the layers that have some."""
    return {one: noise for one, noise in noises.items() if noise.is_on}


def _first(calls: Sequence[Call], of: str, *, learning: bool) -> dict[str, Noise]:
    """Return the noise of each layer's first forward that fits `of` and `learning`, by layer.

    Layers of another network have no names here. Each gets the name of the online network's layer
    at the same place in the order of forwards.
    """
    order = list(dict.fromkeys(call.name for call in calls if call.of == "online"))
    noises: dict[str, Noise] = {}
    number = 0
    for call in calls:
        if call.of != of or call.noise is None or (of == "online" and call.learning != learning):
            continue
        name = call.name
        if of == "other":
            if number >= len(order):
                break
            name = order[number]
            number += 1
        noises.setdefault(name, call.noise)
    return noises


def learned_as_acted(
    acted: Sequence[Call] | None, learned: Sequence[Call] | None, *, on_policy: bool
) -> Finding:
    """Check whether an on-policy agent's loss runs under the draw that acted, or rows of it."""
    check = Check("rollout's draw")
    if not on_policy:
        return check.skipped("for on-policy agents (on_policy=True)")
    if acted is None or learned is None:
        return check.skipped("it takes act= and loss=")
    acting = _first(acted, "online", learning=False) or _first(acted, "online", learning=True)
    learning = _first(learned, "online", learning=True)
    common = [one for one in acting if one in learning]
    if not common:
        return check.skipped("acting and learning ran no layer in common")
    other = [one for one in common if not learning[one].is_picked_from(acting[one])]
    if other:
        return check.failed(
            f"the loss runs {listed(other)} under another draw than the one that acted: the "
            "policy that is learned about is not the one that played",
            "hold one draw over rollout and update, and redraw after it",
        )
    return check.passed("the loss runs under the draw that acted")


def target_draws(
    online: NoiseByLayer, target: NoiseByLayer | None, *, same_module: bool
) -> Finding:
    """Check whether the target network has noisy layers, with draws of their own."""
    check = Check("target")
    if target is None:
        return check.skipped("no target was given")
    if same_module:
        return check.failed(
            "the target is the online network itself", "target = copy.deepcopy(online)"
        )
    if not online:
        return check.skipped("no layer could be looked into")
    if not target:
        return check.warned(
            "it has no noisy layer: the paper draws ε′ for it", "copy.deepcopy(online)"
        )
    # A wrapper around one of the networks renames its layers; then they are matched by order.
    others = {one: target[one] for one in online if one in target} or dict(
        zip(online, target.values(), strict=False)
    )
    if shared := same_draws(_on(online), others):
        return check.failed(
            f"target and online network have the same draw in {listed(shared)}",
            "redraw the target's own noise: noisynet.attach(optimizer, online, target)",
        )
    return check.passed("it has noise of its own")


def backward(results: Mapping[str, str]) -> Finding:
    """Check whether a redraw between forward and backward spoils the gradient of σ.

    `results` has the result of `redrawn_before_backward` for each layer.
    """
    check = Check("backward")
    if not results:
        return check.skipped("no layer could be run with noise by itself")
    wrong = [one for one, result in results.items() if result == "other"]
    if wrong:
        return check.failed(
            f"a redraw between forward and backward silently gives {listed(wrong)} the gradient "
            "of the wrong draw",
            "draw into new tensors, not into the old ones through .data",
        )
    if "error" in results.values():
        return check.passed("a redraw before backward is an error, not a wrong gradient")
    return check.passed("a redraw before backward leaves the gradients right")


def sigma_moves(layers: Mapping[str, RecognisedLayer], before: Mapping[str, Tensor]) -> Finding:
    """Check whether an update moved σ; `before` has σ of each layer's first weight before it."""
    check = Check("sigma moves")
    moved: dict[str, float] = {}
    before = {one: sigma for one, sigma in before.items() if layers[one].learns_sigma}
    if not before:
        return check.skipped("σ is not learned (learned=False)")
    for one, sigma in before.items():
        change = layers[one].weights()[0][1].detach() - sigma
        moved[one] = float(change.double().square().mean().sqrt())
    broken = [one for one, change in moved.items() if not math.isfinite(change)]
    if broken:
        return check.failed(
            f"σ of {listed(broken)} is NaN or infinite after an update",
            "clip gradients, lower the step size",
        )
    stuck = [one for one, change in moved.items() if change == 0]
    if stuck:
        return check.failed(
            f"σ of {listed(stuck)} is the same after an update",
            "see the checks of optimizer and loss",
        )
    return check.passed(f"by {min(moved.values()):.2g} to {max(moved.values()):.2g}, RMS")


def redraw_between_updates(
    noise: tuple[NoiseByLayer, NoiseByLayer] | None, *, own_update: bool
) -> Finding:
    """Check whether an update redraws: the program's own, or one step of loss and optimizer.

    `noise` was read before and after the update; it is None if layers draw at every forward.
    """
    check = Check("redraw between updates")
    if noise is None:
        return check.passed("every forward draws anew")
    before, after = noise
    if not before:
        return check.skipped("no noise to be seen")
    same = same_draws(before, after)
    if not same:
        return check.passed("new noise after the update")
    if not own_update:
        return check.skipped(
            "optimizer.step() alone does not redraw: give update=, which runs a whole update of "
            "the agent"
        )
    return check.failed(
        f"the noise of {listed(same)} is the same after an update",
        "redraw after every optimizer step: noisynet.attach(optimizer, online, target)",
    )


def device_of_draws(found: Mapping[str, int], *, on_accelerator: bool) -> Finding:
    """Check whether draws are made on the CPU even for a layer on another device.

    `found` has the layers that do so, {layer: size of the largest tensor made on the CPU}.
    """
    check = Check("device")
    if not found:
        return check.passed("draws are made on the layer's device")
    message = (
        f"{listed(found)}: draws are made on the CPU wherever the layer lies, "
        f"{max(found.values()):,} numbers copied each time"
    )
    cure = "torch.randn(…, device=weight.device)"
    if on_accelerator:
        return check.failed(message, cure)
    return check.warned(f"{message} (no cost here: the model is on the CPU)", cure)
