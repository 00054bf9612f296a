"""The host's features extractor that an observation space asks for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)

_SMALLEST_FRAME = 36
"""Least height and width of a frame for the host's CNN."""


def extractor_for(
    space: spaces.Space[Any], normalize_images: bool, *, policy: str
) -> type[BaseFeaturesExtractor]:
    """Choose the features extractor: combined for a dict, a CNN for an image, else flat.

    Images that are too small for the CNN, such as MiniGrid's, are flattened, as by `MlpPolicy`.

    Raises ValueError for frames that the host does not recognise as images.
    """
    if isinstance(space, spaces.Dict):
        return CombinedExtractor
    if is_image_space(space, normalized_image=not normalize_images):
        height_and_width = sorted(space.shape or ())[1:]
        return NatureCNN if min(height_and_width) >= _SMALLEST_FRAME else FlattenExtractor
    if sum(size >= _SMALLEST_FRAME for size in space.shape or ()) > 1:
        raise ValueError(
            f"{policy}: got observations of {space.dtype} of shape {space.shape}, expected images "
            "as the host knows them: uint8 from 0 to 255, with channels; for normalised images, "
            "channels first, pass normalize_images=False, and for a perceptron over all values "
            "features_extractor_class=FlattenExtractor"
        )
    return FlattenExtractor


def check_options_of(
    extractor: type[BaseFeaturesExtractor], options: Mapping[str, Any] | None
) -> None:
    """Raise ValueError for options that an extractor does not take."""
    expected = list(inspect.signature(extractor).parameters)[1:]
    unknown = [name for name in options or () if name not in expected]
    if unknown:
        raise ValueError(
            f"features_extractor_kwargs: got {', '.join(unknown)}, expected "
            f"{' or '.join(expected) or 'none'} for {extractor.__name__}, which the observations "
            "ask for; another is chosen by features_extractor_class"
        )
