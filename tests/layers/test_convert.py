"""noisify keeps everything that a net has learned and is; denoise goes back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import noisynet
from noisynet.layers import NoisyLayer, NoisyLinear, noisy_linear
from noisynet.layers.noise import NoiseName, NoiseSpec


def plain_net() -> Any:
    return nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    )


def test_sigma_gets_the_initial_value_that_is_asked_for(noise: NoiseName) -> None:
    for sigma0, value in ((None, 0.5 if noise == "factorised" else 0.017), (0.3, 0.3)):
        net: Any = noisynet.noisify(plain_net(), noise=noise, sigma0=sigma0)
        layers: list[Any] = list(noisynet.noisy_layers(net).values())
        for layer in layers:
            scale = math.sqrt(layer.in_features) if noise == "factorised" else 1.0
            expected = torch.tensor(value / scale)
            assert torch.equal(layer.weight_sigma, expected.expand_as(layer.weight))
            if layer.bias_sigma is not None:
                assert torch.equal(layer.bias_sigma, expected.expand_as(layer.bias))
        assert net[2][0].bias_sigma is None


def test_an_existing_optimizer_goes_on_and_takes_the_sigmas() -> None:
    net = plain_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    noisynet.noisify(net)
    optimizer.add_param_group({"params": noisynet.sigma_parameters(net), "weight_decay": 0.0})
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    net(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()
    for name, value in net.named_parameters():
        assert not torch.equal(value, before[name]), name


def test_frozen_means_stay_frozen_and_sigma_learns() -> None:
    net = plain_net().requires_grad_(False)
    noisynet.noisify(net)
    trained = {name for name, value in net.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in net.named_parameters() if name.endswith("_sigma")}
    net(torch.randn(8, 3)).square().sum().backward()
    assert float(net[0].weight_sigma.grad.norm()) > 0
    assert net[0].weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_and_device_are_kept(dtype: torch.dtype) -> None:
    net = noisynet.noisify(plain_net().to(dtype))
    assert {parameter.dtype for parameter in net.parameters()} == {dtype}
    assert net(torch.randn(2, 3, dtype=dtype)).dtype == dtype
    on_meta = noisynet.noisify(plain_net().to("meta"))
    assert all(parameter.is_meta for parameter in on_meta.parameters())


@pytest.mark.parametrize("mode", [True, False])
def test_the_training_flag_is_kept(mode: bool) -> None:
    net = plain_net().train(mode)
    noisynet.noisify(net)
    assert {part.training for part in net.modules()} == {mode}
    noisynet.denoise(net)
    assert {part.training for part in net.modules()} == {mode}


def test_where_chooses_and_is_asked_about_convertible_layers_only() -> None:
    net = nn.ModuleDict({"torso": plain_net(), "noisy": NoisyLinear(2, 2), "norm": nn.LayerNorm(2)})
    asked: dict[str, nn.Module] = {}

    def where(name: str, layer: nn.Module) -> bool:
        asked[name] = layer
        return name == "torso.2.1"

    kept = net["noisy"]
    noisynet.noisify(net, where)
    assert list(asked) == ["torso.0", "torso.2.0", "torso.2.1"]
    assert {type(layer) for layer in asked.values()} == {nn.Linear}
    assert list(noisynet.noisy_layers(net)) == ["torso.2.1", "noisy"]
    assert net["noisy"] is kept


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nn.ReLU, "ReLU: nothing to convert: it has no nn.Linear or nn.MultiheadAttention that"),
        (lambda: NoisyLinear(2, 2), "NoisyLinear: nothing to convert: it has no nn.Linear"),
    ],
)
def test_nothing_to_convert_is_an_error(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        noisynet.noisify(make())


def test_a_where_that_chooses_nothing_is_an_error() -> None:
    net = plain_net()
    with pytest.raises(ValueError, match=r"where chose none of '0', '2\.0', '2\.1'"):
        noisynet.noisify(net, lambda name, layer: False)
    assert noisynet.noisy_layers(net) == {}


def test_tied_layers_stay_one_layer() -> None:
    shared = nn.Linear(3, 3)
    net: Any = nn.ModuleDict(
        {"a": shared, "b": nn.Sequential(shared, nn.ReLU()), "c": nn.Linear(3, 3)}
    )
    noisynet.noisify(net)
    assert net["a"] is net["b"][0]
    assert isinstance(net["a"], NoisyLinear)
    assert net["a"].weight is shared.weight
    assert len(noisynet.sigma_parameters(net)) == 4
    noisynet.denoise(net)
    assert net["a"] is net["b"][0]
    assert type(net["a"]) is type(net["c"]) is nn.Linear


def test_layers_that_share_a_weight_go_on_sharing_it() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    noisynet.noisify(net)
    assert net[1].weight is net[0].weight
    assert net[1].weight_sigma is net[0].weight_sigma
    assert net[1].bias is not net[0].bias
    assert net[1].bias_sigma is not net[0].bias_sigma
    assert len(noisynet.sigma_parameters(net)) == 3
    # They are two layers still, and draw apart.
    drawn: Any = noisynet.draw(net)
    first, second = (drawn.layer(name).weight_noise() for name in ("0", "1"))
    assert not torch.equal(first, second)
    noisynet.denoise(net)
    assert net[1].weight is net[0].weight


def test_hooks_are_kept_and_can_still_be_removed() -> None:
    net = plain_net()
    seen: list[str] = []
    layer = net[0]
    handles = [
        layer.register_forward_hook(lambda *_: seen.append("forward")),
        layer.register_forward_pre_hook(lambda *_: seen.append("before")),
        layer.register_forward_hook(lambda *_, **__: seen.append("keywords"), with_kwargs=True),
        layer.register_full_backward_hook(lambda *_: seen.append("backward")),
    ]

    def run() -> list[str]:
        seen.clear()
        net(torch.randn(2, 3, requires_grad=True)).sum().backward()
        return list(seen)

    expected = ["before", "forward", "keywords", "backward"]
    assert run() == expected
    noisynet.noisify(net)
    assert run() == expected
    noisynet.denoise(net)
    assert run() == expected
    for handle in handles:
        handle.remove()
    assert run() == []


def with_a_buffer_of_its_own(layer: nn.Linear) -> nn.Linear:
    layer.register_buffer("scale", torch.ones(3), persistent=False)
    return layer


@pytest.mark.parametrize(
    "wrap",
    [
        torch.nn.utils.spectral_norm,
        lambda layer: prune.identity(layer, "weight"),
        with_a_buffer_of_its_own,
    ],
    ids=["spectral_norm", "pruned", "buffer"],
)
def test_layers_whose_weight_is_made_by_something_else_are_left_alone(
    wrap: Callable[[nn.Linear], nn.Linear],
) -> None:
    net = nn.Sequential(wrap(nn.Linear(3, 3)), nn.Linear(3, 2))
    former = set(net.state_dict())
    with pytest.warns(UserWarning, match=r"noisify leaves alone: 0 \("):
        noisynet.noisify(net)
    assert list(noisynet.noisy_layers(net)) == ["1"]
    assert former < set(net.state_dict())
    assert isinstance(net[0], nn.Linear)
    assert net(torch.randn(4, 3)).shape == (4, 2)


class Agent(nn.Module):
    """A net with a layer of each kind that can be converted, and some that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = nn.Conv1d(2, 3, 2, padding="same", padding_mode="circular")
        self.torso = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, groups=2, bias=False), nn.ReLU())
        self.lstm = nn.LSTMCell(13, 5)
        self.gru = nn.GRUCell(5, 4, bias=False)
        self.sequence = nn.LSTM(4, 2, 2, batch_first=True, bidirectional=True)
        self.gated = nn.GRU(4, 4, dropout=0.5, num_layers=2, batch_first=True)
        self.elman = nn.RNN(4, 4, nonlinearity="relu", batch_first=True)
        self.volume = nn.Conv3d(1, 2, (1, 2, 2))
        self.up_1d = nn.ConvTranspose1d(2, 2, 2, stride=2, output_padding=1)
        self.up_2d = nn.ConvTranspose2d(1, 2, 2, bias=False)
        self.up_3d = nn.ConvTranspose3d(2, 1, 2)
        self.head = nn.Linear(4, 2)
        self.unused = nn.ModuleDict(
            {
                "embedding": nn.Embedding(2, 2),
                "both": nn.Bilinear(2, 2, 2),
                "rnn": nn.RNNCell(2, 2),
            }
        )

    def forward(self, image: Tensor, sound: Tensor) -> Tensor:
        sound = self.audio(sound).sum(-1)
        seen = self.torso(image).sum(-1).flatten(1)
        features = torch.cat((seen, sound, seen.new_ones(seen.shape[0], 2)), dim=-1)
        state = seen.new_ones(seen.shape[0], 5)
        hidden, _ = self.lstm(features, (state, state))
        hidden = self.gru(hidden, state[:, :4])
        time = self.sequence(torch.stack((hidden, hidden.flip(-1)), 1))[0]
        time = self.elman(self.gated(time)[0])[0]
        picture = self.up_2d(time.unsqueeze(1))
        film = self.up_3d(self.volume(picture.unsqueeze(1)))
        line = self.up_1d(film.flatten(1, -2)[:, :2])
        return self.head(line[..., :4].sum(1))


KINDS = {
    "audio": (nn.Conv1d, noisynet.NoisyConv1d),
    "torso.0": (nn.Conv2d, noisynet.NoisyConv2d),
    "lstm": (nn.LSTMCell, noisynet.NoisyLSTMCell),
    "gru": (nn.GRUCell, noisynet.NoisyGRUCell),
    "sequence": (nn.LSTM, noisynet.NoisyLSTM),
    "gated": (nn.GRU, noisynet.NoisyGRU),
    "elman": (nn.RNN, noisynet.NoisyRNN),
    "volume": (nn.Conv3d, noisynet.NoisyConv3d),
    "up_1d": (nn.ConvTranspose1d, noisynet.NoisyConvTranspose1d),
    "up_2d": (nn.ConvTranspose2d, noisynet.NoisyConvTranspose2d),
    "up_3d": (nn.ConvTranspose3d, noisynet.NoisyConvTranspose3d),
    "head": (nn.Linear, noisynet.NoisyLinear),
}


def agent_inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 2, 5, 4), torch.randn(3, 2, 6)


def every(name: str, layer: nn.Module) -> bool:
    return True


def test_without_where_only_linears_are_converted_and_the_others_named() -> None:
    net = Agent()
    with pytest.warns(UserWarning, match="noisify leaves alone") as caught:
        noisynet.noisify(net)
    assert list(noisynet.noisy_layers(net)) == ["head"]
    message = str(caught[0].message)
    for named in ("audio (Conv1d: ", "torso.0 (Conv2d: ", "lstm (LSTMCell: ", "gru (GRUCell: "):
        assert f"{named}choose it with where=…)" in message
    for named in ("both (Bilinear", "rnn (RNNCell"):
        assert f"unused.{named}: it has no noisy form)" in message
    assert "embedding" not in message


def test_a_net_without_a_linear_hears_what_where_may_choose() -> None:
    net = nn.Sequential(nn.LSTM(3, 2), nn.Conv1d(2, 2, 1))
    with pytest.raises(
        ValueError, match=r"0 \(LSTM: choose it with where=…\); 1 \(Conv1d: choose it with"
    ):
        noisynet.noisify(net)


def test_where_is_asked_about_every_kind_that_can_be_converted() -> None:
    asked: dict[str, type] = {}

    def where(name: str, layer: nn.Module) -> bool:
        asked[name] = type(layer)
        return name == "torso.0"

    net = noisynet.noisify(Agent(), where)
    assert asked == {name: plain for name, (plain, _) in KINDS.items()}
    assert list(noisynet.noisy_layers(net)) == ["torso.0"]
    with pytest.raises(
        ValueError, match=r"has no nn\.Linear, nn\.MultiheadAttention, .* or nn\.RNN that can"
    ):
        noisynet.noisify(nn.ReLU(), every)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_kind_keeps_what_it_learned_there_and_back(
    noise: NoiseName, dtype: torch.dtype
) -> None:
    net = Agent().to(dtype).eval()
    inputs = tuple(x.to(dtype) for x in agent_inputs())
    expected = net(*inputs)
    former = dict(net.named_parameters())
    former["head.weight"].requires_grad_(False)
    settings = {name: repr(net.get_submodule(name)) for name in KINDS}
    assert noisynet.noisify(net, every, noise=noise, sigma0=0.5) is net

    for name, (_, kind) in KINDS.items():
        assert type(net.get_submodule(name)) is kind
        assert net.get_submodule(name).noise == noise
        assert not net.get_submodule(name).training
    now = dict(net.named_parameters())
    assert all(now[name] is parameter for name, parameter in former.items())
    sigmas = [parameter for name, parameter in now.items() if name not in former]
    assert len(sigmas) == sum(len(list(net.get_submodule(n).parameters())) // 2 for n in KINDS)
    assert all(sigma.requires_grad and sigma.dtype == dtype for sigma in sigmas)
    assert not now["head.weight"].requires_grad
    with noisynet.mean_weights(net):
        assert torch.equal(net(*inputs), expected)
    noisynet.hold(net, rows=3)
    noisy = net(*inputs)
    assert not torch.equal(noisy, expected)
    noisy.square().sum().backward()
    assert all(sigma.grad is not None and bool(sigma.grad.any()) for sigma in sigmas)

    assert noisynet.denoise(net) is net
    assert torch.equal(net(*inputs), expected)
    for name, (plain, _) in KINDS.items():
        layer = net.get_submodule(name)
        assert type(layer) is plain
        assert repr(layer) == settings[name]
        assert vars(layer).keys() == vars(Agent().get_submodule(name)).keys()
    assert all(dict(net.named_parameters())[name] is former[name] for name in former)
    assert len(list(net.parameters())) == len(former)


@pytest.mark.parametrize("name", KINDS)
def test_a_root_of_any_kind_comes_back_as_a_new_layer(name: str) -> None:
    plain_kind, noisy_kind = KINDS[name]
    plain = Agent().get_submodule(name)
    noisy = noisynet.noisify(plain, every)
    assert type(noisy) is noisy_kind
    back = noisynet.denoise(noisy)
    assert type(back) is plain_kind
    assert dict(back.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    for parameter, value in plain.named_parameters():
        assert getattr(noisy, parameter) is getattr(back, parameter) is value


def test_layers_of_different_kinds_share_sigma_where_they_share_a_mean() -> None:
    net = nn.ModuleDict({"cell": nn.GRUCell(3, 2), "linear": nn.Linear(3, 6)})
    net["linear"].weight = net["cell"].weight_ih
    noisynet.noisify(net, every)
    assert net["linear"].weight_sigma is net["cell"].weight_ih_sigma
    tied = nn.GRUCell(2, 2)
    tied.weight_hh = tied.weight_ih
    tied = noisynet.noisify(tied, every)
    assert tied.weight_hh is tied.weight_ih
    assert tied.weight_hh_sigma is tied.weight_ih_sigma


@pytest.mark.parametrize("where", [None, every])
def test_a_layer_without_a_shape_or_with_another_forward_is_left_alone(where: Any) -> None:
    with warnings.catch_warnings():
        # Older versions of torch say that lazy modules are new.
        warnings.simplefilter("ignore")
        net = nn.ModuleDict(
            {"lazy": nn.LazyLinear(2), "own": nn.Linear(3, 2), "a": nn.Linear(3, 2)}
        )
    net["own"].forward = lambda input: input
    if where is None:
        with pytest.warns(UserWarning, match=r"lazy \(a LazyLinear .* run one forward first\)"):
            noisynet.noisify(net)
    else:
        # It was asked about what can be converted, and no other layer was to be.
        noisynet.noisify(net, where)
    assert list(noisynet.noisy_layers(net)) == ["a"]
    net["lazy"](torch.ones(1, 3))
    assert type(noisynet.noisify(net["lazy"])) is NoisyLinear


def test_hooks_of_other_kinds_are_kept() -> None:
    net = Agent()
    seen: list[str] = []
    for name in KINDS:
        net.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    noisynet.noisify(net, every)
    net(*agent_inputs())
    noisynet.denoise(net)
    net(*agent_inputs())
    order = ["audio", "torso.0", "lstm", "gru", "sequence", "gated", "elman", "up_2d", "volume"]
    order += ["up_3d", "up_1d", "head"]
    assert seen == order + order


def test_a_hook_of_loading_gets_the_layer_that_is_there() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    seen: list[nn.Module] = []
    net[0].register_load_state_dict_pre_hook(lambda layer, *_: seen.append(layer))
    net[0].register_load_state_dict_post_hook(lambda layer, _: seen.append(layer))
    plain = net.state_dict()
    for change in (noisynet.noisify, noisynet.denoise):
        change(net)
        seen.clear()
        net.load_state_dict(plain, strict=False)
        assert [layer is net[0] for layer in seen] == [True, True]


def test_a_root_layer_that_lives_on_keeps_its_own_hook_of_loading() -> None:
    plain = nn.Linear(3, 2)
    seen: list[nn.Module] = []
    plain.register_load_state_dict_pre_hook(lambda layer, *_: seen.append(layer))
    noisy = noisynet.noisify(plain)
    back = noisynet.denoise(noisy)
    for layer in (plain, noisy, back):
        seen.clear()
        layer.load_state_dict(layer.state_dict())
        assert [one is layer for one in seen] == [True]


def test_hooks_of_the_projection_inside_attention_are_kept() -> None:
    net: Any = nn.ModuleList([nn.MultiheadAttention(4, 2)])
    seen: list[nn.Module] = []
    net[0].out_proj.register_state_dict_pre_hook(lambda layer, *_: seen.append(layer))
    for change in (noisynet.noisify, noisynet.denoise):
        change(net)
        seen.clear()
        net.state_dict()
        assert [layer is net[0].out_proj for layer in seen] == [True]


def test_a_denoised_agent_exports() -> None:
    net = noisynet.denoise(noisynet.noisify(Agent(), every)).eval()
    inputs = agent_inputs()
    with warnings.catch_warnings():
        # PyTorch's own exporter uses what Python deprecates.
        warnings.simplefilter("ignore")
        exported = torch.export.export(net, inputs)
    torch.testing.assert_close(exported.module()(*inputs), net(*inputs))


def test_a_denoised_agent_becomes_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    net = noisynet.denoise(noisynet.noisify(Agent(), every)).eval()
    inputs = agent_inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, inputs, tmp_path / "agent.onnx", dynamo=True, verbose=False)
        model = onnx.load(tmp_path / "agent.onnx")
        session = reference.ReferenceEvaluator(model)
        names = [value.name for value in model.graph.input]
        (got,) = session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
    torch.testing.assert_close(torch.tensor(got), net(*inputs), rtol=1e-4, atol=1e-5)


def test_denoise_of_a_plain_net_is_the_net() -> None:
    net = plain_net()
    former = list(net.modules())
    assert noisynet.denoise(net) is net
    assert all(a is b for a, b in zip(net.modules(), former, strict=True))


def test_a_where_that_is_no_function_is_an_error() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    wrong: Any = "independent"
    with pytest.raises(TypeError, match=r"^where: got 'independent', expected a function of"):
        noisynet.noisify(net, wrong)
    wrong = None
    with pytest.raises(TypeError, match=r"^got NoneType, expected an nn.Module"):
        noisynet.noisify(wrong)
    noisynet.noisify(net)
    with pytest.raises(
        ValueError, match=r"no nn.Linear or nn.MultiheadAttention that can be noisy, and is noisy"
    ):
        noisynet.noisify(net)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_inputs_is_left_alone() -> None:
    net = nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 2))
    with pytest.warns(UserWarning, match="0 .it has no inputs or no outputs"):
        noisynet.noisify(net)
    assert list(noisynet.noisy_layers(net)) == ["1"]


def test_from_linear_says_what_it_cannot_take() -> None:
    conv: Any = nn.Conv1d(3, 2, 1)
    with pytest.raises(TypeError, match=r"^got a Conv1d, expected an nn.Linear$"):
        noisynet.NoisyLinear.from_linear(conv)
    with pytest.raises(TypeError, match=r"^got a Conv1d, expected an nn.Conv2d$"):
        noisynet.NoisyConv2d.from_conv(conv)
    with pytest.raises(TypeError, match=r"^got a GRUCell, expected an nn.LSTMCell$"):
        noisynet.NoisyLSTMCell.from_cell(nn.GRUCell(3, 2))
    with pytest.raises(ValueError, match="got a Linear that keeps more than weights and biases"):
        noisynet.NoisyLinear.from_linear(nn.utils.spectral_norm(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match="LazyLinear that has no shape yet: run one forward first"):
        noisynet.NoisyLinear.from_linear(nn.LazyLinear(2))
    replaced = nn.Linear(3, 2)
    replaced.forward = lambda input: input
    for layer in (replaced, Shifted(3, 2), noisynet.NoisyLinear(3, 2)):
        with pytest.raises(ValueError, match=r"whose forward is not that of nn\.Linear$"):
            noisynet.NoisyLinear.from_linear(layer)


class Shifted(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


class Rectified(noisynet.NoisyLinear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class Own(NoisyLayer, nn.Linear):
    """A noisy layer of a kind that is not noisynet's."""

    plain = nn.Linear

    def __init__(self) -> None:
        super().__init__(3, 3, noise="factorised", sigma0=None, init="paper")

    def noise_spec(self) -> NoiseSpec:
        return NoiseSpec(self.noise, 3, 3, bias=True)

    def forward(self, input: Tensor) -> Tensor:
        return noisy_linear(input, *self.weights()[0], self.noise_in_force(input))


class Head(noisynet.NoisyLinear):
    """Has no forward of its own."""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: nn.utils.parametrizations.weight_norm(
                noisynet.NoisyLinear(3, 3), "weight_sigma"
            ),
            "'1': a ParametrizedNoisyLinear: it keeps more than weights and biases",
        ),
        (
            lambda: nn.utils.spectral_norm(noisynet.NoisyLinear(3, 3)),
            "'1': a NoisyLinear: it keeps more than weights and biases",
        ),
        (lambda: Rectified(3, 3), "'1': a Rectified: its forward is not that of NoisyLinear"),
        (Own, "'1': a Own: its forward is not that of NoisyLayer"),
    ],
)
def test_denoise_refuses_what_it_would_break(make: Callable[[], nn.Module], reason: str) -> None:
    net = nn.Sequential(noisynet.NoisyLinear(3, 3), make())
    with pytest.raises(ValueError, match=f"^{reason}$"):
        noisynet.denoise(net)
    assert list(noisynet.noisy_layers(net)) == ["0", "1"]


def test_denoise_takes_a_subclass_that_computes_the_same() -> None:
    layer = Head(3, 2)
    plain = noisynet.denoise(nn.Sequential(layer))[0]
    assert type(plain) is nn.Linear
    assert plain.weight is layer.weight


class OldStyle(nn.Module):
    """A module that loops over a plain list, and registers its layers beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 16), nn.Linear(16, 2)]
        self.by_name = {"first": (self.layers[0], "relu")}
        self.itself: list[Any] = []
        self.itself.append(self.itself)
        for number, layer in enumerate(self.layers):
            self.add_module(f"fc{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        first, _ = self.by_name["first"]
        return self.layers[1](first(x).relu())


def test_layers_in_plain_lists_are_replaced_there_too() -> None:
    net, x = OldStyle(), torch.randn(8, 4)
    before = net(x)
    noisynet.noisify(net)
    assert list(noisynet.noisy_layers(net)) == ["fc0", "fc1"]
    assert net.layers == [net.fc0, net.fc1]
    assert net.by_name["first"] == (net.fc0, "relu")
    assert not torch.equal(net(x), net(x))
    assert noisynet.doctor(net, x).ok
    noisynet.denoise(net)
    assert all(type(one) is nn.Linear for one in net.layers)
    assert torch.equal(net(x), before)
