"""Small noisy layers with the faults of existing libraries' ones, written anew for these tests.

Each keeps the names and the structure that the library has, and the one fault (or two) that it is
known for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

P, H, A = 6, 32, 4


def shaped(size: int, generator: torch.Generator | None = None) -> Tensor:
    x = torch.randn(size, generator=generator)
    return x.sign() * x.abs().sqrt()


class TianshouLike(nn.Module):
    """Noise follows `self.training`, and ε is among the parameters."""

    def __init__(self, p: int, q: int) -> None:
        super().__init__()
        bound, sigma = 1 / math.sqrt(p), 0.5 / math.sqrt(p)
        self.mu_W = nn.Parameter(torch.empty(q, p).uniform_(-bound, bound))
        self.sigma_W = nn.Parameter(torch.full((q, p), sigma))
        self.mu_bias = nn.Parameter(torch.empty(q).uniform_(-bound, bound))
        self.sigma_bias = nn.Parameter(torch.full((q,), sigma))
        self.eps_p = nn.Parameter(torch.zeros(p), requires_grad=False)
        self.eps_q = nn.Parameter(torch.zeros(q), requires_grad=False)
        self.sample()

    def sample(self) -> None:
        self.eps_p.copy_(shaped(len(self.eps_p)))
        self.eps_q.copy_(shaped(len(self.eps_q)))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return functional.linear(x, self.mu_W, self.mu_bias)
        return functional.linear(
            x,
            self.mu_W + self.sigma_W * torch.outer(self.eps_q, self.eps_p),
            self.mu_bias + self.sigma_bias * self.eps_q,
        )


class KaixhinLike(nn.Module):
    """σ_b over √q; ε in buffers that a state_dict has; the noise follows `self.training`."""

    def __init__(self, p: int, q: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(p)
        self.weight_mu = nn.Parameter(torch.empty(q, p).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((q, p), 0.5 / math.sqrt(p)))
        self.bias_mu = nn.Parameter(torch.empty(q).uniform_(-bound, bound))
        self.bias_sigma = nn.Parameter(torch.full((q,), 0.5 / math.sqrt(q)))
        self.register_buffer("weight_epsilon", torch.zeros(q, p))
        self.register_buffer("bias_epsilon", torch.zeros(q))
        self.reset_noise()

    def is_on(self) -> bool:
        return self.training

    def reset_noise(self) -> None:
        q, p = self.weight_mu.shape
        e_j = shaped(q)
        self.weight_epsilon.copy_(torch.outer(e_j, shaped(p)))
        self.bias_epsilon.copy_(e_j)

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_on():
            return functional.linear(x, self.weight_mu, self.bias_mu)
        return functional.linear(
            x,
            self.weight_mu + self.weight_sigma * self.weight_epsilon,
            self.bias_mu + self.bias_sigma * self.bias_epsilon,
        )


class TorchRLLike(KaixhinLike):
    """Noise follows a global mode, which is "deterministic" unless somebody says otherwise."""

    mode = "deterministic"

    def is_on(self) -> bool:
        return TorchRLLike.mode == "random"

    @staticmethod
    @contextmanager
    def exploring(mode: str = "random") -> Iterator[None]:
        former, TorchRLLike.mode = TorchRLLike.mode, mode
        try:
            yield
        finally:
            TorchRLLike.mode = former


class LossThatHidesItsNetwork(nn.Module):
    """A loss module whose network is no submodule, so that `apply` does not reach it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.__dict__["network"] = network


class RLlibLike(nn.Module):
    """Means initialised to a constant; weights stand the other way round."""

    def __init__(self, p: int, q: int) -> None:
        super().__init__()
        self.in_features = p
        self.w = nn.Parameter(torch.full((p, q), 1.0 / math.sqrt(p)))
        self.b = nn.Parameter(torch.zeros(q))
        self.sigma_w = nn.Parameter(torch.full((p, q), 0.5 / math.sqrt(p)))
        self.sigma_b = nn.Parameter(torch.full((q,), 0.5 / math.sqrt(p)))

    def forward(self, x: Tensor) -> Tensor:
        e_i, e_j = shaped(self.w.shape[0]), shaped(self.w.shape[1])
        weight = self.w + self.sigma_w * torch.outer(e_i, e_j)
        return x @ weight + self.b + self.sigma_b * e_j


class CleanRLLike(KaixhinLike):
    """Every weight has a normal of its own, beside the σ of factorised noise."""

    def is_on(self) -> bool:
        return True

    def reset_noise(self) -> None:
        self.weight_epsilon.normal_()
        self.bias_epsilon.normal_()


class OneKey(KaixhinLike):
    """Every layer, and both factors of each, draw from one key, split for each call."""

    calls = 0

    def is_on(self) -> bool:
        return True

    def reset_noise(self) -> None:
        q, p = self.weight_mu.shape
        OneKey.calls += 1
        # A redraw of a network of three layers has one key.
        key = OneKey.calls // 3

        def draw(size: int) -> Tensor:
            return shaped(size, torch.Generator().manual_seed(key))

        e_i, e_j = draw(p), draw(q)
        self.weight_epsilon.copy_(torch.outer(e_j, e_i))
        self.bias_epsilon.copy_(e_j)


class Cached(nn.Module):
    """Noise is drawn at the first call and kept for the whole run, in a plain attribute."""

    def __init__(self, p: int, q: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(p)
        self.mu = nn.Parameter(torch.empty(q, p).uniform_(-bound, bound))
        self.sigma = nn.Parameter(torch.full((q, p), 0.1 / math.sqrt(p)))
        self.mu_b = nn.Parameter(torch.empty(q).uniform_(-bound, bound))
        self.sigma_b = nn.Parameter(torch.full((q,), 0.1 / math.sqrt(p)))
        self.noise: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.noise is None:
            self.noise = shaped(self.mu.shape[0]), shaped(self.mu.shape[1])
        e_j, e_i = self.noise
        weight = self.mu + self.sigma * torch.outer(e_j, e_i)
        return functional.linear(x, weight, self.mu_b + self.sigma_b * e_j)


class BookLike(nn.Linear):
    """Buffers filled through `.data` at every forward: autograd does not see them change."""

    def __init__(self, p: int, q: int) -> None:
        super().__init__(p, q)
        self.sigma_weight = nn.Parameter(torch.full((q, p), 0.017))
        self.sigma_bias = nn.Parameter(torch.full((q,), 0.017))
        self.register_buffer("epsilon_weight", torch.zeros(q, p), persistent=False)
        self.register_buffer("epsilon_bias", torch.zeros(q), persistent=False)
        nn.init.uniform_(self.weight, -math.sqrt(3 / p), math.sqrt(3 / p))
        nn.init.uniform_(self.bias, -math.sqrt(3 / p), math.sqrt(3 / p))

    def forward(self, x: Tensor) -> Tensor:
        self.epsilon_weight.data.normal_()
        self.epsilon_bias.data.normal_()
        weight = self.weight + self.sigma_weight * self.epsilon_weight
        return functional.linear(x, weight, self.bias + self.sigma_bias * self.epsilon_bias)


class PFRLLike(nn.Module):
    """Two plain layers inside; noise at every forward, without a switch."""

    def __init__(self, p: int, q: int) -> None:
        super().__init__()
        self.mu, self.sigma = nn.Linear(p, q), nn.Linear(p, q)
        nn.init.constant_(self.sigma.weight, 0.4 / math.sqrt(p))
        nn.init.constant_(self.sigma.bias, 0.4 / math.sqrt(q))

    def forward(self, x: Tensor) -> Tensor:
        e_i, e_j = shaped(x.shape[-1]), shaped(self.mu.out_features)
        weight = self.mu.weight + self.sigma.weight * torch.outer(e_j, e_i)
        return functional.linear(x, weight, self.mu.bias + self.sigma.bias * e_j)


class DrawnOnCpu(PFRLLike):
    """Normals are made on the CPU, and copied to where the weights lie."""

    def forward(self, x: Tensor) -> Tensor:
        device = self.mu.weight.device
        e_i = torch.randn(self.mu.in_features).to(device)
        e_j = torch.randn(self.mu.out_features).to(device)
        weight = self.mu.weight + self.sigma.weight * torch.outer(e_j, e_i)
        return functional.linear(x, weight, self.mu.bias + self.sigma.bias * e_j)


class QNetWithAnIgnoredOption(nn.Sequential):
    """Takes `noisy=True` and builds plain layers."""

    def __init__(self, noisy: bool = False) -> None:
        super().__init__(nn.Linear(P, H), nn.ReLU(), nn.Linear(H, A))
        self.noisy = noisy


def net(layer: Any) -> nn.Sequential:
    """Build a Q-network of three layers of one kind, as many as `OneKey` counts on."""
    return nn.Sequential(layer(P, H), nn.ReLU(), layer(H, H), nn.ReLU(), layer(H, A))
