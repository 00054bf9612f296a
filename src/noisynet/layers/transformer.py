"""Transformer encoders that do not take PyTorch's fast path while noise is in force in them.

In eval mode and without gradients, PyTorch's encoder reads the weights of the layers inside and
hands them to one operation, which would skip the layers' own forwards, and so their noise.
`noisify` gives an encoder with noisy layers inside one of these classes, and `denoise` restores the
plain class; an encoder layer into which a noisy layer is put by hand gets its class at once.
Decoders call their layers and need none of this.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from .layer import NoisyLayer


class NoisyTransformerEncoderLayer(nn.TransformerEncoderLayer):
    """An encoder layer that calls the layers inside it while any noise is in force there."""

    @property
    def activation_relu_or_gelu(self) -> int:
        """Return 0 while noise is in force, since PyTorch then does not take the fast path."""
        return 0 if noise_acts_in(self) else self.__dict__["activation_relu_or_gelu"]

    @activation_relu_or_gelu.setter
    def activation_relu_or_gelu(self, value: int) -> None:
        self.__dict__["activation_relu_or_gelu"] = value


class NoisyTransformerEncoder(nn.TransformerEncoder):
    """An encoder that makes no nested tensors, which only the fast path takes, while noise acts."""

    @property
    def use_nested_tensor(self) -> bool:
        """Return whether an input with a padding mask is converted to nested tensors."""
        return self.__dict__["use_nested_tensor"] and not noise_acts_in(self)

    @use_nested_tensor.setter
    def use_nested_tensor(self, value: bool) -> None:
        self.__dict__["use_nested_tensor"] = value


KEPT_OFF: dict[type[nn.Module], type[nn.Module]] = {
    nn.TransformerEncoderLayer: NoisyTransformerEncoderLayer,
    nn.TransformerEncoder: NoisyTransformerEncoder,
}
"""The classes of encoders with noisy layers inside, by their plain class."""


def keep_off_fast_paths(module: nn.Module) -> None:
    """Give each encoder its noisy class if it has noisy layers inside, else its plain class."""
    for plain, noisy in KEPT_OFF.items():
        for part in module.modules():
            if type(part) in (plain, noisy):
                has_noise = any(isinstance(one, NoisyLayer) for one in part.modules())
                part.__class__ = noisy if has_noise else plain


def noise_acts_in(module: nn.Module) -> bool:
    """Return whether any noisy layer of a module has noise in force."""
    return any(isinstance(part, NoisyLayer) and not part.is_off for part in module.modules())


def _keep_parent_off(parent: nn.Module, _name: str, part: Any) -> None:
    if isinstance(part, NoisyLayer) and type(parent) is nn.TransformerEncoderLayer:
        parent.__class__ = NoisyTransformerEncoderLayer


# PyTorch calls it for every module that is put into another; no forward of the noisy layer would
# come early enough, since it is what the fast path leaves out.
register_module_module_registration_hook(_keep_parent_off)
