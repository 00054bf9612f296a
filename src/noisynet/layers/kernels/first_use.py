"""The comparison of the kernels with plain operations, on random numbers shaped like a call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..noise import FactorisedNoise
from ..weights import Weights
from . import fused
from .launch import CounterNoise, KernelNoise
from .tracing import autocast_dtype

NAMES = ("y", "∂x", "∂μ_w", "∂μ_b", "∂σ_w", "∂σ_b")

Key = tuple[object, ...]


def key_of(input: Tensor, weights: Weights, noise: KernelNoise) -> Key:
    """Return a key that is equal for calls that the same kernels compute, on the same shapes."""
    weight, dtype = weights.weight, autocast_dtype(input) or input.dtype
    precision = torch.get_float32_matmul_precision()
    place = (weight.device, weight.shape, weight.dtype, weights.bias is None, precision)
    return (*place, dtype, _rows(input), type(noise), noise.rows)


def difference(input: Tensor, weights: Weights, noise: KernelNoise) -> str | None:
    """Return how the kernels differ from plain operations in float32 on such a call, or None.

    None means that they agree. Input, weights, noise and gradient are drawn here, so the caller's
    generators do not advance, and weights that are all zero cannot hide a difference. An error that
    the kernels raise counts as a difference.
    """
    dtype = autocast_dtype(input) or input.dtype
    with torch.inference_mode(False), torch.autocast(input.device.type, enabled=False):
        tensors, drawn, gradient = _like(input, weights, noise)
        in_weights, drawn = weights.weight.dtype, _to(drawn, weights.weight.dtype)
        tensors = [*_cast(tensors[:1], dtype), *_cast(tensors[1:], in_weights)]
        gradient = gradient.to(dtype)
        try:
            got = _derive(fused.apply, tensors, drawn, gradient)
        except Exception as error:  # noqa: BLE001  # whatever a compiler or a driver raises
            return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        # From the same numbers, as they were rounded for the kernels.
        plain = (_cast(tensors, torch.float32), _to(drawn, torch.float32), gradient.float())
        expected = _derive(fused.by_plain_operations, *plain)
    exact = torch.get_float32_matmul_precision() == "highest"
    tolerance = 2.0**-6 if dtype == torch.bfloat16 else 2.0 ** (-10 if exact else -8)
    for name, ours, reference in zip(NAMES, got, expected, strict=True):
        if ours is None or reference is None:
            continue
        error = float((ours.float() - reference).abs().max() / reference.abs().max())
        if not error <= tolerance:
            return f"{name} differs by {error:.1e} of its largest value"
    return None


def _rows(input: Tensor) -> int:
    # For more rows, the kernel only builds the noisy weight, whatever their number.
    return min(input.numel() // input.shape[-1], fused.FUSED_UP_TO + 1)


def _like(
    input: Tensor, weights: Weights, noise: KernelNoise
) -> tuple[list[Tensor | None], KernelNoise, Tensor]:
    """Draw x, weights, noise and a gradient in the shapes of a call, in float32."""
    (outputs, inputs), device = weights.weight.shape, weights.weight.device
    generator = torch.Generator(device).manual_seed(1706_10295)

    def normals(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    batch, scale, has_bias = _rows(input), inputs**-0.5, weights.bias is not None
    of_bias = [normals(outputs) if has_bias else None for _ in range(3)]
    drawn: KernelNoise
    if isinstance(noise, CounterNoise):
        seed = torch.tensor([1706_10295 * 2**33 + 1], device=device)
        drawn = CounterNoise(seed, weights.weight.shape, of_bias[2], torch.float32)
    else:
        rows = noise.rows or ()
        drawn = FactorisedNoise(normals(*rows, inputs), normals(*rows, outputs))
    mean, sigma = normals(outputs, inputs) * scale, normals(outputs, inputs) * scale
    leading = (batch,) if noise.rows is None else tuple(input.shape[:-1])
    tensors = [normals(*leading, inputs), mean, of_bias[0], sigma, of_bias[1]]
    return tensors, drawn, normals(*leading, outputs)


def _cast(tensors: list[Tensor | None], dtype: torch.dtype) -> list[Tensor | None]:
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _to(noise: KernelNoise, dtype: torch.dtype) -> KernelNoise:
    if isinstance(noise, CounterNoise):
        bias = None if noise.bias is None else noise.bias.to(dtype)
        return CounterNoise(noise.seed, noise.shape, bias, torch.float32)
    return FactorisedNoise(noise.input.to(dtype), noise.output.to(dtype))


def _derive(
    form: Callable[[Tensor, Weights, KernelNoise], Tensor],
    tensors: list[Tensor | None],
    noise: KernelNoise,
    gradient: Tensor,
) -> list[Tensor | None]:
    """Return y and the gradients of all tensors, None for those that are None."""
    with torch.enable_grad():
        leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
        given = [leaf for leaf in leaves if leaf is not None]
        y = form(given[0], Weights(*leaves[1:]), noise)  # pyright: ignore[reportArgumentType]
        found = iter(torch.autograd.grad(y, given, gradient.to(y.dtype)))
    return [y.detach(), *(None if leaf is None else next(found) for leaf in leaves)]
