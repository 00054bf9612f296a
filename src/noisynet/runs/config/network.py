"""The network: the section `network` of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .agreement import Fits, needs_q_values, needs_replay
from .conditions import OF_Q_VALUES, OF_REPLAY, Acts, Sections
from .section import FewThousand, PositiveInt, Real, Section

_TORSOS = (
    "auto", "nature", "dqn2013", "data-efficient", "patches", "impala", "minatar", "mlp",
)  # fmt: skip
# The user's own code: where it can be imported, or <the name of an object in their program>.
_OWN = r"[\w.]+:\w+|<.+>"


def _has_mlp(config: Sections) -> bool:
    torso, environment = config.network.torso, config.environment
    images = environment.is_atari or environment.is_minatar
    return torso == "mlp" or (torso == "auto" and not images)


ON_VECTORS = Acts(_has_mlp, lambda _: "the torso of images has fixed layers")
WITH_ATOMS = Acts(
    lambda config: config.network.atoms > 0,
    lambda _: "atoms is 0, values are not distributions",
)
WITH_QUANTILES = Acts(
    lambda config: config.network.quantiles > 0,
    lambda _: "quantiles is 0, values have no quantiles",
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


def _own_network(config: Sections) -> str | None:
    network = config.network
    if network.own_network is None:
        return None
    said = f"own_network: got {network.own_network}, expected none"
    if config.learning.is_actor_critic:
        return f"{said}: {config.learning.algorithm} learns no Q-values (--torso takes your own)"
    # The user's own network returns expected values, takes observations unchanged, and has no head.
    for section, field in (
        (network, "atoms"),
        (network, "quantiles"),
        (network, "standardise_frames"),
        (config.plasticity, "reset_every"),
    ):
        if value := getattr(section, field):
            return f"{said} with {field} {value}"
    return None


def _quantiles(config: Sections) -> str | None:
    network = config.network
    if not (network.quantiles and network.atoms):
        return None
    return (
        f"quantiles: got {network.quantiles}, expected 0 with atoms {network.atoms}: a head learns "
        "either quantiles (IQN) or probabilities of atoms (C51)"
    )


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


class NetworkSection(Section):
    """The network: its torso and its head."""

    torso: Annotated[str, OF_OUR_NETWORK] = Field(
        default="auto",
        max_length=500,
        pattern=rf"^({'|'.join(_TORSOS)}|{_OWN})$",
        examples=[*_TORSOS, "module:function"],
        description="auto: by the shape of observations; nature: the CNN of DQN for stacked "
        "frames; dqn2013: the smaller one before it; data-efficient: the smallest; patches: as "
        "small, but sees the whole frame; impala: IMPALA's residual CNN; minatar: for small "
        "images; mlp: for vectors; module:function: your own, a function from an observation's "
        "shape to a torch module",
    )
    own_network: Annotated[
        Annotated[str, Field(max_length=500, pattern=rf"^({_OWN})$")] | None,
        OF_Q_VALUES,
        Fits(_own_network),
    ] = Field(
        default=None,
        examples=["module:function"],
        description="your own Q-network, which is made noisy: a function from an observation's "
        "shape and the number of actions to a torch module; none: torso and head",
    )
    torso_width: Annotated[Real, Field(ge=0.0625, le=64, allow_inf_nan=False), WITH_IMPALA] = Field(
        default=1.0,
        description="impala torso: factor of its 16, 32 and 32 filters (arXiv 2411.03820: 2)",
    )
    torso_pooling: Annotated[FewThousand, WITH_IMPALA] = Field(
        default=6,
        description="impala torso: size, in each direction, to which adaptive max pooling reduces "
        "its output; 0: no such pooling",
    )
    spectral_norm: Annotated[bool, WITH_IMPALA, Fits(_spectral_norm)] = Field(
        default=False,
        description="impala torso: spectral norm in the residual convolutions (arXiv 1802.05957)",
    )
    standardise_frames: Annotated[bool, OF_OUR_NETWORK] = Field(
        default=False,
        description="torsos for frames: show how a frame differs from the mean frame of random "
        "play, in standard deviations",
    )
    layer_norm: Annotated[bool, OF_OUR_NETWORK] = Field(
        default=False,
        description="layer norm in every layer but the last, before its ReLU, as in PQN",
    )
    layer_norm_in: Annotated[Literal["all", "head"], WITH_LAYER_NORM] = Field(
        default="all", description="all: layer norm in torso and head; head: in the head alone"
    )
    torso_hidden: Annotated[tuple[PositiveInt, ...], OF_OUR_NETWORK, ON_VECTORS] = Field(
        default=(), description="mlp torso: sizes of its hidden layers"
    )
    head_hidden: Annotated[PositiveInt, OF_OUR_NETWORK] = Field(
        default=512, description="size of the head's hidden layer"
    )
    dueling: Annotated[bool, OF_Q_VALUES, OF_OUR_NETWORK, needs_q_values("dueling", "network")] = (
        Field(
            default=False, description="separate streams for value and advantage (arXiv 1511.06581)"
        )
    )
    atoms: Annotated[FewThousand, OF_REPLAY, needs_replay("atoms", "network"), Fits(_atoms)] = (
        Field(
            default=0,
            description="atoms of the distribution of returns (arXiv 1707.06887: 51); 0: learn "
            "expected values alone",
        )
    )
    value_min: Annotated[Real, OF_REPLAY, WITH_ATOMS, Fits(_support)] = Field(
        default=-10.0, allow_inf_nan=False, description="value of the lowest atom"
    )
    value_max: Annotated[Real, OF_REPLAY, WITH_ATOMS] = Field(
        default=10.0, allow_inf_nan=False, description="value of the highest atom"
    )
    quantiles: Annotated[
        FewThousand, OF_REPLAY, needs_replay("quantiles", "network"), Fits(_quantiles)
    ] = Field(
        default=0,
        description="IQN: quantiles that an update predicts, at random fractions (arXiv "
        "1806.06923; arXiv 2411.03820: 8); 0: no quantiles",
    )
    target_quantiles: Annotated[FewThousand, OF_REPLAY, WITH_QUANTILES] = Field(
        default=8, ge=1, description="IQN: quantiles of the target network in an update"
    )
    acting_quantiles: Annotated[FewThousand, OF_REPLAY, WITH_QUANTILES] = Field(
        default=8, ge=1, description="IQN: quantiles whose mean chooses an action"
    )
    cosines: Annotated[FewThousand, OF_REPLAY, WITH_QUANTILES] = Field(
        default=64, ge=1, description="IQN: cosines in the embedding of a fraction"
    )

    @property
    def is_torso_ours(self) -> bool:
        """Whether the torso is one of this package's."""
        return self.torso in _TORSOS
