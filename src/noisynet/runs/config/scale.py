"""Sampler actors: the section `scale` of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .agreement import Fits
from .changes import MAY_CHANGE
from .conditions import ALWAYS, Acts, Sections
from .section import Count, FewThousand, PositiveInt, Section

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


class ScaleSection(Section):
    """Sampler actors: more environments than one process steps."""

    actors: Annotated[Annotated[FewThousand, Field(ge=1)] | None, ALWAYS, Fits(_actors)] = Field(
        default=None,
        description="number of sampler actors, each with `environments` of its own; none: the run "
        "plays in its own process",
    )
    backend: Annotated[Literal["ray", "in-process"], WITH_ACTORS, MAY_CHANGE] = Field(
        default="ray",
        description="where actors run; in-process: one after the other in this process",
    )
    replay_shards: Annotated[FewThousand, WITH_ACTORS, OF_FRAGMENTS, Fits(_shards)] = Field(
        default=0,
        description="number of replays in actors of their own, each fed by a share of the "
        "samplers; 0: one replay in the learner's process",
    )
    fragment_steps: Annotated[PositiveInt, WITH_ACTORS, OF_FRAGMENTS] = Field(
        default=16, description="steps of each environment that a sampler sends at a time"
    )
    weights_every: Annotated[PositiveInt, WITH_ACTORS, OF_FRAGMENTS, MAY_CHANGE] = Field(
        default=16, description="least number of updates between two publications of the weights"
    )
    max_staleness: Annotated[Count | None, WITH_ACTORS, MAY_CHANGE] = Field(
        default=None,
        description="largest age, in updates, of the weights behind a fragment when it arrives; "
        "for a2c and pqn, number of rollouts that samplers play ahead; none: 0 for a2c and "
        "pqn, and for q_learning what four fragments of every sampler take, plus weights_every",
    )
