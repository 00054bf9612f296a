"""What a field's value must agree with: stated at the field, as `Fits` in its annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .conditions import Sections


@dataclass(frozen=True)
class Fits:
    """What a field's value must agree with."""

    conflict: Callable[[Sections], str | None]
    """Returns field, value, what it expects and why; None where all agree."""


def needs_q_values(field: str, section: str) -> Fits:
    """Refuse anything but a field's zero where no Q-values are learned."""

    def conflict(config: Sections) -> str | None:
        value = getattr(getattr(config, section), field)
        if not value or not config.learning.is_actor_critic:
            return None
        return (
            f"{field}: got {value}, expected {type(value)()}: {config.learning.algorithm} learns "
            "no Q-values"
        )

    return Fits(conflict)


def beside_play_only(field: str, section: str, value: Any, otherwise: Any) -> Fits:
    """Refuse a value where the learner does not take updates from a replay beside its own play."""

    def conflict(config: Sections) -> str | None:
        if config.learns_beside_play or getattr(getattr(config, section), field) != value:
            return None
        option = "--" + field.replace("_", "-")
        return f"{option}: got {value}, expected {otherwise}: {config.why_not_beside_play}"

    return Fits(conflict)


def needs_replay(field: str, section: str) -> Fits:
    """Refuse a value other than off where the algorithm learns from rollouts."""

    def conflict(config: Sections) -> str | None:
        value = getattr(getattr(config, section), field)
        if not value or config.learning.has_replay:
            return None
        return (
            f"{field}: got {value}, expected {type(value)()}: {config.learning.algorithm} learns "
            "from rollouts, not from a replay"
        )

    return Fits(conflict)


def needs_one_learner(field: str) -> Fits:
    """Refuse a cure where workers share parameters that each of them steps."""

    def conflict(config: Sections) -> str | None:
        value = getattr(config.plasticity, field)
        if not value or config.learning.algorithm != "a3c":
            return None
        return (
            f"{field}: got {value}, expected 0: a3c's workers share the parameters, and each steps "
            "them while others would move them (a2c has one learner)"
        )

    return Fits(conflict)


def _minibatches(config: Sections) -> str | None:
    rollouts = config.rollouts
    steps = rollouts.rollout_steps * config.environment.environments
    if config.learning.algorithm != "pqn" or rollouts.minibatches <= steps:
        return None
    return (
        f"minibatches: got {rollouts.minibatches}, expected at most {steps}: a rollout has "
        f"{rollouts.rollout_steps} steps of {config.environment.environments} environments"
    )


def _learning_draw(config: Sections) -> str | None:
    held = config.exploration.redraw == "update" or not config.exploration.has_noise
    other = config.learning.algorithm != "pqn" or config.rollouts.learning_draw != "acted"
    if other or held:
        return None
    return (
        f"learning_draw: got acted, expected fresh with redraw {config.exploration.redraw}: the "
        "draw that acted is known where it is held over a rollout"
    )


def _atoms(config: Sections) -> str | None:
    if config.network.atoms != 1:
        return None
    return (
        "atoms: got 1, expected 0 (no distribution) or at least 2, so that values can lie between"
    )


def _support(config: Sections) -> str | None:
    network = config.network
    if not network.atoms or network.value_min < network.value_max:
        return None
    return (
        f"value_min: got {network.value_min:g}, expected less than value_max "
        f"({network.value_max:g}): the atoms lie between them"
    )


def _exploration(config: Sections) -> str | None:
    if not config.learning.is_actor_critic or not config.exploration.has_epsilon:
        return None
    return (
        f"exploration: got {config.exploration.exploration}, expected noise or none: "
        f"{config.learning.algorithm} draws its actions from a policy, and ε-greedy would act by "
        "another one than is learned"
    )


def _redraw(config: Sections) -> str | None:
    redraw = config.exploration.redraw
    held = config.learning.is_actor_critic and config.exploration.has_noise
    if not held or redraw == "update":
        return None
    return (
        f"redraw: got {redraw}, expected update: {config.learning.algorithm} learns under the very "
        "draw that acted, which is held over the rollout"
    )


def _warmup(config: Sections) -> str | None:
    learning = config.learning
    if not learning.has_replay or learning.warmup_steps >= learning.batch_size:
        return None
    return (
        f"warmup_steps: got {learning.warmup_steps}, expected at least batch_size "
        f"({learning.batch_size}): the first update needs a batch"
    )


def _replay(config: Sections) -> str | None:
    learning = config.learning
    if not learning.has_replay or learning.replay_capacity >= learning.batch_size:
        return None
    return (
        f"replay_capacity: got {learning.replay_capacity}, expected at least batch_size "
        f"({learning.batch_size})"
    )


def _entropy(config: Sections) -> str | None:
    bonus = config.actor_critic.entropy_bonus
    if config.learning.is_actor_critic or not bonus:
        return None
    return (
        f"entropy_bonus: got {bonus:g}, expected 0: {config.learning.algorithm} has no policy "
        "whose entropy could be paid for"
    )


def _lstm(config: Sections) -> str | None:
    size = config.actor_critic.lstm_size
    if config.learning.is_actor_critic or not size:
        return None
    return (
        f"lstm_size: got {size}, expected 0: {config.learning.algorithm} learns single steps, not "
        "the sequences that an LSTM needs"
    )


def _actors(config: Sections) -> str | None:
    actors, size = config.scale.actors, config.actor_critic.lstm_size
    if actors is None:
        return None
    if config.learning.algorithm == "a3c":
        return (
            f"actors: got {actors}, expected none: a3c's workers play for themselves (--workers); "
            "sampler actors feed the learners of q_learning, pqn and a2c"
        )
    if size:
        return (
            f"actors: got {actors}, expected none with lstm_size {size}: fragments do not carry an "
            "LSTM's state"
        )
    return None


def _shards(config: Sections) -> str | None:
    actors, shards = config.scale.actors, config.scale.replay_shards
    if actors is None or shards <= actors:
        return None
    return (
        f"replay_shards: got {shards}, expected at most actors ({actors}): each is fed by samplers "
        "of its own"
    )


def _redo(config: Sections) -> str | None:
    section, network = config.environment, config.network
    images = section.is_atari or section.is_minatar or network.torso not in ("auto", "mlp")
    size, every = config.actor_critic.lstm_size, config.plasticity.redo_every
    if not (every and size) or images or network.torso_hidden:
        return None
    return (
        f"redo_every: got {every}, expected 0 or torso_hidden with lstm_size {size}: an LSTM reads "
        "all units there are, and none can be silenced while it is drawn anew"
    )


def _device(config: Sections) -> str | None:
    device = config.training.device
    if config.learning.algorithm != "a3c" or device in ("auto", "cpu"):
        return None
    return f"device: got {device}, expected cpu: a3c's processes share the CPU's memory"


ATOMS = Fits(_atoms)
SUPPORT = Fits(_support)
EXPLORATION = Fits(_exploration)
REDRAW = Fits(_redraw)
WARMUP = Fits(_warmup)
REPLAY = Fits(_replay)
MINIBATCHES = Fits(_minibatches)
LEARNING_DRAW = Fits(_learning_draw)
ENTROPY = Fits(_entropy)
LSTM = Fits(_lstm)
ACTORS = Fits(_actors)
SHARDS = Fits(_shards)
REDO = Fits(_redo)
DEVICE = Fits(_device)
