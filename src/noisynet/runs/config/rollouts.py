"""Rollouts, and how pqn learns from them: the section `rollouts` of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .agreement import Fits
from .changes import MAY_CHANGE
from .conditions import WITH_NOISE, Acts, Sections, algorithm_which
from .section import Fraction, PositiveInt, Section

OF_ROLLOUTS = Acts(
    lambda config: not config.learning.has_replay, algorithm_which("has no rollouts")
)
OF_PQN = Acts(
    lambda config: config.learning.algorithm == "pqn",
    algorithm_which("does not learn rollouts in minibatches"),
)


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


class RolloutsSection(Section):
    """Rollouts, and how pqn learns from them (arXiv 2407.04811)."""

    rollout_steps: Annotated[PositiveInt, OF_ROLLOUTS, MAY_CHANGE] = Field(
        default=5, description="steps of each environment in a rollout (arXiv 1602.01783: 5)"
    )
    return_lambda: Annotated[Fraction, OF_PQN, MAY_CHANGE] = Field(
        default=0.65,
        description="λ of the returns; 0: bootstrap after each step; 1: at the rollout's end",
    )
    epochs: Annotated[PositiveInt, OF_PQN, MAY_CHANGE] = Field(
        default=2, description="number of times that a rollout is learned"
    )
    minibatches: Annotated[PositiveInt, OF_PQN, Fits(_minibatches), MAY_CHANGE] = Field(
        default=32, description="minibatches, and so updates, in an epoch"
    )
    learning_draw: Annotated[
        Literal["fresh", "rows", "acted"], OF_PQN, WITH_NOISE, Fits(_learning_draw), MAY_CHANGE
    ] = Field(
        default="fresh",
        description="noise that an update learns under; fresh: a separate draw; rows: a separate "
        "draw for each row of the minibatch; acted: for each row, the draw that acted",
    )
    target_draw: Annotated[Literal["acted", "fresh", "means"], OF_PQN, WITH_NOISE, MAY_CHANGE] = (
        Field(
            default="acted",
            description="noise that makes the targets; acted: the draw that acted; fresh: a "
            "separate draw; means: none",
        )
    )
