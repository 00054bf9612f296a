"""Noisy multi-head attention, with noise in the query, key, value and output projections.

PyTorch's own attention takes one weight for the whole batch, but a draw per row makes a weight for
each row, so the attention between the projections is implemented here again.
"""

from __future__ import annotations

from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from .functional import apply_linear, check_features
from .initial import InitName, NoiseOptions
from .layer import NoisyLayer, check_bias, check_sizes
from .linear import NoisyLinear
from .noise import LinearNoise, NoiseKind, NoiseName, NoiseSpec, SequenceSpec
from .weights import Weights

Effective = tuple[Tensor, Tensor | None]


class NoisyOutProjection(NoisyLinear, NonDynamicallyQuantizableLinear):
    """The noisy output projection of attention, which is also of torch's own class for it."""

    plain = NonDynamicallyQuantizableLinear


class NoisyMultiheadAttention(NoisyLayer, nn.MultiheadAttention):
    """Multi-head attention whose four projections are noisy (arXiv 1706.10295, eq. 9, for each).

    It is an `nn.MultiheadAttention` and takes the same arguments. The means μ are `in_proj_weight`
    (3E, E), or `q_proj_weight` (E, E), `k_proj_weight` (E, kdim) and `v_proj_weight` (E, vdim), and
    `in_proj_bias` (3E,); `in_proj_weight_sigma` and so on are learned beside them. `out_proj` is a
    `NoisyLinear`. `bias_k` and `bias_v` are tokens rather than weights, and have no noise. A plain
    layer's checkpoint loads with `strict=False`.

    Query, key and value have separate draws, whether their weights are packed or not; p is each
    projection's own number of inputs. Options and states of the noise are those of
    `noisynet.NoisyLinear`. With one draw per row, each sequence of the batch is a row: call `hold`
    with the same `batch_first` as this layer has; otherwise the forward raises ValueError. Noise
    that is fresh per row without `batch_first` differs for each vector, as in a linear layer.

    Inputs, masks and outputs are those of `nn.MultiheadAttention`. Its fast path for inference and
    nested tensors work only while the noise is off. Raises ValueError for an unknown option and for
    an input that does not fit.
    """

    plain, out_layer = nn.MultiheadAttention, NoisyOutProjection
    without_sigma = frozenset({"bias_k", "bias_v"})

    in_proj_weight: Tensor | None
    in_proj_weight_sigma: Tensor | None
    in_proj_bias: Tensor | None
    in_proj_bias_sigma: Tensor | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "kdim": kdim, "vdim": vdim}
        check_sizes(**{name: size for name, size in sizes.items() if size is not None})
        check_bias(bias)
        if embed_dim % num_heads:
            raise ValueError(f"num_heads: got {num_heads}, expected a divisor of {embed_dim}")
        arguments = (embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim)
        options: Any = {"noise": noise, "sigma0": sigma0, "init": init, "learned": learned}
        super().__init__(*arguments, batch_first, device=device, dtype=dtype, **options)

    @classmethod
    def from_attention(
        cls, attention: nn.MultiheadAttention, **options: Unpack[NoiseOptions]
    ) -> Self:
        """Build a noisy layer that shares the Parameters of `attention` as its means; σ is new.

        `options` are noise, sigma0, init and learned, as in the constructor; σ requires grad if it
        is `learned`, even where the means are frozen. Raises TypeError for a layer of another kind,
        and ValueError for an unknown option or a layer that cannot become noisy.
        """
        return cls.from_plain(attention, **options)

    def _become_noisy(
        self, noise: NoiseKind, sigma0: float | None, init: InitName, learned: bool
    ) -> None:
        super()._become_noisy(noise, sigma0, init, learned)
        self.out_proj = self.out_layer.from_plain(
            self.out_proj, noise=noise, sigma0=sigma0, init=init, learned=learned
        )

    def reset_parameters(self) -> None:
        """Set μ and σ of all projections to new initial values, each with its own p."""
        super().reset_parameters()
        self.out_proj.reset_parameters()
        for token in (self.bias_k, self.bias_v):
            if token is not None:
                nn.init.xavier_normal_(token)

    def reset_sigmas(self) -> None:
        """Set σ of all projections back to its initial value; the means stay."""
        super().reset_sigmas()
        self.out_proj.reset_sigmas()

    @property
    def noise_reference(self) -> Tensor:
        """Return the weight whose device and dtype the noise takes."""
        return self.q_proj_weight if self.in_proj_weight is None else self.in_proj_weight

    def weights(self) -> tuple[Weights, ...]:
        """Return μ and σ of the projections of query, key and value; packed weights as views."""
        pairs = zip(self.means(), self.sigmas(), strict=True)
        return tuple(
            Weights(weight, bias, weight_sigma, bias_sigma)
            for (weight, bias), (weight_sigma, bias_sigma) in pairs
        )

    def means(self) -> list[tuple[Tensor, Tensor | None]]:
        """Return μ of the projections of query, key and value, and their biases."""
        return self._pairs("")

    def sigmas(self) -> list[tuple[Tensor, Tensor | None]]:
        """Return σ of the projections of query, key and value, and of their biases."""
        return self._pairs("_sigma")

    def _pairs(self, which: str) -> list[tuple[Tensor, Tensor | None]]:
        packed = getattr(self, f"in_proj_weight{which}", None)
        if packed is None:
            weights = [getattr(self, f"{part}_proj_weight{which}") for part in "qkv"]
        else:
            weights = self._thirds(packed)
        bias: Tensor | None = getattr(self, f"in_proj_bias{which}")
        return list(zip(weights, [None] * 3 if bias is None else self._thirds(bias), strict=True))

    def _thirds(self, packed: Tensor) -> list[Tensor]:
        size = self.embed_dim
        return [packed[n * size : (n + 1) * size] for n in range(3)]

    def noise_spec(self) -> SequenceSpec:
        """Return the spec of the noise of query, key and value: its kind and sizes."""
        bias, size = self.in_proj_bias is not None, self.embed_dim
        inputs = (size, self.kdim, self.vdim)
        parts = (NoiseSpec(self.noise, one, size, bias) for one in inputs)
        return SequenceSpec(self.noise, tuple(parts))

    def effective_weight(self) -> tuple[Effective, ...]:
        """Return the (weight, bias) of query, key and value under the draw in force.

        Shapes (E, p) and (E,), with a leading dimension of rows for one draw per row. A fresh layer
        makes a new draw for this call; with the noise off these are the means. `out_proj` has its
        own `effective_weight`.
        """
        noise = self.noise_in_force()
        if noise is None:
            return tuple((one.weight, one.bias) for one in self.weights())
        pairs = zip(self.weights(), noise.parts, strict=True)
        return tuple(weights.under(part) for weights, part in pairs)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from a query (N, L, E) to key and value; return (N, L, E) and attention weights.

        Shapes are (L, N, E) without `batch_first`, and (L, E) without a batch dimension; masks and
        options are those of `nn.MultiheadAttention`.
        """
        if self.is_off and self.out_proj.is_off:
            return super().forward(
                query,
                key,
                value,
                key_padding_mask=key_padding_mask,
                need_weights=need_weights,
                attn_mask=attn_mask,
                average_attn_weights=average_attn_weights,
                is_causal=is_causal,
            )
        if is_causal and attn_mask is None:
            raise ValueError("attn_mask: got None with is_causal, expected the causal mask as well")
        batch = 0 if self.batch_first else 1
        is_batched = query.ndim == 3
        inputs = self._checked((query, key, value), batch)
        projected = map(_project, inputs, self.weights(), self._noise_for(inputs))
        q, k, v = (self._by_head(one) for one in projected)
        k, v = self._with_tokens(k, self.bias_k), self._with_tokens(v, self.bias_v)
        mask = self._mask(attn_mask, key_padding_mask, q, k)
        output, weights = attend(q, k, v, mask, self.dropout * self.training, need_weights)
        output = output.transpose(1, 2).flatten(-2)
        output = self.out_proj(output if self.batch_first else output.transpose(0, 1))
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if is_batched:
            return output, weights
        return output.squeeze(batch), None if weights is None else weights.squeeze(0)

    def _checked(self, inputs: tuple[Tensor, ...], batch: int) -> list[Tensor]:
        """Return the inputs with a batch dimension; raise ValueError where a shape does not fit."""
        names = zip(("query", "key", "value"), inputs, strict=True)
        sizes = (self.embed_dim, self.kdim, self.vdim)
        for (name, one), size in zip(names, sizes, strict=True):
            if one.is_nested:
                raise ValueError(
                    f"{name}: got a nested tensor, expected a padded one: noise is in force, and "
                    "nested ones are for the fast path (TransformerEncoder: enable_nested_tensor)"
                )
            if one.ndim not in (2, 3) or one.ndim != inputs[0].ndim:
                raise ValueError(
                    f"{name}: got shape {tuple(one.shape)} beside a query "
                    f"{tuple(inputs[0].shape)}, expected 3 dimensions, or 2 without a batch"
                )
            check_features(one, size)
        batched = [one if one.ndim == 3 else one.unsqueeze(batch) for one in inputs]
        query, key, value = (one.shape for one in batched)
        if key[:2] != value[:2] or key[batch] != query[batch]:
            raise ValueError(
                f"key, value: got shapes {tuple(inputs[1].shape)} and {tuple(inputs[2].shape)}, "
                f"expected one length and the query's batch of {query[batch]}"
            )
        return batched

    def _noise_for(self, inputs: list[Tensor]) -> tuple[LinearNoise | None, ...]:
        """Return the noise in force for the projections of query, key and value."""
        state, query_weight = self.noise_state, self.noise_reference
        is_fresh = state.override is None and state.held is None
        if is_fresh and state.per_row and not state.batch_first:
            # One draw for each vector; there may be more keys than queries.
            place: Any = {"device": query_weight.device, "dtype": query_weight.dtype}
            drawn: Any = [
                state.scaled(spec.draw_rows(one.shape[:-1], **place))
                for spec, one in zip(self.noise_spec().parts, inputs, strict=True)
            ]
            return tuple(drawn)
        noise = self.noise_in_force(inputs[0])
        if noise is None:
            return None, None, None
        if noise.rows is not None and noise.parts[0].batch_first != self.batch_first:
            got, expected = "first dimension", "one beside the features"
            if self.batch_first:
                got, expected = expected, got
            raise ValueError(
                f"rows: got noise whose rows are the {got}, expected the {expected}, the batch of "
                f"this attention: hold(net, rows=…, batch_first={self.batch_first})"
            )
        return noise.parts

    def _by_head(self, projected: Tensor) -> Tensor:
        """View (N, L, E), or (L, N, E) without `batch_first`, as (N, heads, L, E / heads)."""
        by_head = projected.unflatten(-1, (self.num_heads, self.head_dim))
        return by_head.transpose(1, 2) if self.batch_first else by_head.permute(1, 2, 0, 3)

    def _with_tokens(self, projected: Tensor, bias: Tensor | None) -> Tensor:
        """Append `bias_k` or `bias_v`, and a token of zeros, where the layer has them."""
        tokens = [projected]
        if bias is not None:
            tokens.append(bias.to(projected.dtype).view(1, self.num_heads, 1, self.head_dim))
        if self.add_zero_attn:
            tokens.append(projected.new_zeros(1, self.num_heads, 1, self.head_dim))
        if len(tokens) == 1:
            return projected
        rows = projected.shape[0]
        return torch.cat([projected, *(one.expand(rows, -1, -1, -1) for one in tokens[1:])], dim=2)

    def _mask(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor, k: Tensor
    ) -> Tensor | None:
        """Return the mask to add to the scores (N, heads, L, S): −∞ where a bool mask is true."""
        added = int(self.bias_k is not None) + int(self.add_zero_attn)
        (rows, heads, length, _), keys = q.shape, k.shape[2] - added
        masks = []
        if attn_mask is not None:
            expected = ((length, keys), (rows * heads, length, keys))
            _check_mask("attn_mask", attn_mask, expected)
            by_head = (rows, heads, length, keys)
            masks.append(attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(by_head))
        if key_padding_mask is not None:
            one_row = ((keys,),) if rows == 1 else ()
            _check_mask("key_padding_mask", key_padding_mask, ((rows, keys), *one_row))
            masks.append(key_padding_mask.reshape(rows, 1, 1, keys))
        if not masks:
            return None
        summed = sum(_as_added(one, q.dtype) for one in masks)
        return functional.pad(summed, (0, added)) if added else summed  # pyright: ignore[reportArgumentType, reportReturnType]


def _project(input: Tensor, weights: Weights, noise: LinearNoise | None) -> Tensor:
    if noise is None:
        return functional.linear(input, weights.weight, weights.bias)
    return apply_linear(input, weights, noise)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, need_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """Return softmax(q kᵀ / √d + mask) v, and with `need_weights` also the attention weights.

    Shapes: q (N, heads, L, d), k and v (N, heads, S, d), mask (…, L, S); returns (N, heads, L, d)
    and (N, heads, L, S) (arXiv 1706.03762, eq. 1).
    """
    if not need_weights:
        return functional.scaled_dot_product_attention(q, k, v, mask, dropout), None
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    weights = (scores if mask is None else scores + mask).softmax(dim=-1)
    weights = functional.dropout(weights, dropout) if dropout > 0 else weights
    return weights @ v, weights


def _check_mask(name: str, mask: Tensor, expected: tuple[tuple[int, ...], ...]) -> None:
    if not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise ValueError(f"{name}: got {mask.dtype}, expected torch.bool or a floating dtype")
    if mask.shape not in expected:
        shapes = " or ".join(map(str, expected))
        raise ValueError(f"{name}: got shape {tuple(mask.shape)}, expected {shapes}")


def _as_added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
    return mask.to(dtype)
