"""Checkpoints and initial values against the libraries themselves, where they are installed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet

pytestmark = [
    pytest.mark.peers,
    # What other people's packages warn of at import is theirs.
    pytest.mark.filterwarnings("ignore"),
]

P, Q, ACTIONS = 7, 6, 4
SIGMA0 = {"torchrl": 0.5, "tianshou": 0.5, "pfrl": 0.4}
OVER_OUTPUTS = {"torchrl", "pfrl"}


class TorchRL:
    def __init__(self) -> None:
        self.modules = pytest.importorskip("torchrl.modules")
        self.envs = pytest.importorskip("torchrl.envs")

    def layer(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        return self.modules.NoisyLinear(inputs, outputs, bias=bias)

    def means(self, layer: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return layer.weight_mu, layer.bias_mu, layer.weight_sigma, layer.bias_sigma

    @contextmanager
    def quiet(self, net: nn.Module) -> Iterator[None]:
        with self.envs.set_exploration_type(self.envs.ExplorationType.DETERMINISTIC):
            yield

    def noisy(self, net: nn.Module, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return the noisy output and each noisy layer's (f(ε_i), f(ε_j))."""
        # It multiplies the factors in the default dtype, whatever the layer's is.
        torch.set_default_dtype(torch.float64)
        net.apply(self.modules.reset_noise)
        torch.set_default_dtype(torch.float32)
        with self.envs.set_exploration_type(self.envs.ExplorationType.RANDOM):
            output = net(x)
        return output, [
            (layer.weight_epsilon[0] / layer.bias_epsilon[0], layer.bias_epsilon)
            for layer in net.modules()
            if isinstance(layer, self.modules.NoisyLinear)
        ]


class Tianshou:
    def __init__(self) -> None:
        self.discrete = pytest.importorskip("tianshou.utils.net.discrete")

    def layer(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        if not bias:
            pytest.skip("Tianshou's layer always has a bias")
        return self.discrete.NoisyLinear(inputs, outputs)

    def means(self, layer: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return layer.mu_W, layer.mu_bias, layer.sigma_W, layer.sigma_bias

    @contextmanager
    def quiet(self, net: nn.Module) -> Iterator[None]:
        net.eval()
        yield
        net.train()

    def noisy(self, net: nn.Module, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        layers = [part for part in net.modules() if isinstance(part, self.discrete.NoisyLinear)]
        for layer in layers:
            layer.sample()
        return net.train()(x), [(layer.eps_p, layer.eps_q) for layer in layers]


class PFRL:
    def __init__(self) -> None:
        self.nn = pytest.importorskip("pfrl.nn")

    def layer(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        return self.nn.FactorizedNoisyLinear(nn.Linear(inputs, outputs, bias=bias))

    def means(self, layer: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return layer.mu.weight, layer.mu.bias, layer.sigma.weight, layer.sigma.bias

    @contextmanager
    def quiet(self, net: nn.Module) -> Iterator[None]:
        """PFRL has no switch: draw zeros."""
        layers = self.layers(net)
        for layer in layers:
            layer._eps = lambda size, dtype, device: torch.zeros(size, dtype=dtype, device=device)
        yield
        for layer in layers:
            del layer._eps

    def noisy(self, net: nn.Module, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Every forward draws anew: keep what it drew."""
        drawn: list[tuple[Tensor, Tensor]] = []
        layers = self.layers(net)
        for layer in layers:
            layer._eps = self.keeping(layer, drawn)
        output = net(x)
        for layer in layers:
            del layer._eps
        return output, drawn

    @staticmethod
    def keeping(layer: Any, drawn: list[tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
        original = layer._eps

        def draw(*arguments: Any) -> Tensor:
            eps = original(*arguments)
            inputs = layer.sigma.weight.shape[1]
            drawn.append((eps[:inputs], eps[inputs:]))
            return eps

        return draw

    def layers(self, net: nn.Module) -> list[Any]:
        return [part for part in net.modules() if isinstance(part, self.nn.FactorizedNoisyLinear)]


LIBRARIES = {"torchrl": TorchRL, "tianshou": Tianshou, "pfrl": PFRL}


@pytest.fixture(params=LIBRARIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def library(name: str) -> Any:
    torch.manual_seed(1706_10295)
    return LIBRARIES[name]()


def q_network(layer: Callable[[int, int], nn.Module]) -> nn.Sequential:
    """A plain convolution, then two noisy layers."""
    return nn.Sequential(
        nn.Conv1d(2, 1, 3, padding=1),
        nn.Flatten(),
        layer(P, Q),
        nn.ReLU(),
        layer(Q, ACTIONS),
    ).double()


def put(drawn: noisynet.Draw, path: str, inputs: Tensor, outputs: Tensor) -> None:
    """Write a library's f(ε_i) and f(ε_j) into a draw of ours."""
    noise = drawn.layer(path)
    assert isinstance(noise, noisynet.layers.FactorisedNoise)
    noise.input.copy_(inputs)
    noise.output.copy_(outputs)


@pytest.mark.parametrize("insist", [False, True])
def test_a_loaded_network_computes_what_theirs_does(name: str, library: Any, insist: bool) -> None:
    theirs = q_network(library.layer)
    for parameter in theirs.parameters():
        # As after training: every σ its own value.
        if parameter.requires_grad:
            nn.init.uniform_(parameter, -1, 1)
    ours = q_network(noisynet.NoisyLinear)
    noisynet.load_peer_state_dict(ours, theirs.state_dict(), peer=name if insist else None)

    x = torch.randn(9, 2, P, dtype=torch.float64)
    with torch.no_grad():
        with library.quiet(theirs), noisynet.mean_weights(ours):
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
        expected, noise = library.noisy(theirs, x)
        drawn = noisynet.draw(ours)
        for path, (inputs, outputs) in zip(("2", "4"), noise, strict=True):
            put(drawn, path, inputs, outputs)
        with noisynet.using(ours, drawn):
            torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)
        with library.quiet(theirs):
            assert not torch.allclose(theirs(x), expected)  # The noise did act.


def test_the_gradients_of_means_and_sigmas_are_theirs(name: str, library: Any) -> None:
    theirs = q_network(library.layer)
    ours = q_network(noisynet.NoisyLinear)
    noisynet.load_peer_state_dict(ours, theirs.state_dict())
    x = torch.randn(9, 2, P, dtype=torch.float64)
    output, noise = library.noisy(theirs, x)
    drawn = noisynet.draw(ours)
    for path, (inputs, outputs) in zip(("2", "4"), noise, strict=True):
        put(drawn, path, inputs, outputs)
    output.square().sum().backward()
    with noisynet.using(ours, drawn):
        ours(x).square().sum().backward()
    for number in (2, 4):
        layer = ours[number]
        wanted = [parameter.grad for parameter in library.means(theirs[number])]
        grads = [p.grad for p in (layer.weight, layer.bias, layer.weight_sigma, layer.bias_sigma)]
        for got, expected in zip(grads, wanted, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_a_layer_without_bias_loads(name: str, library: Any) -> None:
    theirs = library.layer(P, Q, bias=False)
    ours = noisynet.NoisyLinear(P, Q, bias=False)
    noisynet.load_peer_state_dict(ours, theirs.state_dict())
    x = torch.randn(9, P)
    with torch.no_grad(), library.quiet(theirs), noisynet.mean_weights(ours):
        torch.testing.assert_close(ours(x), theirs(x))


def test_their_noise_is_no_parameter_or_buffer_of_ours(name: str, library: Any) -> None:
    ours = noisynet.NoisyLinear(P, Q)
    noisynet.load_peer_state_dict(ours, library.layer(P, Q).state_dict())
    assert set(ours.state_dict()) == {"weight", "bias", "weight_sigma", "bias_sigma"}


def test_their_layer_is_refused_where_ours_is_independent(name: str, library: Any) -> None:
    ours = noisynet.NoisyLinear(P, Q, noise="independent")
    with pytest.raises(ValueError, match="got factorised noise"):
        noisynet.load_peer_state_dict(ours, library.layer(P, Q).state_dict())


def test_the_preset_starts_as_their_layer_does(name: str, library: Any) -> None:
    # 400 → 25: √p = 20 and √q = 5.
    layers = [library.layer(400, 25) for _ in range(40)]
    ours = noisynet.NoisyLinear(400, 25, init=name)
    weight_sigma, bias_sigma = library.means(layers[0])[2:]
    torch.testing.assert_close(ours.weight_sigma.detach(), weight_sigma.detach())
    torch.testing.assert_close(ours.bias_sigma.detach(), bias_sigma.detach())
    assert float(weight_sigma.detach()[0, 0]) == pytest.approx(SIGMA0[name] / 20)
    assert float(bias_sigma.detach()[0]) == pytest.approx(
        SIGMA0[name] / (5 if name in OVER_OUTPUTS else 20)
    )
    for part in (0, 1):
        values = torch.cat([library.means(layer)[part].detach().flatten() for layer in layers])
        # The largest of 1000 or more uniform numbers lies within 1 % of the bound (1 − 5e-5).
        assert 0.99 / 20 < float(values.abs().max()) <= 1 / 20 + 1e-9
        assert float(values.var()) == pytest.approx(1 / 400 / 3, rel=0.1)
        assert abs(float(values.mean())) < 4 / 20 / math.sqrt(3 * len(values))


def test_tianshous_rainbow_network_loads() -> None:
    atari = pytest.importorskip("tianshou.env.atari.atari_network")
    torch.manual_seed(0)
    theirs = atari.RainbowNet(c=1, h=44, w=44, action_shape=[3], num_atoms=5, noisy_std=0.1)
    ours = atari.RainbowNet(c=1, h=44, w=44, action_shape=[3], num_atoms=5, is_noisy=False)
    heads = {"Q.0", "Q.2", "V.0", "V.2"}
    noisynet.noisify(ours, where=lambda path, layer: path in heads)
    noisynet.load_peer_state_dict(ours, theirs.state_dict())
    x = torch.rand(2, 1, 44, 44)
    with torch.no_grad(), noisynet.mean_weights(ours):
        torch.testing.assert_close(ours(x)[0], theirs.eval()(x)[0])


def test_pfrls_converted_network_loads() -> None:
    pfrl = PFRL()
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Linear(P, Q), nn.ReLU(), nn.Linear(Q, ACTIONS))
    pfrl.nn.to_factorized_noisy(theirs, sigma_scale=0.5)
    ours = noisynet.noisify(nn.Sequential(nn.Linear(P, Q), nn.ReLU(), nn.Linear(Q, ACTIONS)))
    noisynet.load_peer_state_dict(ours, theirs.state_dict())
    x = torch.randn(9, P)
    with torch.no_grad(), pfrl.quiet(theirs), noisynet.mean_weights(ours):
        torch.testing.assert_close(ours(x), theirs(x))


def test_torchrls_mlp_loads() -> None:
    torchrl = TorchRL()
    torch.manual_seed(0)
    theirs = torchrl.modules.MLP(
        in_features=P,
        out_features=ACTIONS,
        num_cells=[Q],
        layer_class=torchrl.modules.NoisyLinear,
    )
    ours = torchrl.modules.MLP(
        in_features=P,
        out_features=ACTIONS,
        num_cells=[Q],
        layer_class=noisynet.NoisyLinear,
    )
    noisynet.load_peer_state_dict(ours, theirs.state_dict())
    x = torch.randn(9, P)
    with torch.no_grad(), torchrl.quiet(theirs), noisynet.mean_weights(ours):
        torch.testing.assert_close(ours(x), theirs(x))
