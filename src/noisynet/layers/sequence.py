"""The base of the noisy recurrent layers, which run PyTorch's kernel or go step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .initial import InitName, NoiseOptions
from .kernels import dispatch
from .layer import NoisyLayer, check_bias, check_sizes
from .noise import (
    FactorisedNoise,
    LayerNoise,
    NoiseName,
    NoiseSpec,
    SequenceNoise,
    SequenceSpec,
)
from .unrolled import State, Step, unrolled
from .weights import Weights

Input = Tensor | PackedSequence


class NoisySequence(NoisyLayer):
    """The base of the noisy recurrent layers over whole sequences.

    A subclass is also an `nn.LSTM`, an `nn.GRU` or an `nn.RNN`.
    """

    gates: ClassVar[int]
    _step: Step

    input_size: int
    hidden_size: int
    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    weight_ih_l0: Tensor
    weight_ih_l0_sigma: nn.Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *arguments: Any,
        bias: bool,
        noise: NoiseName,
        sigma0: float | None,
        init: InitName,
        learned: bool = True,
        **options: Any,
    ) -> None:
        """Build the layer with the initial values that `init` names."""
        check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_bias(bias)
        options |= {"bias": bias, "noise": noise, "sigma0": sigma0, "init": init}
        options["learned"] = learned
        super().__init__(input_size, hidden_size, num_layers, *arguments, **options)

    @classmethod
    def from_rnn(cls, rnn: nn.RNNBase, **options: Unpack[NoiseOptions]) -> Self:
        """Build a noisy layer that shares the Parameters of `rnn` as its means; σ is new.

        `options` are noise, sigma0, init and learned, as in the constructor; σ requires grad if it
        is `learned`, even where the means are frozen. Raises TypeError for a layer of another kind,
        and ValueError for an unknown option or a layer that cannot become noisy.
        """
        return cls.from_plain(rnn, **options)

    @property
    def noise_reference(self) -> Tensor:
        """Return the σ of a weight, whose device and dtype the noise takes."""
        return self.weight_ih_l0_sigma

    def weight_names(self) -> tuple[tuple[str, str], ...]:
        """Return the names of each weight and its bias.

        The order is layer by layer, in each the forward direction before the reverse one, and in
        each of these the weight of the input, of the state, and of the projection if there is one.
        A projection has no bias, although one is named.
        """
        names: list[tuple[str, str]] = []
        for layer in range(self.num_layers):
            for suffix in ("", "_reverse") if self.bidirectional else ("",):
                kinds = ("ih", "hh", "hr") if self.proj_size else ("ih", "hh")
                ends = [f"{kind}_l{layer}{suffix}" for kind in kinds]
                names += [(f"weight_{end}", f"bias_{end}") for end in ends]
        return tuple(names)

    def weights(self) -> tuple[Weights, ...]:
        """Return μ and σ of each weight and its bias, in the order of `weight_names`."""
        return tuple(
            Weights(
                getattr(self, weight),
                getattr(self, bias, None),
                getattr(self, f"{weight}_sigma"),
                getattr(self, f"{bias}_sigma", None),
            )
            for weight, bias in self.weight_names()
        )

    def noise_spec(self) -> SequenceSpec:
        """Return the spec of this layer's noise: its kind and sizes."""
        kind, bias = self.noise, bool(self.bias)
        directions = 2 if self.bidirectional else 1
        outputs, state = self.gates * self.hidden_size, self.proj_size or self.hidden_size
        parts: list[NoiseSpec] = []
        for layer in range(self.num_layers):
            inputs = directions * state if layer else self.input_size
            run = [NoiseSpec(kind, inputs, outputs, bias), NoiseSpec(kind, state, outputs, bias)]
            if self.proj_size:
                run.append(NoiseSpec(kind, self.hidden_size, self.proj_size, bias=False))
            parts += run * directions
        return SequenceSpec(kind, tuple(parts))

    def noise_to_keep(self, noise: LayerNoise) -> LayerNoise:
        """Build ε_w of small weights once for all forwards."""
        assert isinstance(noise, SequenceNoise)
        sizes = [getattr(self, weight).numel() for weight, _ in self.weight_names()]
        parts = zip(noise.parts, sizes, strict=True)
        return replace(noise, parts=tuple(dispatch.noise_to_keep(*part) for part in parts))

    def effective_weight(self) -> dict[str, Tensor]:
        """Return the weights and biases under the draw in force, by name.

        They have the names and shapes of the means, so `torch.func.functional_call` can run the
        plain layer with them; with one draw per row, they have a leading dimension of rows. A fresh
        layer makes a new draw for this call; with the noise off these are the means themselves.
        """
        noise = self.noise_in_force()
        if noise is None:
            return {
                name: mean
                for name, mean in self.named_parameters(recurse=False)
                if not name.endswith("_sigma")
            }
        found: dict[str, Tensor] = {}
        for names, weights, part in zip(
            self.weight_names(), self.weights(), noise.parts, strict=True
        ):
            pairs = zip(names, weights.by_factors(part), strict=True)
            found |= {name: tensor for name, tensor in pairs if tensor is not None}
        return found

    def forward(self, input: Input, hx: Any = None) -> tuple[Input, Any]:
        """Apply the layer to whole sequences from the state `hx`; return output and final state.

        Shapes are those of the plain layer.
        """
        batch = self._batch_of(input)
        per_row = self.noise_state.per_row and batch is not None
        like = torch.empty(batch, 1, device="meta") if per_row and batch is not None else None
        noise: SequenceNoise | None = self.noise_in_force(like)
        if noise is None:
            return super().forward(input, hx)
        if noise.rows is None:
            if self._is_step_for_two_products(input, noise):
                return self._by_steps(noise, input, hx)
            return self._fused(noise, input, hx)
        if (batch,) != noise.rows:
            got = f"a batch of {batch}"
            if batch is None and isinstance(input, Tensor):
                got = f"shape {tuple(input.shape)}"
            raise ValueError(
                f"input: got {got}, expected a batch of {noise.rows[0]}: "
                f"the noise in force is one draw for each of {noise.rows[0]} rows"
            )
        return self._by_steps(noise, input, hx)

    def _batch_of(self, input: Input) -> int | None:
        """Return the number of sequences; None for a single one without a batch dimension."""
        if isinstance(input, PackedSequence):
            return int(input.batch_sizes[0])
        return input.shape[0 if self.batch_first else 1] if input.ndim == 3 else None

    def _fused(self, noise: SequenceNoise, input: Input, hx: Any) -> tuple[Input, Any]:
        """Run PyTorch's own forward on the noisy weights of a shared draw."""
        pairs = zip(self.weights(), noise.parts, strict=True)
        made = [weights.by_factors(part) for weights, part in pairs]
        per_run = 3 if self.proj_size else 2
        flat: list[Tensor] = []
        for start in range(0, len(made), per_run):
            both = made[start : start + 2]
            flat += [weight for weight, _ in both]
            flat += [bias for _, bias in both if bias is not None]
            flat += [weight for weight, _ in made[start + 2 : start + per_run]]
        plain: Any = self.plain
        return plain.forward(self._plain_with(flat), input, hx)

    def _plain_with(self, flat: list[Tensor]) -> Any:
        """Return a plain layer for one call with these weights, in PyTorch's order.

        The weights are never put into this layer, since other threads may be in its forward.
        """
        call = self.plain.__new__(self.plain)
        call.__dict__.update(self.__dict__)
        # Without names, PyTorch does not check whether its Parameters have changed.
        call.__dict__.update(_flat_weights=flat, _flat_weights_names=[], _flat_weight_refs=[])
        return call

    def _is_step_for_two_products(self, input: Input, noise: SequenceNoise) -> bool:
        """Return whether a product with μ and one with σ cost less than building the noisy weights.

        This is so when a policy acts, one step for a few rows at a time: building the noisy weights
        costs more than using them once.
        """
        if isinstance(input, PackedSequence) or input.ndim != 3 or input.device.type != "cpu":
            return False
        if input.shape[1 if self.batch_first else 0] != 1:
            return False
        first = Weights(self.weight_ih_l0, None, self.weight_ih_l0_sigma, None)
        return (
            isinstance(noise.parts[0], FactorisedNoise)
            and dispatch.shared_form(input, first) == "two products"
        )

    def _by_steps(self, noise: SequenceNoise, input: Input, hx: Any) -> tuple[Input, Any]:
        """Apply the layer step by step, for one draw per row of the batch or for a single step."""
        padded, active = input, None
        if isinstance(input, PackedSequence):
            # In the order of the batch, as the rows of the noise are.
            padded, lengths = pad_packed_sequence(input, self.batch_first)
            time = torch.arange(int(lengths.max()), device=padded.device)
            active = (time.unsqueeze(1) < lengths.to(padded.device)).unsqueeze(-1)
        assert isinstance(padded, Tensor)
        state = self._initial_state(padded, hx)
        weights = self.weights()
        plain = self._plain_with([weights[0].weight])
        plain.check_forward_args(padded, self._as_hx(state), None)
        output, state = unrolled(
            self._step,
            padded.transpose(0, 1) if self.batch_first else padded,
            state,
            weights,
            # Here the batch is beside the features, whatever the draw says for other layers.
            tuple(replace(part, batch_first=False) for part in noise.parts),
            directions=2 if self.bidirectional else 1,
            dropout=self.dropout if self.training else 0.0,
            active=active,
        )
        if isinstance(input, PackedSequence):
            return _packed_like(input, output), self._as_hx(state)
        return output.transpose(0, 1) if self.batch_first else output, self._as_hx(state)

    def _initial_state(self, input: Tensor, hx: Any) -> State:
        """Return the state to start from, as a tuple; zeros where none is given."""
        if hx is not None:
            return (hx,) if isinstance(hx, Tensor) else tuple(hx)
        runs = self.num_layers * (2 if self.bidirectional else 1)
        rows = input.shape[0 if self.batch_first else 1]
        return (input.new_zeros(runs, rows, self.hidden_size),)

    def _as_hx(self, state: State) -> Any:
        """Return a state in the form that the plain layer uses."""
        return state[0]


def _packed_like(packed: PackedSequence, output: Tensor) -> PackedSequence:
    """Pack (T, batch, features), in the order of the batch, as the input was packed."""
    order = packed.sorted_indices
    ordered = output if order is None else output.index_select(1, order)
    counts = packed.batch_sizes.tolist()
    lengths = [sum(row < count for count in counts) for row in range(counts[0])]
    # As a list: a tensor would be on the default device, which may not be the CPU.
    data = pack_padded_sequence(ordered, lengths).data
    return PackedSequence(data, packed.batch_sizes, order, packed.unsorted_indices)
