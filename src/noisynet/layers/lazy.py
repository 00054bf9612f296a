"""Noisy layers that learn their number of inputs from the first input, as torch's lazy ones do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter, is_lazy

from .conv import NoisyConv, NoisyConv1d, NoisyConv2d, PaddingMode
from .kernels.convolution import check_channels
from .noise import NoiseSpec
from .linear import NoisyLinear
from .layer import NoisyLayer


class _LazyNoisy(LazyModuleMixin, NoisyLayer):
    """Be a noisy layer whose weight, bias and σ have no shape yet.

    A subclass builds itself with some number of inputs on the meta device, and says with
    `_shape_from_input` and `_shape_from_weight` what the number really is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the layer that stands behind this class, and watch for its first input."""
        super().__init__(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

    def _forget_inputs(self, device: Any, dtype: torch.dtype | None) -> None:
        # Its metaclass hides from type checkers what it takes and is.
        uninitialised: Any = UninitializedParameter
        for name in dict(self.named_parameters(recurse=False)):
            self.register_parameter(name, uninitialised(device=device, dtype=dtype))

    def _shape_from_input(self, input: Tensor) -> None:
        raise NotImplementedError

    def _shape_from_weight(self) -> None:
        raise NotImplementedError

    def _weight_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def initialize_parameters(self, input: Tensor) -> None:
        """Take the number of inputs from the input, and give all parameters initial values.

        What a checkpoint brought meanwhile stays: a plain layer's brings μ and leaves σ to this.
        """
        if is_lazy(self.weight):
            self._shape_from_input(input)
        else:
            self._shape_from_weight()
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
        """Set μ and σ to new initial values; they have none before the first input."""
        if not any(map(is_lazy, self.parameters(recurse=False))):
            super().reset_parameters()  # pyright: ignore[reportAttributeAccessIssue]

    def noise_spec(self) -> NoiseSpec:
        """Say what one draw of this layer consists of; raises ValueError while nobody knows."""
        if is_lazy(self.weight):
            raise ValueError(
                f"{type(self).__name__}: its number of inputs is not known yet: "
                "run one forward first, then draw"
            )
        self._shape_from_weight()
        return super().noise_spec()  # pyright: ignore[reportReturnType]


class LazyNoisyLinear(_LazyNoisy, NoisyLinear):
    """Be a `NoisyLinear` that takes `in_features` from its first input, and becomes one then.

    Options are those of `noisynet.NoisyLinear`. A checkpoint may be loaded before the first input.
    Noise can be held or drawn once the first input has come; before, it is a ValueError.
    """

    cls_to_become = NoisyLinear

    def __init__(
        self,
        out_features: int,
        bias: bool = True,
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer without its parameters' shapes."""
        options: dict[str, Any] = {"noise": noise, "sigma0": sigma0, "init": init}
        super().__init__(1, out_features, bias, **options, device="meta")
        self.in_features = 0
        self._forget_inputs(device, dtype)

    def _shape_from_input(self, input: Tensor) -> None:
        if input.ndim == 0 or input.shape[-1] == 0:
            raise ValueError(
                f"input: got shape {tuple(input.shape)}, expected (…, features): at least 1 feature"
            )
        self.in_features = input.shape[-1]

    def _shape_from_weight(self) -> None:
        self.in_features = self.weight.shape[1]

    def _weight_shape(self) -> tuple[int, ...]:
        return self.out_features, self.in_features


class _LazyNoisyConv(_LazyNoisy, NoisyConv):
    def _shape_from_input(self, input: Tensor) -> None:
        spatial = len(self.kernel_size)
        if input.ndim <= spatial:
            check_channels(input, self.groups, spatial)
        channels = input.shape[-1 - spatial]
        if channels % self.groups or channels == 0:
            raise ValueError(
                f"input: got {channels} channels, expected a multiple of {self.groups} groups"
            )
        self.in_channels = channels

    def _shape_from_weight(self) -> None:
        self.in_channels = self.weight.shape[1] * self.groups

    def _weight_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size


class LazyNoisyConv1d(_LazyNoisyConv, NoisyConv1d):
    """Be a `NoisyConv1d` that takes `in_channels` from its first input, and becomes one then.

    Options are those of `noisynet.NoisyConv1d`. A checkpoint may be loaded before the first input.
    Noise can be held or drawn once the first input has come; before, it is a ValueError.
    """

    cls_to_become = NoisyConv1d

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: str | int | tuple[int] = 0,
        dilation: int | tuple[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer without its parameters' shapes."""
        options: dict[str, Any] = {"noise": noise, "sigma0": sigma0, "init": init}
        super().__init__(
            groups,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            **options,
            device="meta",
        )
        self.in_channels = 0
        self._forget_inputs(device, dtype)


class LazyNoisyConv2d(_LazyNoisyConv, NoisyConv2d):
    """Be a `NoisyConv2d` that takes `in_channels` from its first input, and becomes one then.

    Options are those of `noisynet.NoisyConv2d`. A checkpoint may be loaded before the first input.
    Noise can be held or drawn once the first input has come; before, it is a ValueError.
    """

    cls_to_become = NoisyConv2d

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        noise: str = "factorised",
        sigma0: float | None = None,
        init: str = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer without its parameters' shapes."""
        options: dict[str, Any] = {"noise": noise, "sigma0": sigma0, "init": init}
        super().__init__(
            groups,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            **options,
            device="meta",
        )
        self.in_channels = 0
        self._forget_inputs(device, dtype)
