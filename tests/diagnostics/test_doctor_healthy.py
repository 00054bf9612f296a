"""Healthy networks that the doctor must not blame, each beside a faulty one that it must find."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import noisynet
from noisynet.diagnostics.recognise import find_noisy_layers

from . import replicas

P, A, B = 6, 3, 8


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def network(*, outputs: int = A) -> Any:
    return noisynet.noisify(nn.Sequential(nn.Linear(P, 32), nn.ReLU(), nn.Linear(32, outputs)))


def greedy(model: nn.Module) -> Any:
    return lambda batch: model(batch).argmax(-1)


# What the network computes


def test_batch_norm_in_train_mode_with_one_observation_is_skipped() -> None:
    net = nn.Sequential(
        nn.Linear(P, 16), nn.BatchNorm1d(16), nn.ReLU(), noisynet.NoisyLinear(16, A)
    )
    found = noisynet.doctor(net, torch.randn(1, P))
    assert found.ok
    for check in ("policy", "units"):
        assert found[check].status == "skipped"
        assert "more than 1 value per channel" in found[check].message


def test_observations_that_hardly_differ_say_nothing_of_the_network() -> None:
    nearly_alike = torch.randn(1, P) + 1e-6 * torch.randn(B, P)
    assert noisynet.doctor(network(), nearly_alike)["policy"].status != "fail"
    nearly_alike[:, 0] = 1e-6 * torch.randn(B)  # by itself, this feature differs
    assert noisynet.doctor(network(), nearly_alike)["policy"].status != "fail"


def test_a_dead_network_is_found_beside_a_large_constant_feature() -> None:
    net = network()
    with torch.no_grad():
        net[0].bias.fill_(-1e6)
    batch = torch.randn(64, P)
    batch[:, 0] = 500.0
    found = noisynet.doctor(net, batch)["policy"]
    assert found.status == "fail"
    assert "same" in found.message


def test_a_plain_layer_with_nan_is_neither_dormant_nor_quiet() -> None:
    net = nn.Sequential(nn.Linear(P, 16), nn.ReLU(), noisynet.NoisyLinear(16, A))
    batch = torch.randn(64, P)
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    found = noisynet.doctor(net, batch)
    assert (found["policy"].status, found["units"].status) == ("fail", "fail")
    assert "NaN" in found["policy"].message
    assert "'0' are NaN or infinite" in found["units"].message
    # `revive` would draw them all anew.
    assert noisynet.units(net, batch)["0"].dormant == 0.0


def test_the_policy_is_measured_on_any_number_of_observations() -> None:
    net = network()
    noisynet.hold(net, rows=B)
    assert noisynet.doctor(net, torch.randn(64, P))["policy"].status == "pass"


def test_the_policy_of_layers_that_share_a_sigma_is_measured_as_that_of_others() -> None:
    def plain() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(P, P), nn.ReLU(), nn.Linear(P, P), nn.ReLU(), nn.Linear(P, A)
        )

    tied, untied = plain(), noisynet.noisify(plain())
    tied[2].weight, tied[2].bias = tied[0].weight, tied[0].bias
    tied = noisynet.noisify(tied)
    assert tied[0].weight_sigma is tied[2].weight_sigma
    untied.load_state_dict(tied.state_dict())
    batch = torch.randn(64, P)
    findings = []
    for net in (tied, untied):
        torch.manual_seed(1)
        findings.append(noisynet.doctor(net, batch)["policy"])
    assert findings[0] == findings[1]
    assert findings[0].status == "pass"


def test_a_target_that_draws_at_every_forward_has_draws_of_its_own() -> None:
    """Each network is read from the same state of the generators, which the doctor restores."""
    net = network()
    target = copy.deepcopy(net)
    for batch in (None, torch.randn(B, P)):
        assert noisynet.doctor(net, batch, target=target)["target"].status == "pass"
    noisynet.hold(net)
    noisynet.hold(target, drawn=noisynet.held(net))
    assert noisynet.doctor(net, target=target)["target"].status == "fail"


def test_values_make_q_of_a_distribution() -> None:
    class Distributional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network(outputs=A * 51)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x).unflatten(-1, (A, 51))

    net, batch = Distributional(), torch.randn(B, P)
    assert "values=" in noisynet.doctor(net, batch)["policy"].message
    found = noisynet.doctor(net, batch, values=lambda output: output.mean(-1))
    assert found["policy"].status == "pass"
    with pytest.raises(TypeError, match="values: got int, expected a function"):
        noisynet.doctor(net, batch, values=3)  # pyright: ignore[reportArgumentType]


# μ, σ and the scale


@pytest.mark.parametrize("gain", [0.0, 0.01])
def test_a_last_layer_that_starts_near_0_is_no_exploded_sigma(gain: float) -> None:
    net = network()
    nn.init.orthogonal_(net[2].weight, gain)
    found = noisynet.doctor(net, torch.randn(B, P))
    assert found.ok, str(found)
    assert found["sigma size"].status == found["initial mean"].status == "warn"
    assert "μ is small" in found["sigma size"].message
    net[2].weight_sigma.data.fill_(10.0)
    assert "exploded" in noisynet.doctor(net)["sigma size"].message


def test_a_scale_that_leaves_no_noise_is_not_called_a_collapse() -> None:
    net = network()
    noisynet.control.scale(net, 1e-4)
    found = noisynet.doctor(net)["sigma size"]
    assert (found.status, found.cure) == ("fail", "noisynet.control.scale(model, 1)")
    assert "scale of 0.0001" in found.message
    # A schedule that has come near its end is meant so.
    for layer in noisynet.noisy_layers(net).values():
        layer.noise_state.control = "linear from 1 to 0"
    assert noisynet.doctor(net)["sigma size"].status == "pass"
    for layer in noisynet.noisy_layers(net).values():
        layer.weight_sigma.data.mul_(1e-4)
    assert "σ collapsed" in noisynet.doctor(net)["sigma size"].message


def test_the_cure_of_noise_that_is_off_is_not_the_layer_that_is_there() -> None:
    net = network()
    with noisynet.mean_weights(net):
        assert "mean_weights" in noisynet.doctor(net)["modes"].cure


def test_a_head_with_a_mean_and_a_deviation_has_no_noise() -> None:
    class Head(nn.Module):
        def __init__(self, *, joined: bool) -> None:
            super().__init__()
            self.mu, self.sigma = nn.Linear(P, A), nn.Linear(P, A)
            self.joined = joined

        def forward(self, x: Tensor) -> Any:
            both = self.mu(x), self.sigma(x).exp()
            return torch.cat(both, -1) if self.joined else both

    for joined in (False, True):
        policy = nn.Sequential(nn.Linear(P, P), nn.ReLU(), Head(joined=joined))
        state = torch.get_rng_state()
        assert noisynet.doctor(policy)["layers"].status == "fail"
        assert torch.equal(torch.get_rng_state(), state)
        policy[0] = noisynet.NoisyLinear(P, P)
        assert list(find_noisy_layers(policy)) == ["0"]


def test_a_head_with_a_mean_and_a_deviation_is_no_layer_of_the_target() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mu, self.sigma = nn.Linear(16, A), nn.Linear(16, A)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.mu(x), self.sigma(x).exp()

    def loss() -> Tensor:
        for net, seed in zip((policy, target), seeds, strict=True):
            noisynet.resample(net, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            wanted = target(batch)[0]
        return (policy(batch)[0] - wanted).square().mean()

    policy: Any = nn.Sequential(noisynet.NoisyLinear(P, 16), Head())
    target, batch = copy.deepcopy(policy), torch.randn(B, P)
    noisynet.hold(policy)
    noisynet.hold(target)
    for seeds, expected in (((0, 1), "pass"), ((0, 0), "fail")):  # noqa: B007 - the loss reads them
        found = noisynet.doctor(policy, batch, act=lambda x: policy(x)[0], loss=loss, target=target)
        assert found["acting"].message == "noise is on in 1 forward of noisy layers"
        assert found["noise in the loss"].status == "pass"
        assert found["draws in the loss"].status == expected


# Acting


class Tokens(nn.Module):
    """A network over a dictionary of tokens, (B, tokens, P)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = noisynet.NoisyLinear(P, 16), noisynet.NoisyLinear(16, A)

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        return self.head(torch.relu(self.embedding(observation["tokens"])).mean(1))


class Recurrent(nn.Module):
    """A recurrent Q-network, (T, B, P) → (T, B, A), which keeps its state between actions."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.LSTM(P, 16), noisynet.NoisyLinear(16, A)
        self.state: Any = None

    def forward(self, x: Tensor) -> Tensor:
        features, _ = self.body(x, self.state)
        return self.head(features)

    @torch.no_grad()
    def act(self, x: Tensor) -> Tensor:
        features, self.state = self.body(x, self.state)
        return self.head(features)[-1].argmax(-1)


def test_the_steps_and_tokens_of_one_environment_are_no_environments() -> None:
    for environments, status in ((1, "skipped"), (B, "warn")):
        net = Tokens()
        observation = {"tokens": torch.randn(environments, 5, P)}
        found = noisynet.doctor(net, observation, act=greedy(net))
        assert found["rows"].status == status, str(found["rows"])
        net = Recurrent()
        found = noisynet.doctor(net, torch.randn(5, environments, P), act=net.act)
        assert found["rows"].status == status, str(found["rows"])


def test_actions_that_differ_by_a_recurrent_state_are_no_other_exploration() -> None:
    net = Recurrent()
    with torch.no_grad():
        net.head.weight.mul_(10)
    noisynet.hold(net, rows=B)
    batch = torch.randn(1, B, P)
    actions = [net.act(batch) for _ in range(4)]
    assert any(not torch.equal(one, actions[0]) for one in actions)
    net.state = None
    found = noisynet.doctor(net, batch, act=net.act, epsilon=0.0)
    assert found["other exploration"].status == "pass"

    def dithering(x: Tensor) -> Tensor:
        return torch.randint(A, greedy(net)(x).shape)

    found = noisynet.doctor(net, batch, act=dithering, epsilon=0.0)
    assert found["other exploration"].status == "warn"


def test_dropout_explores_beside_the_noise_in_train_mode_alone() -> None:
    net, batch = nn.Sequential(nn.Dropout(0.5), network()), torch.randn(B, P)
    found = noisynet.doctor(net, batch, act=greedy(net))["other exploration"]
    assert found.status == "warn"
    assert "dropout, in train mode" in found.message
    net.eval()
    found = noisynet.doctor(net, batch, act=greedy(net), epsilon=0.0)["other exploration"]
    assert found.status == "pass"


def test_measurements_while_the_agent_acts_are_not_taken_for_its_actions() -> None:
    net, batch = network(), torch.randn(1, P)
    noisynet.hold(net)
    monitor = noisynet.NoiseMonitor(net, every=1)

    def act(observation: Tensor) -> Tensor:
        monitor.step(observation)
        return greedy(net)(observation)

    found = noisynet.doctor(net, batch, act=act)
    assert found["acting"].message == "noise is on in 2 forwards of noisy layers"
    assert found["other exploration"].status == "pass"


# Learning


def test_a_target_that_values_the_action_under_the_draw_that_chose_it() -> None:
    net, batch = network(), torch.randn(B, P)
    target = copy.deepcopy(net)

    def loss(*, own_draw: bool) -> Tensor:
        online, choice, of_target = noisynet.draw(net, net, target)
        with torch.no_grad():
            with noisynet.using(net, choice):
                action = net(batch).argmax(-1, keepdim=True)
            with noisynet.using(target, of_target if own_draw else choice):
                value = target(batch).gather(1, action)
        with noisynet.using(net, online):
            return (net(batch)[:, :1] - value).square().mean()

    found = noisynet.doctor(net, batch, loss=lambda: loss(own_draw=True), target=target)
    assert found["draws in the loss"].status == "pass"
    found = noisynet.doctor(net, batch, loss=lambda: loss(own_draw=False), target=target)
    assert found["draws in the loss"].status == "fail"
    assert "valued under the same noise" in found["draws in the loss"].message


# Layers of other libraries


def test_layers_that_draw_in_place_at_every_forward() -> None:
    class InPlace(replicas.BookLike):
        """The book's layer without `.data`: autograd notices a second draw before backward."""

        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight + self.sigma_weight * self.epsilon_weight.normal_()
            return nn.functional.linear(
                x, weight, self.bias + self.sigma_bias * self.epsilon_bias.normal_()
            )

    net, batch = replicas.net(InPlace), torch.randn(B, P)
    optimizer = torch.optim.Adam(net.parameters())
    found = noisynet.doctor(
        net, batch, act=greedy(net), loss=lambda: net(batch).square().mean(), optimizer=optimizer
    )
    for check in ("sigma gradient", "sigma moves", "acting"):
        assert found[check].status == "pass", str(found[check])
    assert "is an error, not a wrong gradient" in found["backward"].message


def test_an_ensemble_under_vmap_beside_the_network() -> None:
    batch = torch.randn(B, P)

    def found(build: Any) -> noisynet.Diagnosis:
        net, members = build(), [build() for _ in range(2)]
        for one in (net, *members):
            if noisynet.noisy_layers(one):
                noisynet.hold(one)
        parameters, buffers = stack_module_state(members)
        skeleton = copy.deepcopy(members[0])

        def loss() -> Tensor:
            targets = vmap(lambda state: functional_call(skeleton, state, (batch,)))(
                {**parameters, **buffers}
            )
            return (net(batch) - targets.detach().mean(0)).square().mean()

        return noisynet.doctor(net, batch, loss=loss)

    for build in (network, lambda: replicas.net(replicas.KaixhinLike)):
        assert found(build)["sigma gradient"].status == "pass"


def test_what_a_layer_caches_at_its_first_forward_is_gone_afterwards() -> None:
    class Caching(replicas.KaixhinLike):
        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "noise"):
                self.noise = torch.randn_like(self.weight_mu)
            return nn.functional.linear(x, self.weight_mu + self.weight_sigma * self.noise)

    net = replicas.net(Caching)
    assert noisynet.doctor(net, torch.randn(B, P))["redraw"].status == "fail"
    assert not any(hasattr(part, "noise") for part in net.modules())


def test_one_key_for_independent_noise_of_layers_of_other_shapes() -> None:
    class OneKey(replicas.CleanRLLike):
        calls = 0

        def reset_noise(self) -> None:
            OneKey.calls += 1
            # A redraw of a network of three layers has one key.
            generator = torch.Generator().manual_seed(OneKey.calls // 3)
            for epsilon in (self.weight_epsilon, self.bias_epsilon):
                epsilon.copy_(torch.randn(epsilon.shape, generator=generator))

    found = noisynet.doctor(replicas.net(OneKey), torch.randn(B, P))["own draws"]
    assert found.status == "fail"
    assert "0 ε_w by row and 2 ε_w by row" in found.message
    assert noisynet.doctor(replicas.net(replicas.CleanRLLike))["own draws"].status == "pass"


def test_a_constant_made_on_the_cpu_is_no_draw() -> None:
    class WithConstant(replicas.BookLike):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float(torch.tensor([1.0]))

    net = nn.Sequential(WithConstant(P, 16), nn.ReLU(), WithConstant(16, 1))
    assert noisynet.doctor(net)["device"].status == "pass"


def test_the_doctor_works_within_no_grad() -> None:
    net, batch = network(), torch.randn(B, P)
    with torch.no_grad():
        found = noisynet.doctor(
            net,
            batch,
            loss=lambda: net(batch).square().mean(),
            optimizer=torch.optim.Adam(net.parameters()),
        )
        assert not torch.is_grad_enabled()
    assert found["sigma gradient"].status == found["sigma moves"].status == "pass"


@pytest.mark.filterwarnings("ignore")  # tracing warns of several things
def test_a_traced_torso_is_looked_through_and_left_as_it_is() -> None:
    plain = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU())
    traced = torch.jit.trace(plain, torch.randn(8, 3))
    net = nn.Sequential(traced, noisynet.NoisyLinear(16, 2))
    batch = torch.randn(8, 3)
    means = traced.get_buffer("1.running_mean").clone()
    assert noisynet.doctor(net, batch).ok
    assert noisynet.diagnostics.behaviour(net, batch).q_spread > 0
    noisynet.diagnostics.units(net, batch)
    assert torch.equal(traced.get_buffer("1.running_mean"), means)


def test_an_agent_may_act_with_vmap_or_where_gradients_are_off() -> None:
    net = network()
    noisynet.hold(net)
    found = noisynet.doctor(net, torch.randn(B, P), act=lambda x: vmap(net)(x).argmax(-1))
    assert found["acting"].status == "pass"
    with torch.no_grad():
        found = noisynet.doctor(
            net,
            torch.randn(B, P),
            act=lambda x: net(x).numpy().argmax(-1),
            loss=lambda: net(torch.randn(B, P)).square().mean(),
        )
        assert not torch.is_grad_enabled()
    assert found["acting"].status == found["sigma gradient"].status == "pass"


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("whole", [False, True], ids=["torch.compile", "module.compile"])
def test_a_compiled_network_is_examined_as_it_was_written(*, whole: bool) -> None:
    net = network()
    x, rows = torch.randn(B, P), torch.arange(B)
    compiled: Any = net if whole else torch.compile(net, fullgraph=True, backend="eager")
    if whole:
        net.compile(fullgraph=True, backend="eager")
    optimizer = torch.optim.Adam(net.parameters())

    def loss() -> Tensor:
        return compiled(x)[rows, 0].square().mean()

    loss().backward()
    found = noisynet.doctor(compiled, x, act=greedy(compiled), loss=loss, optimizer=optimizer)
    assert found.ok, str(found)
    assert found["noise in the loss"].status == "pass"
    plain = copy.deepcopy(net)
    units = [
        {name: of.dormant for name, of in noisynet.units(one, x).items()}
        for one in (plain, compiled)
    ]
    assert units[0] == {name.removeprefix("_orig_mod."): share for name, share in units[1].items()}
    noisynet.revive(compiled, optimizer, x)
    monitor = noisynet.NoiseMonitor(compiled, every=1)
    assert monitor.step(x)


def test_a_layer_that_another_network_kept_is_left_out() -> None:
    shared = nn.Linear(P, 16)
    other = nn.Sequential(shared, nn.Linear(16, A))
    net = noisynet.noisify(nn.Sequential(shared, nn.ReLU(), nn.Linear(16, A)))

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + other(x).detach()

    assert noisynet.doctor(Both(), torch.randn(B, P))["units"].status == "pass"
