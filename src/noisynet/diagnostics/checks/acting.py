"""Checks of acting and evaluating: does the noise act where the agent really acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..findings import Finding, listed
from ..recognise import Found
from ..watch import Call
from .draws import Seen

_GATED = {
    "tianshou": "switch it by policy.is_within_training_step, which the collector keeps, and not "
    "by train(); or use noisynet.NoisyLinear, whose noise depends on neither",
    "torchrl": "collect inside set_exploration_type(ExplorationType.RANDOM)",
}
_OWN_STATES = "use noisynet.NoisyLinear, whose noise depends on neither train() nor eval()"


def modes(
    layers: Mapping[str, Found], training: Seen, evaluating: Seen, *, is_training: bool, acts: bool
) -> Finding:
    """Say in which of train and eval mode there is noise; `acts`: acting itself is checked."""
    name = "modes"
    if not training and not evaluating:
        return Finding(name, "skipped", "no layer could be looked into")
    on = {
        mode: [one for one, noise in seen.items() if noise.is_on]
        for mode, seen in (("train", training), ("eval", evaluating))
    }
    if on["train"] and len(on["train"]) == len(on["eval"]):
        return Finding(name, "pass", "noise in train and in eval mode alike")
    cure = _cure(layers)
    if not on["train"] and not on["eval"]:
        status = "skipped" if acts else "fail"
        where = "acting is looked at below" if acts else "whoever calls it as it is sees no noise"
        message = f"no noise in train nor in eval mode: {where}"
        return Finding(name, status, message, "" if acts else cure)
    mode = "train" if len(on["train"]) > len(on["eval"]) else "eval"
    message = f"noise in {mode} mode only"
    if acts:
        return Finding(name, "pass", f"{message}; acting is looked at below")
    if (mode == "train") == is_training:
        other = "eval" if mode == "train" else "train"
        return Finding(
            name,
            "warn",
            f"{message}, and frameworks collect in {other} mode: give act= to see how yours does"
            if other == "eval"
            else message,
            cure,
        )
    return Finding(name, "fail", f"{message}, and the model is in the other one", cure)


def _cure(layers: Mapping[str, Found]) -> str:
    libraries = [found.library for found in layers.values()]
    return next((_GATED[one] for one in libraries if one in _GATED), _OWN_STATES)


def acting(layers: Mapping[str, Found], calls: Sequence[Call] | None) -> Finding:
    """Say whether the noise acts when the agent acts."""
    name = "acting"
    if calls is None:
        return Finding(name, "skipped", "no act function was given")
    if not calls:
        return Finding(
            name,
            "warn",
            "no noisy layer ran while the agent acted: it acted at random, or by another network",
            "call act after the warm-up; give the model that acts",
        )
    seen = [call for call in calls if call.noise is not None]
    if not seen:
        return Finding(name, "skipped", "no layer could be looked into while acting")
    off = sorted({call.name for call in seen if call.noise is not None and not call.noise.is_on})
    if off:
        return Finding(
            name,
            "fail",
            f"noise is off in {listed(off)} when the agent acts: it does not explore by noise",
            _cure(layers),
        )
    return Finding(name, "pass", f"noise is on in {len(calls)} forwards of noisy layers")


def rows(calls: Sequence[Call] | None) -> Finding:
    """Say whether environments side by side have a draw each."""
    name = "rows"
    batches = [call for call in calls or () if call.rows > 1 and call.noise is not None]
    if not batches:
        reason = "no act function was given" if calls is None else "acting saw one row at a time"
        return Finding(name, "skipped", reason)
    call = batches[0]
    assert call.noise is not None, "filtered above"
    if not call.noise.is_on:
        return Finding(name, "skipped", "noise is off when the agent acts")
    if call.noise.values.ndim > 2 and call.noise.is_matrix:
        return Finding(name, "pass", f"a draw for each of {call.noise.values.shape[0]} rows")
    return Finding(
        name,
        "warn",
        f"one draw for all {call.rows} rows: environments side by side explore alike",
        "noisynet.hold(model, rows=…), one draw for each environment",
    )


def warm_up(
    draws: Sequence[Seen],
    *,
    learning_began: bool | None,
    holds_rollout: bool,
    keeps_state: bool = True,
) -> Finding:
    """Say whether noise changes between actions before the first update is taken.

    `keeps_state`: whether the optimizer's state tells that it has taken a step.
    """
    name = "warm-up"
    if learning_began is None or holds_rollout:
        reason = "a rollout keeps its draw" if holds_rollout else "it takes act= and optimizer="
        return Finding(name, "skipped", reason)
    if not keeps_state:
        return Finding(name, "skipped", "an optimizer without state does not tell if it has begun")
    if learning_began:
        return Finding(name, "skipped", "the optimizer has taken steps already")
    noisy = [seen for seen in draws if seen and all(noise.is_on for noise in seen.values())]
    if len(noisy) < 2:
        return Finding(name, "skipped", "noise was not seen in two actions")
    stuck = [one for one in noisy[0] if one in noisy[-1] and noisy[0][one].equals(noisy[-1][one])]
    if stuck:
        return Finding(
            name,
            "warn",
            f"{len(noisy)} actions before the first update under one draw of {listed(stuck)}: if "
            "nothing redraws until learning starts, the whole warm-up is one policy",
            "redraw at every step until the first update, or warm up with random actions",
        )
    return Finding(name, "pass", f"new noise within {len(noisy)} actions before the first update")


def other_exploration(
    *,
    epsilon: float | None,
    entropy_bonus: float | None,
    actions: Sequence[Tensor] | None,
    stochastic_policy: bool,
) -> Finding:
    """Look for ε-greedy or an entropy bonus beside the noise.

    `actions` were chosen for the same observations under one draw of noise: what differs between
    them is another source of chance.
    """
    name = "other exploration"
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
    if left:
        return Finding(
            name,
            "warn",
            f"{', '.join(left)}, beside the noise: it may be all that explores",
            "set both to 0 unless both are wanted (ε from the start, not only at the end)",
        )
    if epsilon is None and entropy_bonus is None and actions is None:
        return Finding(name, "skipped", "it takes act=, epsilon= or entropy_bonus=")
    return Finding(name, "pass", "none found beside the noise")


def evaluation(
    layers: Mapping[str, Found], calls: Sequence[Call] | None, training: Seen, evaluating: Seen
) -> Finding:
    """Say whether the noise is off in evaluation, or can be switched off at all."""
    name = "evaluation"
    cure = "noisynet.mean_weights(model) around it, or noisynet.denoise(model), with our layers"
    if calls is not None:
        on = sorted({one.name for one in calls if one.noise is not None and one.noise.is_on})
        if on:
            return Finding(name, "fail", f"noise is on in {listed(on)} during evaluation", cure)
        return Finding(name, "pass", "noise is off in it")
    if all(found.is_ours for found in layers.values()):
        return Finding(name, "pass", "noisynet.mean_weights switches it off")
    if not evaluating:
        return Finding(name, "skipped", "no evaluate function was given")
    on = [
        one
        for one, noise in evaluating.items()
        if noise.is_on and one in training and training[one].is_on and not layers[one].is_ours
    ]
    if on:
        return Finding(
            name, "fail", f"eval() leaves the noise of {listed(on)} on, with no other switch", cure
        )
    return Finding(name, "pass", "it can be switched off")
