"""Checks of learning: does σ get a gradient, does it move, is each draw the right one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..findings import Finding, listed
from ..probe import Noise
from ..recognise import Found
from ..watch import Call
from .draws import Seen

_LOSS_CURES = {
    "torchrl": "loss_module.deterministic_sampling_mode = ExplorationType.RANDOM, for every loss",
    "tianshou": "compute the loss in train mode, or use noisynet.NoisyLinear",
}
_LOSS_CURE = "compute the loss with the noise on: noisynet.NoisyLinear knows no mode that stops it"


def in_the_loss(layers: Mapping[str, Found], calls: Sequence[Call] | None) -> Finding:
    """Say whether the forwards that are learned from have noise."""
    name = "noise in the loss"
    if calls is None:
        return Finding(name, "skipped", "no loss function was given")
    learned = [call for call in calls if call.of == "online" and call.learning]
    if not learned:
        return Finding(
            name,
            "fail",
            "the loss ran no noisy layer of the model with a gradient",
            "compute it from this model's outputs, outside of no_grad",
        )
    off = sorted({one.name for one in learned if one.noise is not None and not one.noise.is_on})
    if off:
        libraries = [layers[one].library for one in off]
        cure = next((_LOSS_CURES[one] for one in libraries if one in _LOSS_CURES), _LOSS_CURE)
        return Finding(
            name, "fail", f"the loss runs {listed(off)} without noise: σ cannot learn", cure
        )
    return Finding(name, "pass", f"on in {len(learned)} forwards with a gradient")


def gradients(layers: Mapping[str, Found], loss: Tensor | None) -> Finding:
    """Say whether σ of each layer gets a gradient from the loss."""
    name = "sigma gradient"
    if loss is None:
        return Finding(name, "skipped", "no loss function was given")
    frozen = [
        one
        for one, found in layers.items()
        if not all(sigma.requires_grad for sigma in found.tensors(found.sigmas))
    ]
    if frozen:
        return Finding(
            name,
            "fail",
            f"σ of {listed(frozen)} does not require grad: it is frozen",
            "for one in noisynet.sigma_parameters(model): one.requires_grad_()",
        )
    if not loss.requires_grad:
        return Finding(
            name, "fail", "the loss has no gradient at all", "compute it outside of no_grad"
        )
    sigmas = {one: found.weights()[0][1] for one, found in layers.items()}
    given = torch.autograd.grad(loss, list(sigmas.values()), retain_graph=True, allow_unused=True)
    # What torch says of itself leaves out that unused parameters have None.
    found = cast("Sequence[Tensor | None]", given)
    sizes = {
        one: 0.0 if gradient is None else float(gradient.detach().abs().max())
        for one, gradient in zip(sigmas, found, strict=True)
    }
    none = [one for one, size in sizes.items() if size == 0]
    if none:
        libraries = [layers[one].library for one in none]
        cure = next((_LOSS_CURES[one] for one in libraries if one in _LOSS_CURES), _LOSS_CURE)
        return Finding(name, "fail", f"σ of {listed(none)} gets no gradient from the loss", cure)
    broken = [one for one, size in sizes.items() if not size < float("inf")]
    if broken:
        return Finding(
            name,
            "fail",
            f"σ of {listed(broken)} gets a gradient that is not finite",
            "look at the loss: a reward or target out of bounds",
        )
    low, high = min(sizes.values()), max(sizes.values())
    return Finding(name, "pass", f"largest entry of ∂σ {low:.2g} to {high:.2g} over the layers")


def draws_in_the_loss(calls: Sequence[Call] | None, *, on_policy: bool) -> Finding:
    """Say whether gradient, target and action choice have their own draws, ε, ε′ and ε″."""
    name = "draws in the loss"
    if calls is None or on_policy:
        reason = "no loss function was given" if calls is None else "a rollout has one draw"
        return Finding(name, "skipped", reason)
    learned = _first(calls, "online", learning=True)
    chosen = _first(calls, "online", learning=False)
    target = _first(calls, "other", learning=False)
    if not any(noise.is_on for noise in learned.values()):
        return Finding(name, "skipped", "no noise in the loss")
    if not chosen and not target:
        return Finding(name, "skipped", "the loss ran the online network alone, once")
    same = {
        which: [
            one for one, noise in draws.items() if one in learned and learned[one].equals(noise)
        ]
        for which, draws in (("target", target), ("action choice", chosen))
    }
    sharing = {which: stuck for which, stuck in same.items() if stuck}
    if sharing:
        verb = "uses" if len(sharing) == 1 else "use"
        stuck = dict.fromkeys(one for ones in sharing.values() for one in ones)
        return Finding(
            name,
            "fail",
            f"{' and '.join(sharing)} {verb} the gradient's own draw in {listed(stuck)}: their "
            "errors are then correlated with those of what is learned",
            "three draws: noisynet.draw(online, target, online), and noisynet.using",
        )
    quiet = [
        which
        for which, draws in (("target", target), ("action choice", chosen))
        if draws and not all(noise.is_on for noise in draws.values())
    ]
    if quiet:
        return Finding(
            name,
            "warn",
            f"no noise in the {' and the '.join(quiet)}: the paper has ε′ and ε″ there",
            "leave the noise on in the whole loss, drawn for each network",
        )
    parts = ["gradient"]
    parts += ["target"] if target else []
    parts += ["action choice"] if chosen else []
    return Finding(name, "pass", f"{', '.join(parts)} each have a draw of their own")


def _first(calls: Sequence[Call], of: str, *, learning: bool) -> dict[str, Noise]:
    """Give the noise at the first such forward of each layer, in the order of the layers.

    Layers of another network have no names here: they are numbered as they come, and take the
    names that the online network's layers have in that order.
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
    """Say whether the loss of an on-policy agent runs under the draw that acted."""
    name = "rollout's draw"
    if not on_policy:
        return Finding(name, "skipped", "for on-policy agents (on_policy=True)")
    if acted is None or learned is None:
        return Finding(name, "skipped", "it takes act= and loss=")
    acting = _first(acted, "online", learning=False) or _first(acted, "online", learning=True)
    learning = _first(learned, "online", learning=True)
    common = [one for one in acting if one in learning]
    if not common:
        return Finding(name, "skipped", "acting and learning ran no layer in common")
    other = [one for one in common if not acting[one].equals(learning[one])]
    if other:
        return Finding(
            name,
            "fail",
            f"the loss runs {listed(other)} under another draw than the one that acted: the "
            "policy that is learned about is not the one that played",
            "hold one draw over rollout and update, and redraw after it",
        )
    return Finding(name, "pass", "the loss runs under the draw that acted")


def target_draws(online: Seen, target: Seen | None, *, same_module: bool) -> Finding:
    """Say whether the target network has noise, and its own."""
    name = "target"
    if target is None:
        return Finding(name, "skipped", "no target was given")
    if same_module:
        return Finding(
            name,
            "fail",
            "the target is the online network itself",
            "target = copy.deepcopy(online)",
        )
    if not target:
        return Finding(
            name,
            "warn",
            "it has no noisy layer: the paper draws ε′ for it",
            "copy.deepcopy(online)",
        )
    shared = [one for one in online if one in target and online[one].is_on
              and online[one].equals(target[one])]  # fmt: skip
    if shared:
        return Finding(
            name,
            "fail",
            f"target and online network have the same draw in {listed(shared)}",
            "redraw the target's own noise: noisynet.attach(optimizer, online, target)",
        )
    return Finding(name, "pass", "its noise is its own")


def backward(results: Mapping[str, str]) -> Finding:
    """Say whether a redraw between forward and backward spoils the gradient of σ.

    `results` says for each layer "same", "other" or "error".
    """
    name = "backward"
    if not results:
        return Finding(name, "skipped", "no layer could be run with noise by itself")
    wrong = [one for one, result in results.items() if result == "other"]
    if wrong:
        return Finding(
            name,
            "fail",
            f"a redraw between forward and backward silently gives {listed(wrong)} the gradient "
            "of the wrong draw",
            "draw into new tensors, not into the old ones through .data",
        )
    if "error" in results.values():
        return Finding(name, "pass", "a redraw before backward is an error, not a wrong gradient")
    return Finding(name, "pass", "a redraw before backward does no harm")


def after_update(
    layers: Mapping[str, Found],
    sigmas: Mapping[str, Tensor],
    noise: tuple[Seen, Seen] | None,
    *,
    own_update: bool,
) -> list[Finding]:
    """Say whether an update moved σ, and whether noise was redrawn with it.

    `sigmas` are those before; `noise` was seen before and after, or is None where layers draw at
    every forward.
    """
    stuck = [one for one, before in sigmas.items() if _moved(layers[one], before) == 0]
    if stuck:
        moves = Finding(
            "sigma moves",
            "fail",
            f"σ of {listed(stuck)} is the same after an update",
            "see the checks of optimizer and loss",
        )
    else:
        changes = [_moved(layers[one], before) for one, before in sigmas.items()]
        moves = Finding("sigma moves", "pass", f"by {min(changes):.2g} to {max(changes):.2g}, RMS")
    name = "redraw between updates"
    if noise is None:
        return [moves, Finding(name, "pass", "every forward draws anew")]
    before, after = noise
    same = [one for one in before if one in after and before[one].equals(after[one])]
    if not same:
        return [moves, Finding(name, "pass", "new noise after the update")]
    if not own_update:
        return [moves, Finding(name, "skipped", "optimizer.step() alone does not redraw: give "
                               "update=, which runs a whole update of the agent")]  # fmt: skip
    return [
        moves,
        Finding(
            name,
            "fail",
            f"the noise of {listed(same)} is the same after an update",
            "redraw after every optimizer step: noisynet.attach(optimizer, online, target)",
        ),
    ]


def _moved(found: Found, before: Tensor) -> float:
    now = found.weights()[0][1].detach()
    return float((now - before).double().square().mean().sqrt())


def no_update(optimizer: Optimizer | None) -> list[Finding]:
    """Say why no update could be looked at."""
    missing = "loss=" if optimizer is not None else "update=, or loss= and optimizer="
    return [Finding(name, "skipped", f"it takes {missing}")
            for name in ("sigma moves", "redraw between updates")]  # fmt: skip


def device_of_draws(found: Mapping[str, int], *, on_accelerator: bool) -> Finding:
    """Say whether draws are made on the CPU for a layer elsewhere; `found`: normals per layer."""
    name = "device"
    if not found:
        return Finding(name, "pass", "draws are made where the layer lies")
    worst = max(found.values())
    return Finding(
        name,
        "fail" if on_accelerator else "warn",
        f"{listed(found)}: draws are made on the CPU wherever the layer lies, {worst:,} numbers "
        "copied each time" + ("" if on_accelerator else " (no cost here: the model is on the CPU)"),
        "torch.randn(…, device=weight.device)",
    )
