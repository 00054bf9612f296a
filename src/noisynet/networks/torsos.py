"""Torsos by name: modules that turn observations into features; ours are built without noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ..layers import noisy_layers
from .image_torsos import (
    FirstDQNTorso,
    FramesTorso,
    MinAtarTorso,
    NatureTorso,
    as_floats,
    is_large_image,
)
from .own_torso import MakeTorso, OwnTorso
from .patch_torsos import DataEfficientTorso, WholePatchTorso
from .residual_torso import ImpalaSettings, ImpalaTorso


class MLPTorso(nn.Module):
    """A torso for vectors: plain hidden layers, each followed by a ReLU.

    Input (…, size), output (…, features); `features` is the size of the last hidden layer, or of
    the input if there is none.
    """

    def __init__(
        self, observation_shape: Sequence[int], hidden: Sequence[int], *, layer_norm: bool = False
    ) -> None:
        """Build hidden layers of the given sizes for observations of (size,).

        With `layer_norm`, each is normalised before its ReLU.
        """
        super().__init__()
        if len(observation_shape) != 1:
            raise ValueError(
                f"mlp torso: got observations of shape {tuple(observation_shape)}, expected (size,)"
            )
        sizes = [observation_shape[0], *hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers.append(nn.Linear(inputs, outputs))
            layers += [nn.LayerNorm(outputs, elementwise_affine=False)] if layer_norm else []
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.features = sizes[-1]

    def prepare(self, observation: Tensor) -> Tensor:
        """Turn integers into floats; `forward` calls this itself."""
        return as_floats(observation)

    def forward(self, observation: Tensor) -> Tensor:
        """Return features (…, features)."""
        return self.layers(self.prepare(observation))


Torso = FramesTorso | MinAtarTorso | MLPTorso | OwnTorso


def flattens_rows(torso: Torso) -> bool:
    """Return whether a torso with noise flattens all leading dimensions of its observations.

    Convolutions, and the modules of users, take a single one. Under a draw with rows, such a torso
    takes observations (rows, *shape) alone, and a sequence step by step.
    """
    return not isinstance(torso, MLPTorso) and bool(noisy_layers(torso))


_FRAMES_TORSOS = {
    one.name: one for one in (NatureTorso, FirstDQNTorso, DataEfficientTorso, WholePatchTorso)
}
_NAMES = ("auto", "mlp", "minatar", *_FRAMES_TORSOS, ImpalaTorso.name)


def make_torso(
    name: str | MakeTorso,
    observation_shape: Sequence[int],
    hidden: Sequence[int] = (),
    *,
    impala: ImpalaSettings | None = None,
    standardise_frames: bool = False,
    layer_norm: bool = False,
) -> Torso:
    """Build a torso by its name, or by a function of your own that takes the observation's shape.

    "auto" chooses by that shape: "mlp" for vectors, "nature" for images of at least 36 by 36
    pixels, and "minatar" for smaller ones. `hidden` has the sizes of the hidden layers of "mlp",
    `impala` the settings of "impala"; all other torsos ignore them. With `layer_norm`, our torsos
    normalise every layer before its ReLU; one of your own stays as it is. Raises ValueError for an
    unknown name, for observations that do not fit the torso, and for `standardise_frames` if the
    torso does not take frames or is your own.
    """
    if not isinstance(name, str):
        if standardise_frames:
            raise ValueError(
                "standardise_frames: got true, expected false: a torso of your own takes frames as "
                "they are"
            )
        return OwnTorso(name(tuple(observation_shape)), observation_shape)
    if name not in _NAMES:
        raise ValueError(f"torso: got {name!r}, expected one of {', '.join(_NAMES)}")
    if name == "auto":
        name = "mlp"
        if len(observation_shape) == 3:
            name = "nature" if is_large_image(observation_shape) else "minatar"
    if name in _FRAMES_TORSOS:
        return _FRAMES_TORSOS[name](
            observation_shape, standardised=standardise_frames, layer_norm=layer_norm
        )
    if name == ImpalaTorso.name:
        return ImpalaTorso(
            observation_shape, impala, standardised=standardise_frames, layer_norm=layer_norm
        )
    if standardise_frames:
        raise ValueError(
            f"standardise_frames: got true, expected false: the {name} torso takes no frames"
        )
    if name == "minatar":
        return MinAtarTorso(observation_shape, layer_norm=layer_norm)
    return MLPTorso(observation_shape, hidden, layer_norm=layer_norm)
