"""Checks of acting and evaluating: whether noise acts while the agent explores, and only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..findings import Check, Finding, counted, listed
from ..forward_calls import Call, layers_where_noise_is
from ..read_noise import NoiseByLayer, same_draws
from ..recognise import RecognisedLayer

_GATED = {
    "tianshou": "switch it by policy.is_within_training_step, which the collector keeps, and not "
    "by train(); or use noisynet.NoisyLinear, whose noise depends on neither",
    "torchrl": "collect inside set_exploration_type(ExplorationType.RANDOM)",
}
_OWN_STATES = "use noisynet.NoisyLinear, whose noise depends on neither train() nor eval()"
_OURS = "leave noisynet.mean_weights, or set a scale above 0: noisynet.control.scale(model, 1)"


def modes(
    layers: Mapping[str, RecognisedLayer],
    training: NoiseByLayer,
    evaluating: NoiseByLayer,
    *,
    is_training: bool,
    acts: bool,
) -> Finding:
    """Check in which of train and eval mode there is noise.

    `is_training` is the mode of the model; with `acts`, acting itself is also checked.
    """
    check = Check("modes")
    if not training and not evaluating:
        return check.skipped("no layer could be looked into")
    on = {
        mode: [one for one, noise in seen.items() if noise.is_on]
        for mode, seen in (("train", training), ("eval", evaluating))
    }
    if on["train"] and len(on["train"]) == len(on["eval"]):
        return check.passed("noise in train and in eval mode alike")
    cure = _cure(layers)
    if not on["train"] and not on["eval"]:
        message = "no noise in train nor in eval mode: "
        if acts:
            return check.skipped(f"{message}see `acting` below")
        return check.failed(f"{message}called as it is, the model has no noise", cure)
    mode = "train" if len(on["train"]) > len(on["eval"]) else "eval"
    message = f"noise in {mode} mode only"
    if acts:
        return check.passed(f"{message}; see `acting` below")
    if (mode == "train") == is_training:
        if mode == "train":
            message += ", and frameworks collect in eval mode: give act= to see how yours does"
        return check.warned(message, cure)
    return check.failed(f"{message}, and the model is in the other one", cure)


def _cure(layers: Mapping[str, RecognisedLayer]) -> str:
    if all(found.is_ours for found in layers.values()):
        return _OURS
    libraries = [found.library for found in layers.values()]
    return next((_GATED[one] for one in libraries if one in _GATED), _OWN_STATES)


def acting(layers: Mapping[str, RecognisedLayer], calls: Sequence[Call] | None) -> Finding:
    """Check whether the noise acts when the agent acts."""
    check = Check("acting")
    if calls is None:
        return check.skipped("no act function was given")
    if not calls:
        return check.warned(
            "no noisy layer ran while the agent acted: it acted at random, or by another network",
            "call act after the warm-up; give the model that acts",
        )
    if all(call.noise is None for call in calls):
        return check.skipped("no layer could be looked into while acting")
    off = layers_where_noise_is(calls, on=False)
    if off:
        return check.failed(
            f"noise is off in {listed(off)} when the agent acts: it does not explore by noise",
            _cure(layers),
        )
    return check.passed(f"noise is on in {counted(len(calls), 'forward')} of noisy layers")


def rows(calls: Sequence[Call] | None, environments: int) -> Finding:
    """Check whether parallel environments have a draw each, by rows or by separate forwards.

    `environments` is their number, 0 if it is unknown.
    """
    check = Check("rows")
    if calls is None:
        return check.skipped("no act function was given")
    seen = [call for call in calls if call.noise is not None]
    if not seen:
        return check.skipped("no layer could be looked into while acting")
    # A layer before those that see a batch may see one row, such as a position.
    call = next((one for one in seen if one.rows > 1), seen[0])
    noise = call.noise
    assert noise is not None, "filtered above"
    forwards = [one.noise for one in seen if one.name == call.name and one.noise is not None]
    one_each = len(forwards) == environments > 1
    if environments == 1 or (call.rows == 1 and not one_each):
        return check.skipped("acting saw one row at a time")
    if not noise.is_on:
        return check.skipped("noise is off when the agent acts")
    if noise.per_row:
        return check.passed("a fresh draw for each row")
    if noise.values.ndim > 2 and noise.is_matrix:
        return check.passed(f"a draw for each of {noise.values.shape[0]} rows")
    if one_each and not any(map(noise.equals, forwards[1:])):
        return check.passed(f"a forward and a draw for each of {environments} observations")
    return check.warned(
        f"one draw for all {max(call.rows, environments if one_each else 0)} rows: environments "
        "side by side explore alike",
        "noisynet.hold(model, rows=…), one draw for each environment",
    )


def warm_up(
    draws: Sequence[NoiseByLayer],
    *,
    learning_began: bool | None,
    holds_rollout: bool,
    keeps_state: bool = True,
) -> Finding:
    """Check whether the noise changes between actions before the first update.

    `learning_began` is None if that is not known; `keeps_state` says whether the optimizer's state
    would show it. `holds_rollout` is true for agents that keep a draw for a whole rollout.
    """
    check = Check("warm-up")
    if learning_began is None or holds_rollout:
        reason = "a rollout keeps its draw" if holds_rollout else "it takes act= and optimizer="
        return check.skipped(reason)
    if not keeps_state:
        return check.skipped("an optimizer without state does not tell if it has begun")
    if learning_began:
        return check.skipped("the optimizer has taken steps already")
    noisy = [seen for seen in draws if seen and all(noise.is_on for noise in seen.values())]
    if len(noisy) < 2:
        return check.skipped("noise was not seen in two actions")
    if stuck := same_draws(noisy[0], noisy[-1]):
        return check.warned(
            f"{len(noisy)} actions before the first update under one draw of {listed(stuck)}: if "
            "nothing redraws until learning starts, the whole warm-up is one policy",
            "redraw at every step until the first update, or warm up with random actions",
        )
    return check.passed(f"new noise within {len(noisy)} actions before the first update")


def other_exploration(
    *,
    epsilon: float | None,
    entropy_bonus: float | None,
    actions: Sequence[Tensor] | None,
    stochastic_policy: bool,
    dropout: bool,
) -> Finding:
    """Look for ε-greedy, an entropy bonus or dropout beside the noise.

    `actions` were chosen from the same Q, so any difference between them comes from another source
    of randomness. `dropout` says whether a model with dropout was in train mode.
    """
    check = Check("other exploration")
    left: list[str] = []
    if epsilon:
        left.append(f"ε = {epsilon:g}")
    if entropy_bonus:
        left.append(f"an entropy bonus of {entropy_bonus:g}")
    if actions is not None and len(actions) > 1 and not stochastic_policy:
        different = [float((one != actions[0]).float().mean()) for one in actions[1:]]
        share = sum(different) / len(different)
        if share > 0:
            left.append(f"{share:.0%} of actions that differ under one and the same draw")
    if dropout:
        left.append("dropout, in train mode")
    if left:
        return check.warned(
            f"{', '.join(left)}, beside the noise: it may be all that explores",
            "switch it off unless it is wanted (ε from the start, not only at the end)",
        )
    if epsilon is None and entropy_bonus is None and actions is None:
        return check.skipped("it takes act=, epsilon= or entropy_bonus=")
    return check.passed("none found beside the noise")


def evaluation(
    layers: Mapping[str, RecognisedLayer],
    calls: Sequence[Call] | None,
    training: NoiseByLayer,
    evaluating: NoiseByLayer,
) -> Finding:
    """Check whether the noise is off in evaluation, or can be switched off at all."""
    check = Check("evaluation")
    cure = "noisynet.mean_weights(model) around it, or noisynet.denoise(model), with our layers"
    if calls is not None:
        if calls and all(call.noise is None for call in calls):
            return check.skipped("no layer could be looked into in it")
        on = layers_where_noise_is(calls, on=True)
        if on:
            return check.failed(f"noise is on in {listed(on)} during evaluation", cure)
        return check.passed("the noise is off")
    if all(found.is_ours for found in layers.values()):
        return check.passed("noisynet.mean_weights switches it off")
    if not evaluating:
        return check.skipped("no evaluate function was given")
    on = [
        one
        for one, noise in evaluating.items()
        if noise.is_on and one in training and training[one].is_on and not layers[one].is_ours
    ]
    if on:
        return check.failed(
            f"eval() leaves the noise of {listed(on)} on, with no other switch", cure
        )
    return check.passed("the noise can be switched off")
