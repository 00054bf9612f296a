"""Where a field of the config does something: stated at the field, as `Acts` in its annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Sections(Protocol):
    """A whole config, as a field sees it: sections.py, below config.py, cannot name its type."""

    environment: Any
    network: Any
    exploration: Any
    learning: Any
    rollouts: Any
    actor_critic: Any
    plasticity: Any
    scale: Any
    training: Any

    @property
    def learns_beside_play(self) -> bool:
        """Whether one process plays, and learns from a replay between its steps."""
        ...

    @property
    def can_overlap(self) -> bool:
        """Whether one process can play while it learns what was played before."""
        ...

    @property
    def why_not_beside_play(self) -> str:
        """Why the learner does not take updates from a replay beside its own play."""
        ...

    @property
    def why_not_overlap(self) -> str:
        """Why one process cannot play while it learns what was played before."""
        ...


@dataclass(frozen=True)
class Acts:
    """A condition under which a field does something, and why it does nothing otherwise."""

    when: Callable[[Sections], bool]
    otherwise: Callable[[Sections], str]


ALWAYS = Acts(lambda _: True, lambda _: "")


def _algorithm(what: str) -> Callable[[Sections], str]:
    return lambda config: f"algorithm is {config.learning.algorithm}, which {what}"


def _no_such_choice(config: Sections) -> str:
    return f"{config.environment.environment} has no such choice"


ON_ATARI = Acts(lambda config: config.environment.is_atari, _no_such_choice)
ON_MINATAR = Acts(lambda config: config.environment.is_minatar, _no_such_choice)
ON_ATARI_OR_MINATAR = Acts(
    lambda config: config.environment.is_atari or config.environment.is_minatar, _no_such_choice
)
WITH_NOISE = Acts(
    lambda config: config.exploration.has_noise,
    lambda config: f"exploration is {config.exploration.exploration}, no layer is noisy",
)
WITH_NOISE_SCHEDULE = Acts(
    lambda config: config.exploration.noise_schedule != "constant",
    lambda _: "noise_schedule is constant",
)
WITH_NOISE_TARGET = Acts(
    lambda config: config.exploration.noise_target is not None,
    lambda _: "noise_target is empty, nothing is measured",
)
WITH_SIGMA_PENALTY = Acts(
    lambda config: config.exploration.sigma_penalty > 0,
    lambda _: "sigma_penalty is 0",
)
WITH_EPSILON = Acts(
    lambda config: config.exploration.has_epsilon,
    lambda config: f"exploration is {config.exploration.exploration}, there is no ε",
)
ON_VECTORS = Acts(
    lambda config: not config.environment.is_atari and config.network.torso in ("auto", "mlp"),
    lambda _: "the torso of images has fixed layers",
)
OF_REPLAY = Acts(lambda config: config.learning.has_replay, _algorithm("learns from rollouts"))
OF_ROLLOUTS = Acts(lambda config: not config.learning.has_replay, _algorithm("has no rollouts"))
OF_PQN = Acts(
    lambda config: config.learning.algorithm == "pqn",
    _algorithm("does not learn rollouts in minibatches"),
)
OF_Q_VALUES = Acts(
    lambda config: not config.learning.is_actor_critic, _algorithm("learns no Q-values")
)
OF_ACTOR_CRITIC = Acts(
    lambda config: config.learning.is_actor_critic,
    _algorithm("has no policy"),
)
OF_A3C = Acts(
    lambda config: config.learning.algorithm == "a3c", _algorithm("trains in one process")
)
OF_ONE_LEARNER = Acts(
    lambda config: config.learning.algorithm != "a3c",
    _algorithm("has a learner in every worker, none of which may move what they share"),
)
WITH_ACTORS = Acts(
    lambda config: config.scale.actors is not None,
    lambda _: "actors is empty, the run plays in its own process",
)
OF_FRAGMENTS = Acts(
    lambda config: config.learning.has_replay,
    lambda config: (
        f"algorithm is {config.learning.algorithm}, whose fragments are rollouts, each with "
        "weights of its own"
    ),
)
BESIDE_PLAY = Acts(
    lambda config: config.learns_beside_play,
    lambda config: config.why_not_beside_play,
)
OVERLAPPING = Acts(
    lambda config: config.can_overlap,
    lambda config: config.why_not_overlap,
)
WITH_ATOMS = Acts(
    lambda config: config.network.atoms > 0,
    lambda _: "atoms is 0, values are no distributions",
)
WITH_QUANTILES = Acts(
    lambda config: config.network.quantiles > 0,
    lambda _: "quantiles is 0, values have no quantiles",
)
WITHOUT_DISTRIBUTIONS = Acts(
    lambda config: not (config.network.atoms or config.network.quantiles),
    lambda _: "values are distributions, which have a loss of their own",
)
WITH_MUNCHAUSEN = Acts(
    lambda config: config.learning.munchausen > 0,
    lambda _: "munchausen is 0, targets are greedy",
)
WITHOUT_MUNCHAUSEN = Acts(
    lambda config: config.learning.munchausen == 0,
    lambda _: "munchausen is above 0, the target net's softmax policy chooses",
)
WITH_LAYER_NORM = Acts(lambda config: config.network.layer_norm, lambda _: "layer_norm is false")
OF_OUR_NETWORK = Acts(
    lambda config: config.network.own_network is None,
    lambda config: f"own_network is {config.network.own_network}, which is the whole network",
)
WITH_IMPALA = Acts(
    lambda config: config.network.torso == "impala",
    lambda config: f"torso is {config.network.torso}, not impala",
)
WITH_PRIORITIES = Acts(lambda config: config.learning.prioritised, lambda _: "prioritised is false")
WITH_DOUBLE = Acts(
    lambda config: config.learning.double, lambda _: "double is false, the target net chooses"
)
WITH_FALLING_STEP_SIZE = Acts(
    lambda config: config.learning.final_learning_rate is not None,
    lambda _: "final_learning_rate is empty, the step size is constant",
)
WITH_ADAM = Acts(
    lambda config: config.learning.optimizer in ("adam", "radam"),
    lambda config: f"optimizer is {config.learning.optimizer}",
)
WITH_RMSPROP = Acts(
    lambda config: config.learning.optimizer == "rmsprop",
    lambda config: f"optimizer is {config.learning.optimizer}",
)
WITH_REDO = Acts(
    lambda config: config.plasticity.redo_every > 0, lambda _: "redo_every is 0, no unit is judged"
)
WITH_SHRINKING = Acts(
    lambda config: config.plasticity.shrink_every > 0, lambda _: "shrink_every is 0"
)
