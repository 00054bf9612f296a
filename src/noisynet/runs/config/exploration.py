"""How the agent explores: the section `exploration` of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from .agreement import Fits, needs_q_values
from .changes import MAY_CHANGE, Spans
from .conditions import (
    ALWAYS,
    OF_Q_VALUES,
    OF_REPLAY,
    WITH_NOISE,
    WITHOUT_MUNCHAUSEN,
    Acts,
    Sections,
)
from .section import Fraction, NonNegativeFloat, PositiveInt, Real, Section
from .spelling import british_kind

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
WITH_DOUBLE = Acts(
    lambda config: config.learning.double, lambda _: "double is false, the target net chooses"
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


def _separate_players(config: Sections) -> str | None:
    """Return who plays outside the learner, with a scale of its own; None if nobody does."""
    if config.scale.actors is not None:
        return "sampler actors play, each"
    if config.learning.algorithm == "a3c":
        return "a3c's workers play, each"
    return None


def _noise_schedule(config: Sections) -> str | None:
    section = config.exploration
    if not section.has_noise or section.noise_schedule == "constant":
        return None
    players = _separate_players(config)
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
    players = _separate_players(config)
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


class ExplorationSection(Section):
    """How the agent explores: by learned noise, by ε-greedy, by both, or not at all."""

    exploration: Annotated[
        Literal["noise", "epsilon", "both", "none"], ALWAYS, Fits(_exploration)
    ] = Field(
        default="noise", description="what explores: learned noise, ε-greedy, both, or neither"
    )
    noise_kind: Annotated[
        Literal["factorised", "independent"], BeforeValidator(british_kind), WITH_NOISE
    ] = Field(default="factorised", description="kind of noise in the noisy layers")
    sigma0: Annotated[Real | None, WITH_NOISE] = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="σ0, which sets the initial σ; none: the paper's for the kind of noise",
    )
    noise_in: Annotated[Literal["head", "last", "all"], WITH_NOISE] = Field(
        default="head",
        description="noisy layers; head: all of the head but IQN's embedding; last: the output "
        "layers; all: the torso's as well. In an own_network: all linear layers, the last of "
        "them, or layers of all kinds",
    )
    redraw: Annotated[
        Literal["step", "update", "episode"], WITH_NOISE, Fits(_redraw), MAY_CHANGE
    ] = Field(
        default="update",
        description="when the acting noise is redrawn; update: after each update, or each rollout",
    )
    draw_per_environment: Annotated[bool, WITH_NOISE] = Field(
        default=True, description="each environment acts under its own draw; false: all share one"
    )
    learned_sigma: Annotated[bool, WITH_NOISE] = Field(
        default=True,
        description="learn σ; false: σ keeps its initial value, and only its scale can move",
    )
    noise_scale: Annotated[NonNegativeFloat, WITH_NOISE] = Field(
        default=1.0, description="initial scale, a factor of the noise σ ⊙ ε"
    )
    noise_schedule: Annotated[
        Literal["constant", "linear", "exponential", "cosine"],
        WITH_NOISE,
        Fits(_noise_schedule),
        Spans(
            lambda config: (
                config.exploration.noise_schedule != "constant"
                and config.exploration.noise_scale_steps is None
            )
        ),
    ] = Field(
        default="constant",
        description="how the scale moves from noise_scale to noise_scale_end; constant: not at "
        "all; exponential: as in QeRL (arXiv 2510.11696)",
    )
    noise_scale_end: Annotated[NonNegativeFloat, WITH_NOISE, WITH_NOISE_SCHEDULE] = Field(
        default=0.1, description="scale at the end of the schedule"
    )
    noise_scale_steps: Annotated[PositiveInt | None, WITH_NOISE, WITH_NOISE_SCHEDULE] = Field(
        default=None,
        description="agent step at which the schedule ends; none: the run's last",
    )
    noise_target: Annotated[
        Annotated[Real, Field(gt=0, lt=1, allow_inf_nan=False)] | None,
        WITH_NOISE,
        Fits(_noise_target),
    ] = Field(
        default=None,
        description="effective ε (share of greedy actions that the noise changes) to hold by "
        "moving the scale; none: no target",
    )
    noise_target_every: Annotated[PositiveInt, WITH_NOISE, WITH_NOISE_TARGET, MAY_CHANGE] = Field(
        default=64,
        description="agent steps between measurements of the effective ε, each over 64 "
        "observations; on images, a measurement takes as long as several updates",
    )
    sigma_penalty: Annotated[
        NonNegativeFloat,
        WITH_NOISE,
        OF_Q_VALUES,
        needs_q_values("sigma_penalty", "exploration"),
        Fits(_sigma_penalty),
        MAY_CHANGE,
    ] = Field(
        default=0.0,
        description="weight in the loss of the output layers' mean |σ| (arXiv 2006.10980) from a "
        "mean return of penalty_high on; 0: no penalty",
    )
    penalty_low: Annotated[Real, WITH_NOISE, WITH_SIGMA_PENALTY, MAY_CHANGE] = Field(
        default=0.0,
        allow_inf_nan=False,
        description="mean return up to which the penalty's weight is 0",
    )
    penalty_high: Annotated[Real | None, WITH_NOISE, WITH_SIGMA_PENALTY, MAY_CHANGE] = Field(
        default=None,
        allow_inf_nan=False,
        description="mean return from which on the penalty has its whole weight",
    )
    choice_draw: Annotated[
        bool, WITH_NOISE, OF_REPLAY, WITH_DOUBLE, WITHOUT_MUNCHAUSEN, MAY_CHANGE
    ] = Field(
        default=True,
        description="double Q-learning: a third draw chooses the next action; false: the online "
        "network's draw chooses it",
    )
    epsilon_start: Annotated[Fraction, WITH_EPSILON, MAY_CHANGE] = Field(
        default=1.0, description="ε at the end of the warm-up"
    )
    epsilon_end: Annotated[Fraction, WITH_EPSILON, MAY_CHANGE] = Field(
        default=0.01, description="ε from epsilon_steps on"
    )
    epsilon_steps: Annotated[PositiveInt, WITH_EPSILON, MAY_CHANGE] = Field(
        default=100_000,
        description="steps over which ε falls linearly, counted from the warm-up's end",
    )
    epsilon_until: Annotated[PositiveInt | None, WITH_EPSILON, MAY_CHANGE] = Field(
        default=None, description="agent step from which on ε is 0; none: never"
    )

    @property
    def has_noise(self) -> bool:
        """Whether any layer is noisy."""
        return self.exploration in ("noise", "both")

    @property
    def has_epsilon(self) -> bool:
        """Whether the agent acts ε-greedily."""
        return self.exploration in ("epsilon", "both")
