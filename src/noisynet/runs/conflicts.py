"""What a field's value must agree with: stated at the field, as `Fits` in its annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
        f"learning_draw: got acted, expected fresh or rows with redraw {config.exploration.redraw}"
        ": the draw that acted is known where it is held over a rollout"
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


def _quantiles(config: Sections) -> str | None:
    network = config.network
    if not (network.quantiles and network.atoms):
        return None
    return (
        f"quantiles: got {network.quantiles}, expected 0 with atoms {network.atoms}: a head learns "
        "either quantiles (IQN) or probabilities of atoms (C51)"
    )


def _munchausen(config: Sections) -> str | None:
    weight, atoms = config.learning.munchausen, config.network.atoms
    if not weight or not atoms:
        return None
    return (
        f"munchausen: got {weight:g}, expected 0 with atoms {atoms}: its targets are for Q-values "
        "and quantiles"
    )


def _entropy_temperature(config: Sections) -> str | None:
    learning = config.learning
    if not learning.munchausen or learning.entropy_temperature is not None:
        return None
    return (
        "entropy_temperature: got nothing, expected a number above 0 with munchausen "
        f"{learning.munchausen:g} (its paper's, for rewards of ±1: 0.03): targets follow the "
        "softmax of the values over it"
    )


def _own_network(config: Sections) -> str | None:
    network = config.network
    if network.own_network is None:
        return None
    said = f"own_network: got {network.own_network}, expected none"
    if config.learning.is_actor_critic:
        return f"{said}: {config.learning.algorithm} learns no Q-values (--torso takes your own)"
    # A network of one's own gives expected values, takes what it is shown, and has no head.
    for section, field in (
        (network, "atoms"),
        (network, "quantiles"),
        (network, "standardise_frames"),
        (config.plasticity, "reset_every"),
    ):
        if value := getattr(section, field):
            return f"{said} with {field} {value}"
    return None


def _spectral_norm(config: Sections) -> str | None:
    network, exploration = config.network, config.exploration
    if not network.spectral_norm or network.torso != "impala":
        return None
    if config.learning.algorithm == "a3c":
        return (
            "spectral_norm: got true, expected false: a3c's processes share parameters, not the "
            "estimates of singular values beside them"
        )
    if exploration.has_noise and exploration.noise_in == "all":
        return (
            "noise_in: got all, expected head or last with spectral_norm: a convolution has "
            "either noise or a norm of its weights"
        )
    return None


def _exploration(config: Sections) -> str | None:
    if not config.learning.is_actor_critic or not config.exploration.has_epsilon:
        return None
    return (
        f"exploration: got {config.exploration.exploration}, expected noise or none: "
        f"{config.learning.algorithm} draws its actions from a policy, and ε-greedy would act by "
        "another one than is learned"
    )


def _one_player(config: Sections) -> str | None:
    """Return who plays beside the learner, and does not hear of its scale; None: nobody does."""
    if config.scale.actors is not None:
        return "sampler actors play, each"
    if config.learning.algorithm == "a3c":
        return "a3c's workers play, each"
    return None


def _noise_schedule(config: Sections) -> str | None:
    section = config.exploration
    if not section.has_noise or section.noise_schedule == "constant":
        return None
    players = _one_player(config)
    if players is not None:
        return (
            f"noise_schedule: got {section.noise_schedule}, expected constant: {players} with a "
            "scale of its own, which would not be the learner's"
        )
    if section.noise_schedule == "exponential":
        for name in ("noise_scale", "noise_scale_end"):
            if getattr(section, name) == 0:
                return f"{name}: got 0, expected more than 0: no factor leads to it or from it"
    return None


def _noise_target(config: Sections) -> str | None:
    section = config.exploration
    if not section.has_noise or section.noise_target is None:
        return None
    said = f"noise_target: got {section.noise_target:g}, expected none"
    if section.noise_schedule != "constant":
        return f"{said} with noise_schedule {section.noise_schedule}: both would set the scale"
    if section.noise_scale == 0:
        return f"{said} with noise_scale 0: a target multiplies the scale"
    players = _one_player(config)
    if players is not None:
        return f"{said}: {players} with a scale of its own, which would not be the learner's"
    return None


def _sigma_penalty(config: Sections) -> str | None:
    section = config.exploration
    if not section.has_noise or not section.sigma_penalty:
        return None
    if not section.learned_sigma:
        return (
            f"sigma_penalty: got {section.sigma_penalty:g}, expected 0 with learned_sigma false: "
            "it acts by σ's gradient"
        )
    high = section.penalty_high
    if high is not None and section.penalty_low < high:
        return None
    return (
        f"penalty_high: got {'nothing' if high is None else f'{high:g}'}, expected the return at "
        f"which sigma_penalty is whole, more than penalty_low ({section.penalty_low:g})"
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
    if not (every and size):
        return None
    if network.torso == "impala" and network.spectral_norm:
        return (
            f"redo_every: got {every}, expected 0 with lstm_size {size} and spectral_norm: every "
            "unit is made or read by a weight with a norm, or by the LSTM"
        )
    if images or network.torso_hidden:
        return None
    return (
        f"redo_every: got {every}, expected 0 or torso_hidden with lstm_size {size}: an LSTM reads "
        "all units there are, and none can be silenced while it is drawn anew"
    )


def _shrink(config: Sections) -> str | None:
    network, every = config.network, config.plasticity.shrink_every
    if not every or not network.spectral_norm or network.torso != "impala":
        return None
    return (
        f"shrink_every: got {every}, expected 0 with spectral_norm: a convolution's weight is made "
        "by its norm, and has no initial values to be moved to"
    )


def _device(config: Sections) -> str | None:
    device = config.training.device
    if config.learning.algorithm != "a3c" or device in ("auto", "cpu"):
        return None
    return f"device: got {device}, expected cpu: a3c's processes share the CPU's memory"


def _replay_device(config: Sections) -> str | None:
    if config.learns_beside_play or config.learning.replay_device != "device":
        return None
    return f"--replay-device: got device, expected auto: {config.why_not_beside_play}"


def _execution(config: Sections) -> str | None:
    if config.can_overlap or config.training.execution != "graph":
        return None
    return f"--execution: got graph, expected auto: {config.why_not_overlap}"


ATOMS = Fits(_atoms)
SUPPORT = Fits(_support)
OWN_NETWORK = Fits(_own_network)
QUANTILES = Fits(_quantiles)
MUNCHAUSEN = Fits(_munchausen)
ENTROPY_TEMPERATURE = Fits(_entropy_temperature)
SPECTRAL_NORM = Fits(_spectral_norm)
EXPLORATION = Fits(_exploration)
REDRAW = Fits(_redraw)
NOISE_SCHEDULE = Fits(_noise_schedule)
NOISE_TARGET = Fits(_noise_target)
SIGMA_PENALTY = Fits(_sigma_penalty)
WARMUP = Fits(_warmup)
REPLAY = Fits(_replay)
MINIBATCHES = Fits(_minibatches)
LEARNING_DRAW = Fits(_learning_draw)
ENTROPY = Fits(_entropy)
LSTM = Fits(_lstm)
ACTORS = Fits(_actors)
SHARDS = Fits(_shards)
REDO = Fits(_redo)
SHRINK = Fits(_shrink)
DEVICE = Fits(_device)
REPLAY_DEVICE = Fits(_replay_device)
EXECUTION = Fits(_execution)
