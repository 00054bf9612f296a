"""Actor-critic networks: policy logits and values for sequences of observations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..layers import NoisyLSTMCell
from .noise_settings import MakeLinear, NoiseSettings, head_layers, make_torso_noisy
from .own_torso import MakeTorso
from .residual_torso import ImpalaSettings
from .torsos import Torso, flattens_rows, make_torso

CoreState = tuple[Tensor, Tensor]
"""An LSTM's (h, c), each of shape (rows, size)."""


class RecurrentCore(nn.Module):
    """An LSTM over sequences that resets its state where an episode begins.

    The cell may be noisy; hold the noise of the whole network to keep one draw over a sequence. The
    LSTM computes in the precision of its weights, also under autocast.
    """

    def __init__(self, cell: nn.LSTMCell) -> None:
        """Wrap a cell: an `nn.LSTMCell`, or its subclass `NoisyLSTMCell`."""
        super().__init__()
        self.cell = cell

    def initial_state(self, rows: int) -> CoreState:
        """Return a state of zeros for the given number of rows."""
        zeros = self.cell.weight_ih.new_zeros(rows, self.cell.hidden_size)
        return zeros, zeros

    def forward(
        self, features: Tensor, first: Tensor, state: CoreState
    ) -> tuple[Tensor, CoreState]:
        """Return outputs (T, rows, size) and the state after the last step.

        Features (T, rows, p); first (T, rows), booleans, is true where an episode begins.
        """
        outputs: list[Tensor] = []
        with torch.autocast(features.device.type, enabled=False):
            for feature_t, first_t in zip(
                features.to(self.cell.weight_ih.dtype), first, strict=True
            ):
                keep = (~first_t).unsqueeze(-1)
                state = self.cell(feature_t, (state[0] * keep, state[1] * keep))
                outputs.append(state[0])
        return torch.stack(outputs), state


class ActorCriticHead(nn.Module):
    """Policy logits and a value: (…, features) to (…, actions) and (…).

    With noise, both layers are noisy, as are all fully connected layers of NoisyNet-A3C (arXiv
    1706.10295, §3.1). Both compute in the precision of their weights, as the last layer of a
    `Stream` does.
    """

    def __init__(self, features: int, actions: int, linear: MakeLinear) -> None:
        """Build a layer for the policy and one for the value."""
        super().__init__()
        self.policy = linear(features, actions)
        self.value = linear(features, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (…, actions) and values (…)."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(next(self.policy.parameters()).dtype)
            return self.policy(features), self.value(features).squeeze(-1)


class ActorCriticNetwork(nn.Module):
    """A network from sequences of observations to policy logits and values (arXiv 1602.01783, §5).

    It consists of a torso, a fully connected layer with a ReLU, optionally an LSTM, and the head.
    """

    def __init__(
        self,
        torso: Torso,
        hidden: nn.Module,
        core: RecurrentCore | None,
        head: ActorCriticHead,
        *,
        layer_norm: bool = False,
    ) -> None:
        """Join the parts; with `layer_norm`, normalise the output of `hidden` before its ReLU."""
        super().__init__()
        self._layer_norm = layer_norm
        self.torso = torso
        self.hidden = hidden
        self.core = core
        self.head = head
        self._step_by_step = flattens_rows(torso)

    def initial_state(self, rows: int) -> CoreState | None:
        """Return the state at the start of an episode; None without an LSTM."""
        return None if self.core is None else self.core.initial_state(rows)

    def forward(
        self, observation: Tensor, first: Tensor, state: CoreState | None
    ) -> tuple[Tensor, Tensor, CoreState | None]:
        """Return logits (T, rows, actions), values (T, rows) and the state after the last step.

        Observations (T, rows, *shape); first (T, rows), booleans, is true where an episode begins.
        """
        if self._step_by_step:
            features = torch.stack([self.torso(one) for one in observation])
        else:
            features = self.torso(observation)
        features = self.hidden(features)
        if self._layer_norm:
            features = functional.layer_norm(features, features.shape[-1:])
        features = features.relu()
        if self.core is not None:
            assert state is not None, "an LSTM has a state: see initial_state"
            features, state = self.core(features, first, state)
        logits, value = self.head(features)
        return logits, value, state


def build_actor_critic_network(
    observation_shape: Sequence[int],
    actions: int,
    *,
    torso: str | MakeTorso = "auto",
    torso_hidden: Sequence[int] = (),
    impala: ImpalaSettings | None = None,
    head_hidden: int = 512,
    lstm_size: int = 0,
    noise: NoiseSettings | None = None,
    standardise_frames: bool = False,
    layer_norm: bool = False,
    head_layer_norm: bool | None = None,
) -> ActorCriticNetwork:
    """Build an actor-critic network; its initial weights are drawn from torch's default generator.

    Args:
        observation_shape: shape of one observation; see `build_q_network`.
        actions: number of actions.
        torso: name of the torso, or a function that builds your own; see `make_torso`.
        torso_hidden: sizes of the hidden layers of the "mlp" torso, which are plain.
        impala: settings of the "impala" torso; None for the defaults of `ImpalaSettings`.
        head_hidden: size of the fully connected layer after the torso.
        lstm_size: size of the LSTM after that; 0 for none.
        noise: which layers are noisy, and how; None for a plain network.
        standardise_frames: whether the torso standardises frames; see `FramesTorso`.
        layer_norm: whether the torso's layers and the fully connected layer are normalised before
            their ReLUs; a torso of your own stays as it is.
        head_layer_norm: the same for the fully connected layer alone; None for the value of
            `layer_norm`.

    Raises:
        ValueError: no torso has that name, or the torso does not fit the observations.
    """
    body = make_torso(
        torso,
        observation_shape,
        torso_hidden,
        impala=impala,
        standardise_frames=standardise_frames,
        layer_norm=layer_norm,
    )
    linear, hidden_linear = head_layers(noise)
    hidden = hidden_linear(body.features, head_hidden)
    features, core = head_hidden, None
    if lstm_size:
        if noise is not None and noise.where == "all":
            cell = NoisyLSTMCell(features, lstm_size, **noise.options)
        else:
            cell = nn.LSTMCell(features, lstm_size)
        features, core = lstm_size, RecurrentCore(cell)
    head = ActorCriticHead(features, actions, linear)
    make_torso_noisy(body, noise)
    normalised = layer_norm if head_layer_norm is None else head_layer_norm
    return ActorCriticNetwork(body, hidden, core, head, layer_norm=normalised)
