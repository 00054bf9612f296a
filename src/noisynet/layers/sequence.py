"""How a noisy recurrent layer takes whole sequences: by PyTorch's kernel, or step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .initial import InitName
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
    """A noisy recurrent layer over whole sequences: what they share.

    A subclass is also an `nn.LSTM`, an `nn.GRU` or an `nn.RNN`.
    """

    gates: ClassVar[int]

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
    def from_rnn(
        cls,
        rnn: nn.RNNBase,
        *,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        init: InitName = "paper",
        learned: bool = True,
    ) -> Self:
        """Make a noisy layer whose means are the very Parameters of `rnn`; σ is new.

        σ requires grad if it is `learned`, even where the means are frozen. Raises TypeError for a
        layer of another kind, and ValueError for an unknown option or a layer that cannot become
        noisy.
        """
        return cls.from_plain(rnn, noise=noise, sigma0=sigma0, init=init, learned=learned)

    @property
    def _step(self) -> Step:
        raise NotImplementedError

    @property
    def noise_reference(self) -> Tensor:
        """Return a weight's σ, whose device and dtype the noise has."""
        return self.weight_ih_l0_sigma

    def weight_names(self) -> tuple[tuple[str, str], ...]:
        """Return the names of each weight and its bias.

        Layer by layer, forwards and then in reverse: of the input, of the state, and of the output
        where there is a projection, which has no bias.
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
        found: list[Weights] = []
        for weight, bias in self.weight_names():
            mean, sigma = getattr(self, weight), getattr(self, f"{weight}_sigma")
            if self.bias and not bias.startswith("bias_hr"):
                of_bias = getattr(self, bias), getattr(self, f"{bias}_sigma")
            else:
                of_bias = None, None
            found.append(Weights(mean, of_bias[0], sigma, of_bias[1]))
        return tuple(found)

    def noise_spec(self) -> SequenceSpec:
        """Return what one draw of this layer consists of."""
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
        """Return the weights and biases that the draw in force makes, by name.

        They have the names and shapes of the means, so `torch.func.functional_call` puts them into
        the plain layer; with one draw per row, rows are in front. A fresh layer makes a new draw
        for this call; with the noise off these are the means themselves.
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
        """Apply the layer to whole sequences from the state `hx`; return the output and its state.

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
        """Return the number of sequences; None for one alone, without a dimension of the batch."""
        if isinstance(input, PackedSequence):
            return int(input.batch_sizes[0])
        return input.shape[0 if self.batch_first else 1] if input.ndim == 3 else None

    def _fused(self, noise: SequenceNoise, input: Input, hx: Any) -> tuple[Input, Any]:
        """Let PyTorch's own forward run on the weights that a shared draw makes."""
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
        """Return a plain layer for one call that has these weights, in PyTorch's order.

        They are never put into this layer: other threads may be in its forward.
        """
        call = self.plain.__new__(self.plain)
        call.__dict__.update(self.__dict__)
        # Without names, PyTorch does not look whether its Parameters have changed.
        call.__dict__.update(_flat_weights=flat, _flat_weights_names=[], _flat_weight_refs=[])
        return call

    def _is_step_for_two_products(self, input: Input, noise: SequenceNoise) -> bool:
        """Return whether a shared draw is cheaper by μ and σ in a product each.

        So it is where a policy acts, a step for a few rows at a time: to build the noisy weights
        costs more than to use them once.
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
        """Apply the layer step by step: for a draw for each row of the batch, or a single step."""
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
            # The rows are this layer's own batch, wherever those of other layers are.
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
        """Return a state as the plain layer has it."""
        return state[0]


def _packed_like(packed: PackedSequence, output: Tensor) -> PackedSequence:
    """Pack (T, batch, features), in the order of the batch, as the input was packed."""
    order = packed.sorted_indices
    ordered = output if order is None else output.index_select(1, order)
    counts = packed.batch_sizes.tolist()
    lengths = [sum(row < count for count in counts) for row in range(counts[0])]
    data = pack_padded_sequence(ordered, torch.tensor(lengths)).data
    return PackedSequence(data, packed.batch_sizes, order, packed.unsorted_indices)
