"""Q-networks: a torso, and a head whose layers carry the noise."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .heads import DistributionalHead, DuelingHead, QHead, Stream
from .noise_settings import NoiseSettings, embedding_layer, head_layers, make_torso_noisy
from .own_torso import MakeTorso
from .quantile_head import QuantileHead
from .residual_torso import ImpalaSettings
from .torsos import Torso, make_torso


class QNetwork(nn.Module):
    """A Q-network: a torso and a head, from observations to Q-values."""

    def __init__(
        self,
        torso: Torso,
        head: QHead | DuelingHead | DistributionalHead | QuantileHead | nn.Identity,
    ) -> None:
        """Join a torso and a head that takes as many features as the torso gives."""
        super().__init__()
        self.torso = torso
        self.head = head

    def forward(self, observation: Tensor) -> Tensor:
        """Return Q-values (…, actions) for observations (…, *observation shape)."""
        return self.head(self.torso(observation))

    def output_layers(self) -> list[nn.Module]:
        """Return the last layer of each stream of the head."""
        return [part[-1] for part in self.head.modules() if isinstance(part, Stream)]

    def logits(self, observation: Tensor) -> Tensor:
        """Return logits (…, actions, atoms); only a distributional head has them."""
        assert isinstance(self.head, DistributionalHead), "the head gives expected values alone"
        return self.head.logits(self.torso(observation))

    def quantiles(self, observation: Tensor, tau: Tensor) -> Tensor:
        """Return quantiles (K, …, actions) at τ (K, …); only a quantile head has them."""
        assert isinstance(self.head, QuantileHead), "the head takes no τ"
        return self.head.quantiles(self.torso(observation), tau)


def build_q_network(
    observation_shape: Sequence[int],
    actions: int,
    *,
    torso: str | MakeTorso = "auto",
    torso_hidden: Sequence[int] = (),
    impala: ImpalaSettings | None = None,
    head_hidden: int = 512,
    dueling: bool = False,
    support: Tensor | None = None,
    quantiles: int = 0,
    cosines: int = 64,
    noise: NoiseSettings | None = None,
    standardise_frames: bool = False,
    layer_norm: bool = False,
    head_layer_norm: bool | None = None,
) -> QNetwork:
    """Build a Q-network; its initial weights are drawn from torch's default generator.

    Args:
        observation_shape: shape of one observation: (size,) for vectors, (stack, height, width) or
            (channels, height, width) for images.
        actions: number of actions.
        torso: name of the torso, or a function that builds your own; see `make_torso`.
        torso_hidden: sizes of the hidden layers of the "mlp" torso, which are plain.
        impala: settings of the "impala" torso; None for the defaults of `ImpalaSettings`.
        head_hidden: size of the head's hidden layer, or of each stream's.
        dueling: whether the head has a value and an advantage stream (arXiv 1511.06581).
        support: values of the atoms (atoms,), in the unit of returns; None for expected values
            alone. For C51: `torch.linspace(-10, 10, 51)` (arXiv 1707.06887).
        quantiles: K, the number of implicit quantiles of which Q is the mean (arXiv 1806.06923); 0
            for none.
        cosines: number of cosines in the embedding of the quantiles' τ.
        noise: which layers are noisy, and how; None for a plain network.
        standardise_frames: whether the torso standardises frames; see `FramesTorso`.
        layer_norm: whether every layer, except the last and the embedding of τ, is normalised
            before its ReLU (arXiv 2407.04811); a torso of your own stays as it is.
        head_layer_norm: the same for the head's hidden layer alone; None for the value of
            `layer_norm`.

    Raises:
        ValueError: no torso has that name, the torso does not fit the observations, or both
            `support` and `quantiles` are given.
    """
    if support is not None and quantiles:
        raise ValueError(
            f"quantiles: got {quantiles} beside {len(support)} atoms, expected 0: a head learns "
            "one or the other"
        )
    body = make_torso(
        torso,
        observation_shape,
        torso_hidden,
        impala=impala,
        standardise_frames=standardise_frames,
        layer_norm=layer_norm,
    )
    linear, hidden_linear = head_layers(noise)
    normalised = layer_norm if head_layer_norm is None else head_layer_norm

    def stream(outputs: int) -> Stream:
        return Stream(
            body.features, head_hidden, outputs, linear, hidden_linear, layer_norm=normalised
        )

    if support is not None:
        head = DistributionalHead(stream, actions, support=support, dueling=dueling)
    elif quantiles:
        head = QuantileHead(
            stream,
            actions,
            body.features,
            dueling=dueling,
            cosines=cosines,
            samples=quantiles,
            embedding=embedding_layer(noise),
        )
    else:
        head = (DuelingHead if dueling else QHead)(stream, actions)
    make_torso_noisy(body, noise)
    return QNetwork(body, head)
