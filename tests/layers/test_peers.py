"""Checkpoints of other libraries load by name and shape, wholly or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import noisynet

P, Q = 5, 3
Layer = dict[str, Tensor]


def f(x: Tensor) -> Tensor:
    return x.sign() * x.abs().sqrt()


def values(p: int, q: int) -> Layer:
    """What a layer of ours has, under our names."""
    return {
        "weight": torch.randn(q, p),
        "bias": torch.randn(q),
        "weight_sigma": torch.rand(q, p),
        "bias_sigma": torch.rand(q),
    }


def kaixhin(ours: Layer) -> Layer:
    q, p = ours["weight"].shape
    inputs, outputs = f(torch.randn(p)), f(torch.randn(q))
    return {
        "weight_mu": ours["weight"],
        "weight_sigma": ours["weight_sigma"],
        "weight_epsilon": outputs.outer(inputs),
        "bias_mu": ours["bias"],
        "bias_sigma": ours["bias_sigma"],
        "bias_epsilon": outputs,
    }


def cleanrl(ours: Layer) -> Layer:
    layer = kaixhin(ours)
    return layer | {
        "weight_epsilon": torch.randn_like(layer["weight_epsilon"]),
        "bias_epsilon": torch.randn_like(layer["bias_epsilon"]),
    }


def tianshou(ours: Layer) -> Layer:
    q, p = ours["weight"].shape
    return {
        "mu_W": ours["weight"],
        "sigma_W": ours["weight_sigma"],
        "mu_bias": ours["bias"],
        "sigma_bias": ours["bias_sigma"],
        "eps_p": f(torch.randn(p)),
        "eps_q": f(torch.randn(q)),
    }


def pfrl(ours: Layer) -> Layer:
    return {
        "mu.weight": ours["weight"],
        "mu.bias": ours["bias"],
        "sigma.weight": ours["weight_sigma"],
        "sigma.bias": ours["bias_sigma"],
    }


def book(ours: Layer) -> Layer:
    q, p = ours["weight"].shape
    return {
        "weight": ours["weight"],
        "bias": ours["bias"],
        "sigma_weight": ours["weight_sigma"],
        "sigma_bias": ours["bias_sigma"],
        "epsilon_input": torch.randn(1, p),
        "epsilon_output": torch.randn(q, 1),
    }


def book_independent(ours: Layer) -> Layer:
    layer = book(ours)
    del layer["epsilon_input"], layer["epsilon_output"]
    return layer | {
        "epsilon_weight": torch.randn_like(ours["weight"]),
        "epsilon_bias": torch.randn_like(ours["bias"]),
    }


Peer = Callable[[Layer], Layer]
FACTORISED: dict[str, Peer] = {
    "kaixhin": kaixhin,
    "torchrl": kaixhin,
    "tianshou": tianshou,
    "pfrl": pfrl,
    "book": book,
    "ptan": book,
}
INDEPENDENT: dict[str, Peer] = {
    "cleanrl": cleanrl,
    "book": book_independent,
    "ptan": book_independent,
}
ALL = [(name, "factorised", peer) for name, peer in FACTORISED.items()] + [
    (name, "independent", peer) for name, peer in INDEPENDENT.items()
]
LAYOUTS = [("factorised", peer) for peer in (kaixhin, tianshou, pfrl, book)] + [
    ("independent", peer) for peer in (cleanrl, book_independent)
]


def without_bias(layer: Layer) -> Layer:
    return {name: tensor for name, tensor in layer.items() if "bias" not in name}


def under(prefix: str, layer: Layer) -> Layer:
    return {f"{prefix}.{name}": tensor for name, tensor in layer.items()}


def network(noise: str = "factorised") -> nn.Sequential:
    """A convolution, a plain layer and a noisy one: 2 → 4 → 5 → 3."""
    return nn.Sequential(
        nn.Conv1d(2, 4, 1),
        nn.BatchNorm1d(4),
        nn.Linear(4, P),
        noisynet.NoisyLinear(P, Q, noise=noise),
    )


def checkpoint(net: nn.Sequential, peer: Peer) -> tuple[Layer, Layer]:
    """New values for all of `network`, and the same with its noisy layer as a peer names it."""
    plain = {
        name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor + 7
        for name, tensor in net.state_dict().items()
        if not name.startswith("3.")
    }
    ours = values(P, Q)
    return plain | under("3", ours), plain | under("3", peer(ours))


def assert_same(state: Layer, expected: Layer) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def copied(net: nn.Module) -> Layer:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("insist", [False, True])
@pytest.mark.parametrize(("name", "noise", "peer"), ALL)
def test_every_layout_loads(name: str, noise: str, peer: Peer, insist: bool) -> None:
    net = network(noise)
    expected, theirs = checkpoint(net, peer)
    result = noisynet.load_peer_state_dict(net, theirs, peer=name if insist else None)
    assert_same(copied(net), expected)
    assert result.missing_keys == []
    assert result.unexpected_keys == []


@settings(max_examples=30)
@given(
    known=st.sampled_from(ALL),
    inputs=st.integers(1, 6),
    outputs=st.integers(1, 6),
    bias=st.booleans(),
    path=st.sampled_from(["", "head", "a.b.0"]),
    seed=st.integers(0, 2**16),
)
def test_any_size_and_path_loads_with_and_without_bias(
    known: tuple[str, str, Peer], inputs: int, outputs: int, bias: bool, path: str, seed: int
) -> None:
    torch.manual_seed(seed)
    # The peer is named: ε of a few numbers can look factorised by chance.
    name, noise, peer = known
    layer = noisynet.NoisyLinear(inputs, outputs, bias=bias, noise=noise)
    module: nn.Module = layer
    for part in reversed(path.split(".") if path else []):
        module = nn.ModuleDict({part: module})
    ours = values(inputs, outputs)
    theirs = peer(ours)
    if not bias:
        ours, theirs = without_bias(ours), without_bias(theirs)
    noisynet.load_peer_state_dict(module, under(path, theirs) if path else theirs, peer=name)
    assert_same(copied(layer), ours)


def test_layers_of_several_libraries_load_together() -> None:
    net = nn.Sequential(*(noisynet.NoisyLinear(P, Q) for _ in LAYOUTS[:4]))
    expected: Layer = {}
    theirs: Layer = {}
    for number, (_, peer) in enumerate(LAYOUTS[:4]):
        ours = values(P, Q)
        expected |= under(str(number), ours)
        theirs |= under(str(number), peer(ours))
    noisynet.load_peer_state_dict(net, theirs)
    assert_same(copied(net), expected)


def test_a_shared_layer_stays_shared() -> None:
    layer = noisynet.NoisyLinear(P, P)
    net = nn.ModuleDict({"a": layer, "b": layer})
    ours = values(P, P)
    noisynet.load_peer_state_dict(net, under("a", tianshou(ours)) | under("b", tianshou(ours)))
    assert net["a"] is net["b"]
    assert_same(copied(layer), ours)


def test_the_dtype_is_the_modules() -> None:
    layer = noisynet.NoisyLinear(P, Q, dtype=torch.float64)
    ours = values(P, Q)
    noisynet.load_peer_state_dict(layer, pfrl(ours))
    assert layer.weight.dtype == torch.float64
    assert torch.equal(layer.weight, ours["weight"].double())


def test_parameters_stay_the_same_objects_and_the_held_draw_stays() -> None:
    net = network()
    noisynet.hold(net)
    held = noisynet.held(net)
    assert held is not None
    former = list(net.parameters())
    noisynet.load_peer_state_dict(net, checkpoint(net, kaixhin)[1])
    assert all(now is then for now, then in zip(net.parameters(), former, strict=True))
    now = noisynet.held(net)
    assert now is not None
    assert torch.equal(now.flats[0], held.flats[0])


# What is wrong is said in one line, and nothing is loaded.


def refused(net: nn.Module, theirs: Layer, message: str, **options: object) -> None:
    former = copied(net)
    with pytest.raises(ValueError, match=message) as caught:
        noisynet.load_peer_state_dict(net, theirs, **options)
    assert "\n" not in str(caught.value)
    assert_same(copied(net), former)


@pytest.mark.parametrize(("noise", "peer"), LAYOUTS)
@pytest.mark.parametrize("strict", [True, False])
def test_noise_of_the_other_kind_is_refused(noise: str, peer: Peer, strict: bool) -> None:
    other = "independent" if noise == "factorised" else "factorised"
    net = network(other)
    theirs = checkpoint(net, peer)[1]
    refused(net, theirs, f"'3': got {noise} noise, .* expected {other} noise", strict=strict)


def test_the_peer_decides_where_noise_was_averaged() -> None:
    # The mean of two factorised draws, as a blended target network has it, has rank 2.
    net = network()
    expected, theirs = checkpoint(net, kaixhin)
    _, second = checkpoint(net, kaixhin)
    for name in ("3.weight_epsilon", "3.bias_epsilon"):
        theirs[name] = (theirs[name] + second[name]) / 2
    refused(net, theirs, "if that ε is an average of factorised ones, say peer='torchrl'")
    noisynet.load_peer_state_dict(net, theirs, peer="torchrl")
    assert_same(copied(net), expected)


def test_a_bias_with_noise_of_its_own_is_refused_unless_the_peer_is_named() -> None:
    net = network()
    expected, theirs = checkpoint(net, kaixhin)
    theirs["3.bias_epsilon"] = f(torch.randn(Q))
    refused(net, theirs, "'3': got a bias whose noise was drawn apart")
    noisynet.load_peer_state_dict(net, theirs, peer="kaixhin")
    assert_same(copied(net), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rounded_noise_is_still_recognised(dtype: torch.dtype) -> None:
    for peer, noise in ((kaixhin, "factorised"), (cleanrl, "independent")):
        layer = noisynet.NoisyLinear(40, 30, noise=noise)
        theirs = {name: tensor.to(dtype) for name, tensor in peer(values(40, 30)).items()}
        noisynet.load_peer_state_dict(layer, theirs)
        assert torch.equal(layer.weight_sigma, theirs["weight_sigma"].float())


@pytest.mark.parametrize("noise", ["factorised", "independent"])
def test_one_output_tells_no_kind_and_fits_both(noise: str) -> None:
    layer = noisynet.NoisyLinear(P, 1, noise=noise)
    ours = values(P, 1)
    noisynet.load_peer_state_dict(layer, cleanrl(ours))
    assert_same(copied(layer), ours)


@pytest.mark.parametrize("epsilon", [None, 0.0, float("nan")])
def test_without_telling_noise_the_names_count(epsilon: float | None) -> None:
    ours = values(P, Q)
    theirs = kaixhin(ours)
    for name in ("weight_epsilon", "bias_epsilon"):
        if epsilon is None:
            del theirs[name]
        else:
            theirs[name].fill_(epsilon)
    layer = noisynet.NoisyLinear(P, Q)
    noisynet.load_peer_state_dict(layer, theirs)
    assert_same(copied(layer), ours)


@pytest.mark.parametrize(("noise", "peer"), LAYOUTS)
@pytest.mark.parametrize("part", ["bias_sigma", "weight", "bias"])
def test_a_missing_tensor_is_named(noise: str, peer: Peer, part: str) -> None:
    net = network(noise)
    expected, theirs = checkpoint(net, peer)
    gone = next(name for name, tensor in theirs.items() if tensor is expected[f"3.{part}"])
    del theirs[gone]
    # Without its mean weight, a layer is none of that library's; the book's mark is σ.
    marks = {"3.weight_mu", "3.mu_W", "3.mu.weight"}
    wanted = "got no noisy layer" if gone in marks else f"got nothing for '3.{part}', expected"
    refused(net, theirs, wanted)


@pytest.mark.parametrize(("noise", "peer"), LAYOUTS)
def test_a_missing_plain_tensor_is_named(noise: str, peer: Peer) -> None:
    net = network(noise)
    theirs = checkpoint(net, peer)[1]
    del theirs["0.weight"], theirs["1.running_mean"]
    refused(net, theirs, "got nothing for '0.weight', '1.running_mean'")


@pytest.mark.parametrize("extra", ["3.weight_rho", "9.weight", "2.sigma_weight"])
@pytest.mark.parametrize(("noise", "peer"), LAYOUTS)
def test_an_unknown_tensor_is_named(noise: str, peer: Peer, extra: str) -> None:
    net = network(noise)
    theirs = checkpoint(net, peer)[1] | {extra: torch.zeros(1)}
    refused(net, theirs, f"unknown '{extra}'")


def test_our_own_name_beside_a_peers_is_unknown() -> None:
    net = network()
    theirs = checkpoint(net, tianshou)[1] | {"3.weight": torch.zeros(Q, P)}
    refused(net, theirs, "unknown '3.weight'")


def test_a_bias_that_the_layer_has_not_is_named_as_the_peer_does() -> None:
    layer = noisynet.NoisyLinear(P, Q, bias=False)
    refused(layer, tianshou(values(P, Q)), "unknown 'mu_bias', 'sigma_bias'")


def test_a_noisy_layer_where_the_module_has_a_plain_one_is_unknown() -> None:
    net = nn.Sequential(nn.Linear(P, P), noisynet.NoisyLinear(P, Q))
    theirs = under("0", tianshou(values(P, P))) | under("1", tianshou(values(P, Q)))
    refused(net, theirs, "nothing for '0.weight', '0.bias' and unknown '0.mu_W', '0.sigma_W'")


@pytest.mark.parametrize(("noise", "peer"), LAYOUTS)
@pytest.mark.parametrize("part", ["weight", "bias", "weight_sigma", "bias_sigma"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_wrong_shape_is_named(noise: str, peer: Peer, part: str, strict: bool) -> None:
    net = network(noise)
    expected, theirs = checkpoint(net, peer)
    name = next(name for name, tensor in theirs.items() if tensor is expected[f"3.{part}"])
    theirs[name] = theirs[name].repeat(2, *[1] * (theirs[name].ndim - 1))
    wanted = r"\(3,\)" if part.startswith("bias") else r"\(3, 5\)"
    refused(net, theirs, rf"{name}: got shape \(6,.*\), expected {wanted}", strict=strict)


def test_a_transposed_weight_is_a_wrong_shape() -> None:
    theirs = tianshou(values(P, Q))
    theirs["mu_W"] = theirs["mu_W"].mT
    refused(noisynet.NoisyLinear(P, Q), theirs, r"mu_W: got shape \(5, 3\), expected \(3, 5\)")


def test_what_is_no_tensor_is_refused() -> None:
    theirs = pfrl(values(P, Q)) | {"mu.bias": [1.0, 2.0, 3.0]}
    refused(noisynet.NoisyLinear(P, Q), theirs, "mu.bias: got list, expected a tensor")


def test_a_tensor_without_data_is_refused() -> None:
    net = network()
    theirs = checkpoint(net, pfrl)[1]
    theirs["3.sigma.bias"] = theirs["3.sigma.bias"].to("meta")
    refused(net, theirs, "3.sigma.bias: got a tensor without data")
    theirs = checkpoint(net, pfrl)[1]
    with pytest.raises(ValueError, match=r"^3\.weight: is on meta, which keeps no values: module"):
        noisynet.load_peer_state_dict(net.to("meta"), theirs)


def test_what_has_no_tensors_by_name_is_refused() -> None:
    for wrong in ("model.pt", nn.Linear(P, Q)):
        with pytest.raises(TypeError, match=rf"^state_dict: got {type(wrong).__name__}, expected"):
            noisynet.load_peer_state_dict(network(), wrong)  # pyright: ignore[reportArgumentType]


def plain_checkpoint(ours: Layer) -> Layer:
    return {"weight": ours["weight"], "bias": ours["bias"]}


@pytest.mark.parametrize(
    "theirs",
    [
        {},
        {"model": torch.zeros(1)},
        under("3", values(P, Q)),
        under("3", plain_checkpoint(values(P, Q))),
    ],
    ids=["empty", "nested", "our own", "plain"],
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_without_noisy_layers_is_refused(theirs: Layer, strict: bool) -> None:
    refused(network(), theirs, "state_dict: got no noisy layer of .* at '3'", strict=strict)


def test_another_peer_than_the_named_one_is_refused() -> None:
    net = network()
    refused(net, checkpoint(net, tianshou)[1], "got no noisy layer of pfrl at '3'", peer="pfrl")


def test_an_unknown_peer_is_refused() -> None:
    net = network()
    message = "peer: got 'rllib', expected one of book, cleanrl, kaixhin, pfrl, ptan, tianshou"
    refused(net, checkpoint(net, tianshou)[1], message, peer="rllib")


def test_a_module_without_noisy_layers_is_refused() -> None:
    message = "Linear has no noisy linear layer; noisynet.noisify"
    refused(nn.Linear(P, Q), kaixhin(values(P, Q)), message)


def test_the_books_layer_without_epsilon_is_not_guessed() -> None:
    theirs = book(values(P, Q))
    del theirs["epsilon_input"], theirs["epsilon_output"]
    refused(noisynet.NoisyLinear(P, Q), theirs, "got no noisy layer of book at ''", peer="book")


def test_without_strict_the_rest_is_loaded_and_told() -> None:
    net = network()
    expected, theirs = checkpoint(net, kaixhin)
    former = copied(net)
    del theirs["3.bias_sigma"], theirs["2.bias"]
    theirs |= {"3.weight_rho": torch.zeros(1), "value.weight": torch.zeros(1)}
    result = noisynet.load_peer_state_dict(net, theirs, strict=False)
    kept = ("3.bias_sigma", "2.bias")
    assert sorted(result.missing_keys) == sorted(kept)
    assert sorted(result.unexpected_keys) == ["3.weight_rho", "value.weight"]
    assert_same(copied(net), expected | {name: former[name] for name in kept})


def test_without_strict_a_plain_layers_means_load_into_a_noisy_one() -> None:
    net = nn.Sequential(noisynet.NoisyLinear(P, P), noisynet.NoisyLinear(P, Q))
    first, second = values(P, P), values(P, Q)
    former = copied(net)
    theirs = under("0", plain_checkpoint(first)) | under("1", pfrl(second))
    refused(net, theirs, "got nothing for '0.weight_sigma', '0.bias_sigma', expected")
    noisynet.load_peer_state_dict(net, theirs, strict=False)
    kept = {name: former[name] for name in ("0.weight_sigma", "0.bias_sigma")}
    assert_same(copied(net), under("0", plain_checkpoint(first)) | kept | under("1", second))


def test_long_lists_are_shortened() -> None:
    net = network()
    theirs = checkpoint(net, pfrl)[1] | {f"old.{number}": torch.zeros(1) for number in range(9)}
    refused(net, theirs, "unknown 'old.0', .*'old.5' and 3 more, expected")


# BTR (VIPTankz/Wii-RL, BTR.py): Kaixhin's names, beside torch's spectral norm and a stream twice.


class _Streams(nn.Module):
    def __init__(self, value: nn.Module, advantage: nn.Module) -> None:
        super().__init__()
        self.value_branch = value
        self.advantage_branch = advantage


class _Btr(nn.Module):
    """The names of BTR's network, with noisy layers of a kind to choose and small ones."""

    def __init__(self, noisy: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        spectral_norm = nn.utils.parametrizations.spectral_norm
        self.register_buffer("pis", torch.arange(4.0).view(1, 1, 4))
        self.conv = nn.Sequential(spectral_norm(nn.Conv2d(2, 2, 3)), nn.ReLU())
        self.cos_embedding = nn.Linear(4, P)
        for name, outputs in (("V", 1), ("A", Q)):
            stream = nn.Sequential()
            stream.add_module(f"fc1{name}", noisy(P, 6))
            stream.add_module(f"LN_{name}", nn.LayerNorm(6))
            stream.add_module(f"act{name}", nn.ReLU())
            stream.add_module(f"fc2{name}", noisy(6, outputs))
            setattr(self, f"linear_layers{name}", stream)
        self.linear_layers = _Streams(self.linear_layersV, self.linear_layersA)


class _KaixhinLayer(nn.Module):
    """A layer that has Kaixhin's tensors, ε in buffers; after `disable_noise` it is all zeros."""

    def __init__(self, inputs: int, outputs: int, *, disabled: bool) -> None:
        super().__init__()
        for name, tensor in kaixhin(values(inputs, outputs)).items():
            if "epsilon" in name:
                self.register_buffer(name, tensor * (not disabled))
            else:
                self.register_parameter(name, nn.Parameter(tensor))


@pytest.mark.parametrize("disabled", [False, True])
def test_btr_s_checkpoints_load(disabled: bool) -> None:
    theirs = _Btr(lambda inputs, outputs: _KaixhinLayer(inputs, outputs, disabled=disabled))
    ours = _Btr(noisynet.NoisyLinear)
    noisynet.hold(ours, rows=2)
    before = noisynet.held(ours)
    result = noisynet.load_peer_state_dict(ours, theirs.state_dict())
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    renamed = {"weight": "weight_mu", "bias": "bias_mu"}
    loaded, checkpoint = ours.state_dict(), theirs.state_dict()
    for name, tensor in loaded.items():
        path, _, last = name.rpartition(".")
        noisy = "fc" in path.rpartition(".")[2]
        wanted = checkpoint[f"{path}.{renamed.get(last, last)}" if noisy else name]
        assert torch.equal(tensor, wanted), name
    assert {"conv.0.parametrizations.weight.0._u", "linear_layers.value_branch.fc1V.weight"} <= {
        *loaded
    }
    # The draw in force stays: theirs was a buffer, which every copy of the weights brought along.
    after = noisynet.held(ours)
    assert before is not None
    assert after is not None
    assert all(map(torch.equal, before.flats, after.flats))
