"""Noisy layers that infer their number of inputs from the first input, like torch's lazy layers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter, is_lazy

from .conv import NoisyConv, NoisyConv1d, NoisyConv2d, PaddingMode
from .initial import InitName
from .kernels.convolution import Sizes
from .layer import NoisyLayer
from .linear import NoisyLinear
from .noise import NoiseName, NoiseSpec


class _LazyNoisy(LazyModuleMixin, NoisyLayer):
    """A noisy layer whose weight, bias and σ have no shape yet.

    A subclass names the attribute that holds the number of inputs, and infers it from an input.
    """

    inputs_name: ClassVar[str]

    def __init__(self, *arguments: Any, device: Any, dtype: Any, **options: Any) -> None:
        """Build the layer of `cls_to_become` without data, and forget its number of inputs."""
        super().__init__(*arguments, **options, device="meta")  # pyright: ignore[reportAttributeAccessIssue]
        setattr(self, self.inputs_name, 0)
        uninitialised: Any = UninitializedParameter
        for name, parameter in dict(self.named_parameters(recurse=False)).items():
            wanted = parameter.requires_grad
            self.register_parameter(name, uninitialised(wanted, device=device, dtype=dtype))

    def _inputs_of(self, input: Tensor) -> int:
        """Return the layer's number of inputs; raise ValueError for an input that does not fit."""
        raise NotImplementedError

    def _weight_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _read_weight(self) -> None:
        """Take the number of inputs from the weight, which a checkpoint may have set."""
        setattr(self, self.inputs_name, self.weight.shape[1] * getattr(self, "groups", 1))

    def initialize_parameters(self, input: Tensor) -> None:
        """Take the number of inputs from the input, and give all parameters initial values.

        Values that a checkpoint has set are kept: a plain layer's checkpoint sets μ, and σ is
        initialised here.
        """
        if is_lazy(self.weight):
            setattr(self, self.inputs_name, self._inputs_of(input))
        else:
            self._read_weight()
        parameters = dict(self.named_parameters(recurse=False))
        loaded = {
            name: parameter.detach().clone()
            for name, parameter in parameters.items()
            if not is_lazy(parameter)
        }
        if len(loaded) == len(parameters):
            return
        weight = self._weight_shape()
        for name, parameter in parameters.items():
            if isinstance(parameter, UninitializedParameter):
                parameter.materialize(weight if name.startswith("weight") else weight[:1])
        self.reset_parameters()
        with torch.no_grad():
            for name, value in loaded.items():
                getattr(self, name).copy_(value)

    def reset_parameters(self) -> None:
        """Set μ and σ to new initial values; do nothing before they have a shape."""
        if not any(map(is_lazy, self.parameters(recurse=False))):
            super().reset_parameters()

    def noise_spec(self) -> NoiseSpec:
        """Return the spec of this layer's noise; raise ValueError while its shape is unknown."""
        if is_lazy(self.weight):
            raise ValueError(
                f"{type(self).__name__}: its number of inputs is not known yet: "
                "run one forward first, then draw"
            )
        self._read_weight()
        (spec,) = super().noise_spec().parts
        return spec


class LazyNoisyLinear(_LazyNoisy, NoisyLinear):
    """A layer that infers `in_features` from its first input, and then becomes a `NoisyLinear`.

    Options are those of `noisynet.NoisyLinear`. A checkpoint may be loaded before the first input.
    Holding or drawing noise raises ValueError until an input or a checkpoint has set the shape.
    """

    cls_to_become = NoisyLinear
    inputs_name = "in_features"

    def __init__(
        self,
        out_features: int,
        bias: bool = True,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer without its parameters' shapes."""
        options: Any = {"noise": noise, "sigma0": sigma0, "init": init, "learned": learned}
        super().__init__(1, out_features, bias, device=device, dtype=dtype, **options)

    def _inputs_of(self, input: Tensor) -> int:
        if input.ndim == 0 or input.shape[-1] == 0:
            raise ValueError(
                f"input: got shape {tuple(input.shape)}, expected (…, features): at least 1 feature"
            )
        return input.shape[-1]

    def _weight_shape(self) -> tuple[int, ...]:
        return self.out_features, self.in_features


class _LazyNoisyConv(_LazyNoisy, NoisyConv):
    inputs_name = "in_channels"

    def __init__(
        self,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: str | Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer without its parameters' shapes."""
        sizes = (groups, out_channels, kernel_size, stride, padding, dilation, groups)
        options: Any = {"noise": noise, "sigma0": sigma0, "init": init, "learned": learned}
        super().__init__(*sizes, bias, padding_mode, device=device, dtype=dtype, **options)

    def _inputs_of(self, input: Tensor) -> int:
        spatial = len(self.kernel_size)
        if input.ndim <= spatial:
            raise ValueError(
                f"input: got shape {tuple(input.shape)}, expected {1 + spatial} dimensions or more"
            )
        channels = input.shape[-1 - spatial]
        if channels % self.groups or channels == 0:
            raise ValueError(
                f"input: got {channels} channels, expected a multiple of {self.groups} groups"
            )
        return channels

    def _weight_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size


class LazyNoisyConv1d(_LazyNoisyConv, NoisyConv1d):
    """A layer that infers `in_channels` from its first input, and then becomes a `NoisyConv1d`.

    Options are those of `noisynet.NoisyConv1d`. A checkpoint may be loaded before the first input.
    Holding or drawing noise raises ValueError until an input or a checkpoint has set the shape.
    """

    cls_to_become = NoisyConv1d


class LazyNoisyConv2d(_LazyNoisyConv, NoisyConv2d):
    """A layer that infers `in_channels` from its first input, and then becomes a `NoisyConv2d`.

    Options are those of `noisynet.NoisyConv2d`. A checkpoint may be loaded before the first input.
    Holding or drawing noise raises ValueError until an input or a checkpoint has set the shape.
    """

    cls_to_become = NoisyConv2d
