"""Networks: torsos that turn observations into features, and heads that carry the noise."""

from .actor_critic import (
    ActorCriticHead,
    ActorCriticNetwork,
    CoreState,
    RecurrentCore,
    build_actor_critic_network,
)
from .heads import DistributionalHead, DuelingHead, QHead, Stream
from .image_torsos import FirstDQNTorso, FramesTorso, MinAtarTorso, NatureTorso
from .noise_settings import MakeLinear, NoiseSettings
from .own_network import MakeNetwork, OwnQNetwork, make_own_network
from .own_torso import MakeTorso, OwnTorso
from .patch_torsos import DataEfficientTorso, PatchTorso, WholePatchTorso
from .q_network import QNetwork, build_q_network
from .quantile_head import QuantileHead
from .residual_torso import ImpalaSettings, ImpalaTorso
from .torsos import MLPTorso, flattens_rows, make_torso

__all__ = [
    "ActorCriticHead",
    "ActorCriticNetwork",
    "CoreState",
    "DataEfficientTorso",
    "DistributionalHead",
    "DuelingHead",
    "FirstDQNTorso",
    "FramesTorso",
    "ImpalaSettings",
    "ImpalaTorso",
    "MLPTorso",
    "MakeLinear",
    "MakeNetwork",
    "MakeTorso",
    "MinAtarTorso",
    "NatureTorso",
    "NoiseSettings",
    "OwnQNetwork",
    "OwnTorso",
    "PatchTorso",
    "QHead",
    "QNetwork",
    "QuantileHead",
    "RecurrentCore",
    "Stream",
    "WholePatchTorso",
    "build_actor_critic_network",
    "build_q_network",
    "flattens_rows",
    "make_own_network",
    "make_torso",
]
