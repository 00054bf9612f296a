"""Nothing that has a weight is left out by `noisify` without a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import noisynet


class Experts(nn.Module):
    """Weights of several products in parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.randn(2, 4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.gate_up


class Embeddings(nn.Module):
    """What vision transformers have beside their layers."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.scale = nn.Parameter(torch.ones(4))


WITH_A_WEIGHT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "conv": (lambda: nn.Conv2d(2, 2, 3), "Conv2d: choose it with where=…"),
    "cell": (lambda: nn.LSTMCell(2, 2), "LSTMCell: choose it with where=…"),
    "bilinear": (lambda: nn.Bilinear(2, 2, 2), "Bilinear: it has no noisy form"),
    "rnn": (lambda: nn.RNNCell(2, 2), "RNNCell: it has no noisy form"),
    "experts": (Experts, "Experts: it has no noisy form"),
}
WITHOUT: dict[str, Callable[[], nn.Module]] = {
    "embedding": lambda: nn.Embedding(3, 4),
    "bag": lambda: nn.EmbeddingBag(3, 4),
    "layer norm": lambda: nn.LayerNorm((3, 4)),
    "rms norm": lambda: nn.RMSNorm((3, 4)),
    "batch norm": lambda: nn.BatchNorm2d(3),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "prelu": lambda: nn.PReLU(4),
    "embeddings": Embeddings,
    "dropout": nn.Dropout,
}


@pytest.mark.parametrize("name", WITH_A_WEIGHT)
def test_a_layer_with_a_weight_is_named(name: str) -> None:
    make, reason = WITH_A_WEIGHT[name]
    net = nn.ModuleDict({"other": make(), "head": nn.Linear(4, 2)})
    with pytest.warns(UserWarning, match="noisify") as caught:
        noisynet.noisify(net)
    assert [str(one.message) for one in caught] == [f"noisify leaves alone: other ({reason})"]
    # The warning names the caller's line, not one inside noisynet.
    assert caught[0].filename == __file__
    assert list(noisynet.noisy_layers(net)) == ["head"]


@pytest.mark.parametrize("name", WITHOUT)
def test_embeddings_and_norms_are_not(name: str) -> None:
    net = noisynet.noisify(nn.ModuleDict({"other": WITHOUT[name](), "head": nn.Linear(4, 2)}))
    assert list(noisynet.noisy_layers(net)) == ["head"]


def test_where_was_not_asked_about_the_others_and_so_nothing_is_said() -> None:
    net = nn.ModuleDict({name: make() for name, (make, _) in WITH_A_WEIGHT.items()})
    net["head"] = nn.Linear(4, 2)
    noisynet.noisify(net, lambda name, _: name in ("head", "conv"))
    assert list(noisynet.noisy_layers(net)) == ["conv", "head"]


def test_a_reason_is_said_once_and_six_names_of_many() -> None:
    net = nn.Sequential(*(nn.Conv1d(2, 2, 1) for _ in range(8)), nn.Bilinear(2, 2, 2))
    net.append(nn.Linear(2, 2))
    with pytest.warns(UserWarning, match="noisify") as caught:
        noisynet.noisify(net)
    (message,) = (str(one.message) for one in caught)
    assert message == (
        "noisify leaves alone: 0, 1, 2, 3, 4, 5 and 2 more (Conv1d: choose it with where=…); "
        "8 (Bilinear: it has no noisy form)"
    )


def test_the_module_itself_may_have_a_weight() -> None:
    net = Experts()
    net.head = nn.Linear(6, 2)
    with pytest.warns(UserWarning, match=r"alone: the module itself \(Experts: it has no noisy"):
        noisynet.noisify(net)


@pytest.mark.parametrize(
    "wrap", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.spectral_norm]
)
def test_a_parametrised_weight_is_named_once(wrap: Callable[[nn.Module], nn.Module]) -> None:
    net = nn.ModuleDict({"bilinear": wrap(nn.Bilinear(3, 3, 3)), "head": nn.Linear(4, 2)})
    with pytest.warns(UserWarning, match=r"leaves alone: bilinear \(\w*Bilinear: it has") as caught:
        noisynet.noisify(net)
    assert len(caught) == 1
    assert str(caught[0].message).count("bilinear") == 1


def test_a_lazy_layer_is_named_before_it_has_a_shape() -> None:
    with warnings.catch_warnings():
        # Older versions of torch say that lazy modules are new.
        warnings.simplefilter("ignore")
        net = nn.ModuleDict({"conv": nn.LazyConv2d(2, 3), "head": nn.Linear(4, 2)})
    with pytest.warns(UserWarning, match=r"alone: conv \(LazyConv2d: it has no shape yet, run"):
        noisynet.noisify(net)


def test_where_nothing_is_converted_the_error_names_what_could_be() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU())
    said = (
        r"^Sequential: nothing to convert: it has no nn\.Linear or nn\.MultiheadAttention that can "
        r"be noisy; noisify leaves alone: 0 \(Conv2d: choose it with where=…\)$"
    )
    with pytest.raises(ValueError, match=said):
        noisynet.noisify(net)
