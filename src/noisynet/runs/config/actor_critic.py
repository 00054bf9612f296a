"""Settings of the actor-critic: the section `actor_critic` of a config."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .agreement import needs_policy
from .changes import MAY_CHANGE
from .conditions import Acts, algorithm_which
from .section import FewThousand, Fraction, NonNegativeFloat, PositiveFloat, Section

OF_ACTOR_CRITIC = Acts(
    lambda config: config.learning.is_actor_critic,
    algorithm_which("has no policy"),
)
OF_A3C = Acts(
    lambda config: config.learning.algorithm == "a3c", algorithm_which("trains in one process")
)


class ActorCriticSection(Section):
    """Settings of the actor-critic: advantages, losses, workers."""

    gae_lambda: Annotated[Fraction, OF_ACTOR_CRITIC, MAY_CHANGE] = Field(
        default=1.0, description="λ of the advantages (arXiv 1506.02438); 1: n-step returns"
    )
    value_coefficient: Annotated[PositiveFloat, OF_ACTOR_CRITIC, MAY_CHANGE] = Field(
        default=0.5, description="weight of the value loss beside the policy loss"
    )
    entropy_bonus: Annotated[
        NonNegativeFloat,
        OF_ACTOR_CRITIC,
        needs_policy("entropy_bonus", " has no policy whose entropy could be paid for"),
        MAY_CHANGE,
    ] = Field(default=0.0, description="weight of the policy's entropy in the loss; 0: no bonus")
    lstm_size: Annotated[
        FewThousand,
        OF_ACTOR_CRITIC,
        needs_policy("lstm_size", " learns single steps, not the sequences that an LSTM needs"),
    ] = Field(default=0, description="size of an LSTM before policy and value; 0: no LSTM")
    workers: Annotated[FewThousand, OF_ACTOR_CRITIC, OF_A3C, MAY_CHANGE] = Field(
        default=2, ge=1, description="a3c: number of processes, each with `environments` of its own"
    )
