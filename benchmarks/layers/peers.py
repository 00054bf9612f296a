"""Noisy linear layers of other libraries: re-implemented, and installed ones.

The re-implemented ones follow what their authors published: which tensors are drawn, where they
are kept and in which order they are combined with the weights, since that is what costs time and
memory. The code is ours, and so are the initial values, which cost neither: the paper's for each
kind of noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def signed_root(x: Tensor) -> Tensor:
    """Compute f(x) = sgn(x) √|x| in the usual way: a sign, a magnitude, a root, a product."""
    return x.sign() * x.abs().sqrt()


class PeerLayer(nn.Module):
    """A noisy linear layer's μ and σ; `noise` returns what the last forward used."""

    def __init__(self, inputs: int, outputs: int, *, independent: bool = False) -> None:
        super().__init__()
        bound = math.sqrt((3 if independent else 1) / inputs)
        sigma = 0.017 if independent else 0.5 / math.sqrt(inputs)
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma))

    def redraw(self) -> None:
        """Draw new noise, unless the layer draws at each forward."""

    def noise(self) -> tuple[Tensor, Tensor]:
        """Return the ε of weight and bias that the last forward used, shaped like them."""
        raise NotImplementedError


class BookIndependent(PeerLayer):
    """A layer that draws pq + q normals into buffers at each forward.

    Lapan, Deep Reinforcement Learning Hands-On, the layer with independent Gaussian noise.
    """

    weight_noise: Tensor
    bias_noise: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, independent=True)
        self.register_buffer("weight_noise", torch.zeros(outputs, inputs))
        self.register_buffer("bias_noise", torch.zeros(outputs))

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, p); return (…, q)."""
        self.weight_noise.normal_()
        self.bias_noise.normal_()
        noisy_bias = self.bias + self.bias_sigma * self.bias_noise
        return F.linear(input, self.weight + self.weight_sigma * self.weight_noise, noisy_bias)

    def noise(self) -> tuple[Tensor, Tensor]:
        """Return the ε of weight and bias that the last forward used."""
        return self.weight_noise, self.bias_noise


class BookFactorised(PeerLayer):
    """A layer that draws p + q normals at each forward and multiplies them out to p×q noise.

    Lapan, Deep Reinforcement Learning Hands-On, the layer with factorised Gaussian noise.
    """

    normals_in: Tensor
    normals_out: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("normals_in", torch.zeros(1, inputs))
        self.register_buffer("normals_out", torch.zeros(outputs, 1))

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, p); return (…, q)."""
        self.normals_in.normal_()
        self.normals_out.normal_()
        noise_in, noise_out = signed_root(self.normals_in), signed_root(self.normals_out)
        noisy_bias = self.bias + self.bias_sigma * noise_out.squeeze(1)
        weight_noise = noise_in * noise_out
        return F.linear(input, self.weight + self.weight_sigma * weight_noise, noisy_bias)

    def noise(self) -> tuple[Tensor, Tensor]:
        """Return the ε of weight and bias that the last forward used."""
        noise_out = signed_root(self.normals_out)
        return noise_out * signed_root(self.normals_in), noise_out.squeeze(1)


class Kaixhin(PeerLayer):
    """A layer that keeps p×q factorised noise in a buffer; a reset draws p + q normals on the CPU.

    Kaixhin/Rainbow, model.py.
    """

    weight_noise: Tensor
    bias_noise: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("weight_noise", torch.empty(outputs, inputs))
        self.register_buffer("bias_noise", torch.empty(outputs))
        self.redraw()

    def redraw(self) -> None:
        """Draw new noise into the buffers."""
        noise_in = signed_root(torch.randn(self.inputs).to(self.weight_noise))
        noise_out = signed_root(torch.randn(self.outputs).to(self.bias_noise))
        self.weight_noise.copy_(torch.outer(noise_out, noise_in))
        self.bias_noise.copy_(noise_out)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, p); return (…, q)."""
        noisy_weight = self.weight + self.weight_sigma * self.weight_noise
        return F.linear(input, noisy_weight, self.bias + self.bias_sigma * self.bias_noise)

    def noise(self) -> tuple[Tensor, Tensor]:
        """Return the ε of weight and bias that the last forward used."""
        return self.weight_noise, self.bias_noise


class CleanRL(Kaixhin):
    """A layer that keeps pq + q independent normals in buffers, which a reset redraws.

    CleanRL, rainbow_atari.py, whose comment calls them factorised.
    """

    def redraw(self) -> None:
        """Draw new noise into the buffers."""
        self.weight_noise.normal_()
        self.bias_noise.normal_()


class RLlib(PeerLayer):
    """A layer that draws p + q normals on the CPU at each forward; its weight is stored as p×q.

    RLlib's old API stack; the new one has no noisy layer.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.weight = nn.Parameter(self.weight.detach().T.contiguous())
        self.weight_sigma = nn.Parameter(self.weight_sigma.detach().T.contiguous())
        self.noise_in, self.noise_out = torch.zeros(inputs), torch.zeros(outputs)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, p); return (…, q)."""
        noise_in, noise_out = (
            signed_root(torch.normal(torch.zeros(size), torch.ones(size))).to(self.weight)
            for size in (self.inputs, self.outputs)
        )
        self.noise_in, self.noise_out = noise_in, noise_out
        weight_noise = torch.matmul(noise_in.unsqueeze(1), noise_out.unsqueeze(0))
        product = torch.matmul(input, self.weight + self.weight_sigma * weight_noise)
        return product + self.bias + self.bias_sigma * noise_out

    def noise(self) -> tuple[Tensor, Tensor]:
        """Return the ε of weight and bias that the last forward used."""
        return torch.outer(self.noise_in, self.noise_out), self.noise_out


class DQNZoo(PeerLayer):
    """A layer that scales the input and output of a second product, by σ: no p×q noise is made.

    DeepMind's dqn_zoo, written for JAX and its compiler: this is its equation in eager PyTorch. Its
    normals are cut off at ±2, so its noise is smaller than the paper's.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.noise_in, self.noise_out = torch.zeros(1, inputs), torch.zeros(1, outputs)

    def cut_normals(self, size: int) -> Tensor:
        """Draw normals between -2 and 2, (1, size), from their inverse distribution function."""
        edge = math.erf(math.sqrt(2))
        uniform = torch.empty(1, size, device=self.bias.device).uniform_(-edge, edge)
        return uniform.erfinv_().mul_(math.sqrt(2)).to(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (…, p); return (…, q)."""
        self.noise_in = signed_root(self.cut_normals(self.inputs))
        self.noise_out = signed_root(self.cut_normals(self.outputs))
        steady = F.linear(input, self.weight, self.bias)
        noisy = F.linear(self.noise_in * input, self.weight_sigma, self.bias_sigma)
        return steady + noisy * self.noise_out

    def noise(self) -> tuple[Tensor, Tensor]:
        """Return the ε of weight and bias that the last forward used."""
        return self.noise_out.T * self.noise_in, self.noise_out.squeeze(0)


def torchrl_layer(inputs: int, outputs: int) -> nn.Module:
    """Make TorchRL's layer, noisy whatever the exploration type; raises ImportError without it."""
    from torchrl.modules import NoisyLinear

    # By default the noise waits for set_exploration_type, and the layer would be a plain Linear.
    return NoisyLinear(inputs, outputs, use_exploration_type=False).train()


def tianshou_layer(inputs: int, outputs: int) -> nn.Module:
    """Make Tianshou's layer; raises ImportError without it."""
    from tianshou.utils.net.discrete import NoisyLinear

    return NoisyLinear(inputs, outputs).train()


def pfrl_layer(inputs: int, outputs: int) -> nn.Module:
    """Make PFRL's layer, which draws at each forward; raises ImportError without it."""
    from pfrl.nn import FactorizedNoisyLinear

    return FactorizedNoisyLinear(nn.Linear(inputs, outputs))


INSTALLED: dict[str, tuple[Callable[[int, int], nn.Module], str | None]] = {
    "torchrl": (torchrl_layer, "reset_noise"),
    "tianshou": (tianshou_layer, "sample"),
    "pfrl": (pfrl_layer, None),
}
"""By package: the function that makes a layer, and the layer's method that redraws, or None."""

MARK = " (re-implemented from its published description)"
"""The end of a re-implemented layer's label."""

REIMPLEMENTED: dict[str, tuple[str, type[PeerLayer]]] = {
    "book-factorised": ("the book, factorised", BookFactorised),
    "book-independent": ("the book, independent", BookIndependent),
    "kaixhin": ("Kaixhin/Rainbow", Kaixhin),
    "cleanrl": ("CleanRL, independent", CleanRL),
    "rllib": ("RLlib, old stack", RLlib),
    "dqn-zoo": ("dqn_zoo, in PyTorch", DQNZoo),
}


def installed_version(package: str) -> str:
    """Return the version of an installed package; raise ImportError where there is none."""
    return version(package)
