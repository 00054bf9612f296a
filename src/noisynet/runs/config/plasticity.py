"""What keeps the network able to learn: the section `plasticity` of a config."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .agreement import Fits, needs_one_learner
from .changes import MAY_CHANGE
from .conditions import Acts, Sections, algorithm_which
from .section import Count, Real, Section

OF_ONE_LEARNER = Acts(
    lambda config: config.learning.algorithm != "a3c",
    algorithm_which("has a learner in every worker, none of which may move what they share"),
)
WITH_REDO = Acts(
    lambda config: config.plasticity.redo_every > 0, lambda _: "redo_every is 0, no unit is checked"
)
WITH_SHRINKING = Acts(
    lambda config: config.plasticity.shrink_every > 0, lambda _: "shrink_every is 0"
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


class PlasticitySection(Section):
    """What keeps the network able to learn; intervals are in updates, and 0 means never."""

    redo_every: Annotated[
        Count,
        OF_ONE_LEARNER,
        needs_one_learner("redo_every"),
        Fits(_redo),
        MAY_CHANGE,
    ] = Field(
        default=0,
        description="updates between reinitialisations of dormant units (ReDo, arXiv 2302.12902: "
        "1,000); 0: never",
    )
    dormant_threshold: Annotated[Real, OF_ONE_LEARNER, WITH_REDO, MAY_CHANGE] = Field(
        default=0.025,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="activity up to which a unit is dormant, as a share of its layer's mean "
        "activity",
    )
    shrink_every: Annotated[
        Count,
        OF_ONE_LEARNER,
        needs_one_learner("shrink_every"),
        Fits(_shrink),
        MAY_CHANGE,
    ] = Field(
        default=0,
        description="updates between moves of all weights towards new initial values (shrink and "
        "perturb, arXiv 1910.08475); 0: never",
    )
    shrink_factor: Annotated[Real, OF_ONE_LEARNER, WITH_SHRINKING, MAY_CHANGE] = Field(
        default=0.5,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="share of a weight that is kept (BBF, arXiv 2305.19452: 0.5)",
    )
    reset_every: Annotated[Count, OF_ONE_LEARNER, needs_one_learner("reset_every"), MAY_CHANGE] = (
        Field(
            default=0,
            description="updates between resets of all layers after the torso (BBF: 40,000); 0: "
            "never",
        )
    )
