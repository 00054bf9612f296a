"""Which parts of a config fit together, and which fields do nothing beside others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import Config

_REPLAY = {
    "batch_size", "replay_capacity", "warmup_steps", "update_every", "final_update_every",
    "final_update_return", "target_every", "prioritised", "priority_exponent", "priority_beta",
    "priority_epsilon",
}  # fmt: skip
_Q_LEARNING = _REPLAY | {
    "double", "n_step", "loss", "dueling", "atoms", "value_min", "value_max", "choice_draw",
}  # fmt: skip
_ACTOR_CRITIC = {
    "rollout_steps", "gae_lambda", "value_coefficient", "entropy_bonus", "lstm_size", "workers",
}  # fmt: skip
_SCALE = {"backend", "replay_shards", "fragment_steps", "weights_every", "max_staleness"}
_NOISE = {"noise", "sigma0", "noise_in", "redraw", "draw_per_environment", "choice_draw"}


def first_misfit(config: Config) -> str | None:
    """Say which two parts cannot go together, and why; None where all do."""
    misfit = _actors_misfit(config)
    if misfit is not None:
        return misfit
    if config.learning.is_actor_critic:
        return _actor_critic_misfit(config)
    learning, section = config.learning, config.actor_critic
    if learning.warmup_steps < learning.batch_size:
        return (
            f"warmup_steps: got {learning.warmup_steps}, expected at least batch_size "
            f"({learning.batch_size}): the first update needs a batch"
        )
    if learning.replay_capacity < learning.batch_size:
        return (
            f"replay_capacity: got {learning.replay_capacity}, expected at least batch_size "
            f"({learning.batch_size})"
        )
    if (learning.final_update_every is None) != (learning.final_update_return is None):
        return (
            f"final_update_every: got {learning.final_update_every}, expected it and "
            f"final_update_return ({learning.final_update_return}) together or neither"
        )
    if section.entropy_bonus:
        return (
            f"entropy_bonus: got {section.entropy_bonus:g}, expected 0: q_learning has no policy "
            "whose entropy could be paid for"
        )
    if section.lstm_size:
        return (
            f"lstm_size: got {section.lstm_size}, expected 0: q_learning's replay holds single "
            "transitions, not the sequences that an LSTM needs"
        )
    return None


def _actor_critic_misfit(config: Config) -> str | None:
    algorithm, exploration = config.learning.algorithm, config.exploration
    if exploration.has_epsilon:
        return (
            f"exploration: got {exploration.exploration}, expected noise or none: {algorithm} "
            "draws its actions from a policy, and ε-greedy would act by another one than is learned"
        )
    if exploration.has_noise and exploration.redraw != "update":
        return (
            f"redraw: got {exploration.redraw}, expected update: {algorithm} learns under the very "
            "draw that acted, which is held over the rollout"
        )
    for name, value in (
        ("dueling", config.network.dueling),
        ("atoms", config.network.atoms),
        ("prioritised", config.learning.prioritised),
    ):
        if value:
            return f"{name}: got {value}, expected {type(value)()}: {algorithm} learns no Q-values"
    device = config.training.device
    if algorithm == "a3c" and device not in ("auto", "cpu"):
        return f"device: got {device}, expected cpu: a3c's processes share the CPU's memory"
    return None


def _actors_misfit(config: Config) -> str | None:
    actors, shards = config.scale.actors, config.scale.replay_shards
    if actors is None:
        return None
    if config.learning.algorithm == "a3c":
        return (
            f"actors: got {actors}, expected none: a3c's workers play for themselves (--workers); "
            "sampler actors feed the learners of q_learning and a2c"
        )
    if config.actor_critic.lstm_size:
        return (
            f"actors: got {actors}, expected none with lstm_size {config.actor_critic.lstm_size}: "
            "fragments do not carry an LSTM's state"
        )
    if shards > actors:
        return (
            f"replay_shards: got {shards}, expected at most actors ({actors}): each is fed by "
            "samplers of its own"
        )
    return None


def why_idle(config: Config, field: str, section: str) -> str | None:
    """Say why a field does nothing beside the others; None where it acts."""
    environment, exploration = config.environment, config.exploration
    learning, algorithm = config.learning, config.learning.algorithm
    if section == "environment" and not environment.takes(field):
        return f"{environment.environment} has no such choice"
    if field in _NOISE and not exploration.has_noise:
        return f"exploration is {exploration.exploration}, no layer is noisy"
    if field.startswith("epsilon_") and not exploration.has_epsilon:
        return f"exploration is {exploration.exploration}, there is no ε"
    of_images = environment.is_atari or config.network.torso not in ("auto", "mlp")
    if field == "torso_hidden" and of_images:
        return "the torso of images has fixed layers"
    if learning.is_actor_critic and field in _Q_LEARNING:
        what = "learns from rollouts" if field in _REPLAY else "learns no Q-values"
        return f"algorithm is {algorithm}, which {what}"
    if not learning.is_actor_critic and field in _ACTOR_CRITIC:
        return f"algorithm is {algorithm}, which has neither rollouts nor a policy"
    if field in _SCALE and config.scale.actors is None:
        return "actors is empty, the run plays in its own process"
    if field in _SCALE - {"backend", "max_staleness"} and learning.is_actor_critic:
        return (
            f"algorithm is {algorithm}, whose fragments are rollouts, each with weights of its own"
        )
    if field == "workers" and algorithm != "a3c":
        return f"algorithm is {algorithm}, which trains in one process"
    if field in ("value_min", "value_max") and not config.network.atoms:
        return "atoms is 0, values are no distributions"
    if field.startswith("priority_") and not learning.prioritised:
        return "prioritised is false"
    if field == "choice_draw" and not learning.double:
        return "double is false, the target net chooses"
    if field == "learning_rate_steps" and learning.final_learning_rate is None:
        return "final_learning_rate is empty, the step size is constant"
    if field.startswith("rmsprop_") and learning.optimizer != "rmsprop":
        return f"optimizer is {learning.optimizer}"
    if field == "adam_epsilon" and learning.optimizer != "adam":
        return f"optimizer is {learning.optimizer}"
    return None
