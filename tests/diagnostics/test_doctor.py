"""The doctor itself: what it leaves untouched, what it says of other faults, bad input."""

from __future__ import annotations

import copy
import json
import math
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.diagnostics.checks.draws import kinds_of
from noisynet.diagnostics.forward_calls import calls_of
from noisynet.diagnostics.read_noise import Noise, read_all, read_noise
from noisynet.diagnostics.recognise import find_noisy_layers

P, A, B = 5, 3, 8


def network() -> Any:
    torch.manual_seed(1)
    return noisynet.noisify(nn.Sequential(nn.Linear(P, 32), nn.ReLU(), nn.Linear(32, A)))


class Agent:
    """A double DQN of a few lines that does everything right."""

    def __init__(self) -> None:
        self.online = network()
        self.target = copy.deepcopy(self.online)
        self.optimizer = torch.optim.Adam(self.online.parameters())
        self.batch = torch.randn(B, P)
        noisynet.hold(self.online, rows=B)
        noisynet.hold(self.target)

    def act(self, observation: Tensor) -> Tensor:
        with torch.no_grad():
            return self.online(observation).argmax(-1)

    def evaluate(self, observation: Tensor) -> Tensor:
        with noisynet.mean_weights(self.online):
            return self.act(observation)

    def loss(self) -> Tensor:
        online, target, choice = noisynet.draw(self.online, self.target, self.online)
        with torch.no_grad():
            with noisynet.using(self.online, choice):
                action = self.online(self.batch).argmax(-1, keepdim=True)
            with noisynet.using(self.target, target):
                value = self.target(self.batch).gather(1, action)[:, 0]
        with noisynet.using(self.online, online):
            return (self.online(self.batch)[:, 0] - 1.0 - 0.9 * value).square().mean()

    def update(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()
        noisynet.resample(self.online)

    def examined(self, **changed: Any) -> noisynet.Diagnosis:
        given = {
            "loss": self.loss,
            "target": self.target,
            "act": self.act,
            "evaluate": self.evaluate,
            "optimizer": self.optimizer,
            "update": self.update,
            "epsilon": 0.0,
        }
        return noisynet.doctor(self.online, self.batch, **{**given, **changed})


def everything(agent: Agent) -> list[Any]:
    """All that a visit must leave as it was, as comparable values."""
    held = noisynet.held(agent.online), noisynet.held(agent.target)
    state = agent.optimizer.state_dict()["state"]
    return [
        [(id(one), one.tolist()) for one in agent.online.parameters()],
        [None if one.grad is None else (id(one.grad), one.grad.tolist())
         for one in agent.online.parameters()],
        [[flat.tolist() for flat in draw.flats] for draw in held if draw is not None],
        [id(layer.noise_state.held) for layer in noisynet.noisy_layers(agent.online).values()],
        [part.training for part in agent.online.modules()],
        {number: {name: value.tolist() for name, value in one.items()}
         for number, one in state.items()},
        [one.tolist() for one in agent.target.parameters()],
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global one is what is meant
    ]  # fmt: skip


def test_a_sound_agent_passes_and_is_left_exactly_as_it_was() -> None:
    agent = Agent()
    agent.update()
    agent.loss().backward()
    agent.online[0].eval()
    before = everything(agent)
    diagnosis = agent.examined()
    assert everything(agent) == before
    assert diagnosis.ok
    assert {one.name for one in diagnosis if one.status == "warn"} == set()
    skipped = {one.name for one in diagnosis if one.status == "skipped"}
    # σ has taken two updates, and there is no rollout.
    assert skipped == {"initial sigma", "initial mean", "warm-up", "rollout's draw"}


def test_it_is_left_as_it_was_after_an_error_too() -> None:
    agent = Agent()
    before = everything(agent)

    def breaks() -> None:
        agent.update()
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        agent.examined(update=breaks)
    assert everything(agent) == before


def test_false_alarms_are_rare() -> None:
    # 2 kinds, 40 networks, 12 checks that draw: not one fails.
    for seed in range(40):
        torch.manual_seed(seed)
        kind = "factorised" if seed % 2 else "independent"
        net = nn.Sequential(
            noisynet.NoisyLinear(P, 16, noise=kind), nn.ReLU(),
            noisynet.NoisyLinear(16, 1 + seed % 3, noise=kind),
        )  # fmt: skip
        diagnosis = noisynet.doctor(net, torch.randn(B, P))
        wrong = [str(one) for one in diagnosis if one.status == "fail"]
        assert wrong == [], seed


def test_a_model_on_the_cpu_leaves_the_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *given: asked.append(given))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Agent().examined()
    assert asked == []


def test_the_default_device_does_not_change_the_report() -> None:
    net, x = network(), torch.randn(B, P)

    def said() -> list[tuple[str, str]]:
        torch.manual_seed(3)
        act, loss = lambda seen: net(seen).argmax(-1), lambda: net(x).square().mean()
        return [(one.name, one.status) for one in noisynet.doctor(net, x, act=act, loss=loss)]

    expected = said()
    with torch.device("meta"):
        assert said() == expected


@pytest.mark.parametrize(
    ("outputs", "inputs", "moments", "kind"),
    [(2, 2, 5, "unknown"), (2, 2, 6, "factorised"), (2, 3, 2, "unknown"), (2, 3, 3, "factorised"),
     (4, 8, 1, "factorised")],
)  # fmt: skip
def test_small_matrices_take_more_draws_to_tell_their_kind(
    outputs: int, inputs: int, moments: int, kind: str
) -> None:
    class Like(nn.Module):
        """A layer of another library: what it draws is given."""

        def __init__(self) -> None:
            super().__init__()
            for name in ("mu", "sigma"):
                register = nn.Parameter(torch.ones(outputs, inputs))
                setattr(self, f"weight_{name}", register)

    found = find_noisy_layers(nn.Sequential(Like()))
    torch.manual_seed(0)
    products = [torch.outer(torch.randn(outputs), torch.randn(inputs)) for _ in range(moments)]
    seen = [{"0": Noise(one, has_bias=False)} for one in products]
    assert kinds_of(found, seen) == {"0": kind}
    # One draw that was seen again and again is one draw.
    repeated = kinds_of(found, seen[:1] * moments)["0"]
    assert repeated == ("factorised" if (outputs, inputs) == (4, 8) else "unknown")


def test_how_often_an_independent_matrix_passes_for_a_product() -> None:
    generator = torch.Generator().manual_seed(0)
    for columns, rate in ((2, 0.04), (3, 0.04**2)):
        values = torch.linalg.svdvals(torch.randn(50_000, 2, columns, generator=generator))
        share = float((values[:, 1] < 0.02 * values[:, 0]).float().mean())
        assert abs(share - rate) < 6 * math.sqrt(rate / 50_000)


def test_sgd_without_momentum_does_not_tell_whether_learning_has_begun() -> None:
    for momentum, status in ((0.0, "skipped"), (0.9, "warn")):
        agent = Agent()
        agent.optimizer = torch.optim.SGD(agent.online.parameters(), lr=0.01, momentum=momentum)
        assert agent.examined()["warm-up"].status == status
        agent.update()
        assert agent.examined()["warm-up"].status == "skipped"


@pytest.mark.parametrize(("rows", "status"), [(31, "skipped"), (32, "warn")])
def test_few_observations_are_too_few_to_call_the_noise_idle(rows: int, status: str) -> None:
    net = network()
    with torch.no_grad():
        net[2].bias[1] += 100.0
    policy = noisynet.doctor(net, torch.randn(rows, P))["policy"]
    assert policy.status == status
    assert "effective ε 0.000" in policy.message


def actor(actions: int = 2, bias: float = 1.0) -> Any:
    """A network of continuous actions, the first of them always the largest."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(P, 16), nn.ReLU(), nn.Linear(16, actions), nn.Tanh())
    with torch.no_grad():
        net[2].weight *= 0.1
        net[2].bias.fill_(-bias)[0] = bias
    net = noisynet.noisify(net)
    noisynet.control.scale(net, 0.1)
    return net


def test_continuous_actions_are_no_actions_to_choose_from() -> None:
    batch = torch.randn(64, P)
    mistaken = noisynet.doctor(actor(), batch)["policy"]
    assert mistaken.status == "warn"
    assert "continuous actions, continuous=True" in mistaken.cure
    found = noisynet.doctor(actor(), batch, continuous=True)["policy"]
    assert found.status == "pass"
    assert found.message.startswith("action deviation 0.0")
    # One dimension of an action is enough.
    alone = noisynet.doctor(actor(1), batch)["policy"]
    assert (alone.status, "continuous=True" in alone.message) == ("skipped", True)
    assert noisynet.doctor(actor(1), batch, continuous=True)["policy"].status == "pass"


def test_continuous_actions_that_hardly_move_or_never_change() -> None:
    batch = torch.randn(64, P)
    net = actor()
    noisynet.control.scale(net, 1e-6)
    found = noisynet.doctor(net, batch, continuous=True)["policy"]
    assert found.status == "warn"
    assert "moves no action" in found.message
    found = noisynet.doctor(actor(bias=50.0), batch, continuous=True)["policy"]
    assert found.status == "fail"
    assert "the actions are the same for 64 observations that differ" in found.message
    net[2].weight.data.fill_(math.nan)
    found = noisynet.doctor(net, batch, continuous=True)["policy"]
    assert (found.status, found.message) == ("fail", "by the mean weights, the actions are NaN")


def test_the_deviation_of_continuous_actions_is_that_of_the_noise() -> None:
    # Only the biases have noise, of deviation 0.3: 16 draws of 400 are 6,400 values, whose root
    # mean square has a standard error of 0.3 / √12,800 = 0.0027.
    torch.manual_seed(0)
    net = noisynet.NoisyLinear(P, 400, noise="independent")
    with torch.no_grad():
        net.weight_sigma.zero_()
        net.bias_sigma.fill_(0.3)
    message = noisynet.doctor(net, torch.randn(B, P), continuous=True)["policy"].message
    assert float(message.split()[2].rstrip(":")) == pytest.approx(0.3, abs=0.014)
    assert "16 draws of 8 observations" in message


def test_a_network_that_tells_no_observations_apart_is_dead() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(P, 8), nn.ReLU(), noisynet.NoisyLinear(8, 3))
    observations = torch.randn(32, P)
    assert noisynet.doctor(net, observations)["policy"].status == "pass"
    # Observations that are all alike say nothing of the network.
    assert noisynet.doctor(net, observations[:1].expand(32, -1))["policy"].status == "pass"
    with torch.no_grad():
        net[0].bias -= 100.0
    policy = noisynet.doctor(net, observations)["policy"]
    assert policy.status == "fail"
    assert "the same for 32 observations that differ" in policy.message
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.zero_()
    # Its noise tells no observations apart either; that of a living network does.
    assert noisynet.doctor(net, observations)["policy"].status == "fail"
    with torch.no_grad():
        net[0].bias += 100.0
    assert noisynet.doctor(net, observations)["policy"].status != "fail"


@pytest.mark.parametrize(("told_apart", "status"), [(1e-5, "fail"), (1e-2, "pass")])
def test_a_network_that_hardly_tells_observations_apart_is_dead(
    told_apart: float, status: str
) -> None:
    """Dead networks of Pong had deviations of Q of up to 3.4e-5, living ones of 0.017 or more."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(P, 8), nn.ReLU(), noisynet.NoisyLinear(8, 3))
    with torch.no_grad():
        net[0].weight *= told_apart
        net[0].bias.fill_(1.0)
    assert noisynet.doctor(net, torch.randn(32, P))["policy"].status == status


def test_a_probe_needs_no_square_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    eye = torch.eye

    def noted(*sizes: int, **options: Any) -> Tensor:
        asked.append(sizes)
        return eye(*sizes, **options)

    monkeypatch.setattr(torch, "eye", noted)
    stranger = nn.Module()
    for name in ("mu", "sigma"):
        stranger.register_parameter(f"weight_{name}", nn.Parameter(torch.ones(4, 3136)))
    stranger.forward = lambda x: nn.functional.linear(  # pyright: ignore[reportAttributeAccessIssue]
        x, stranger.weight_mu + stranger.weight_sigma * torch.ones(4, 3136)
    )
    seen = read_noise(find_noisy_layers(nn.Sequential(stranger))["0"])
    assert seen is not None
    assert seen.values.shape == (4, 8)
    assert bool((seen.values == 1).all())
    assert asked == [(8, 3136)]


def test_the_optimizer_s_faults() -> None:
    agent = Agent()
    means = [one for name, one in agent.online.named_parameters() if "sigma" not in name]
    found = agent.examined(optimizer=torch.optim.Adam(means), update=None)
    assert "will never move" in found["optimizer"].message
    assert found["optimizer"].status == found["sigma moves"].status == "fail"
    found = agent.examined(optimizer=torch.optim.AdamW(agent.online.parameters()), update=None)
    assert found["weight decay"].status == "warn"
    assert "weight_decay=0" in found["weight decay"].cure


def test_two_optimizers_of_one_network() -> None:
    agent = Agent()
    of_matrices: Any = getattr(torch.optim, "Muon", torch.optim.SGD)  # from torch 2.9 on

    def pair(without: nn.Parameter | None = None) -> list[torch.optim.Optimizer]:
        given = [one for one in agent.online.parameters() if one is not without]
        matrices, vectors = ([one for one in given if one.ndim == ndim] for ndim in (2, 1))
        return [
            of_matrices(matrices, lr=1e-3, momentum=0.9, weight_decay=0.0),
            torch.optim.AdamW(vectors, weight_decay=0.0),
        ]

    both = pair()
    noisynet.attach(both, agent.online)
    before = everything(agent)
    found = agent.examined(optimizer=both, update=None)
    assert everything(agent) == before
    assert not any(one.state for one in both)
    assert found.ok
    for check in ("optimizer", "weight decay", "sigma moves", "redraw between updates"):
        assert found[check].status == "pass", str(found[check])
    # Either alone lacks some σ, and so may both together.
    for one in both:
        assert agent.examined(optimizer=one, update=None)["optimizer"].status == "fail"
    found = agent.examined(optimizer=pair(without=agent.online[2].weight_sigma), update=None)
    assert "σ of '2' is not in any of the optimizers" in found["optimizer"].message
    assert found["optimizer"].status == found["sigma moves"].status == "fail"
    both[0].param_groups[0]["weight_decay"] = 0.1
    assert "0.1 on σ" in agent.examined(optimizer=both)["weight decay"].message
    # The state of one of them shows that learning has begun.
    assert agent.examined(optimizer=both)["warm-up"].status == "warn"
    agent.loss().backward()
    both[1].step()
    assert "taken steps already" in agent.examined(optimizer=both)["warm-up"].message


def test_a_step_that_takes_a_closure_is_not_tried() -> None:
    agent = Agent()
    optimizer = torch.optim.LBFGS(agent.online.parameters(), max_iter=4)

    def closure() -> float:
        optimizer.zero_grad()
        loss = agent.online(agent.batch).square().mean()
        loss.backward()
        return loss.item()

    def update() -> None:
        optimizer.step(closure)
        noisynet.resample(agent.online)

    def history() -> list[Any]:
        state = optimizer.state_dict()["state"][0]
        return [[one.tolist() for one in state[name]] for name in ("old_dirs", "old_stps", "ro")]

    update()
    before = history()
    assert before[0]
    found = agent.examined(optimizer=optimizer, update=None)
    for check in ("sigma moves", "redraw between updates"):
        assert found[check].status == "skipped"
        assert found[check].message == "the step of LBFGS takes a closure: give update="
    found = agent.examined(optimizer=optimizer, update=update)
    assert found["sigma moves"].status == found["redraw between updates"].status == "pass"
    assert history() == before


def test_sigma_that_is_frozen_collapsed_exploded_or_broken() -> None:
    for change, check, said in (
        (lambda sigma: sigma.requires_grad_(False), "sigma gradient", "frozen"),
        (lambda sigma: sigma.data.fill_(1e-6), "sigma size", "collapsed"),
        (lambda sigma: sigma.data.fill_(1e3), "sigma size", "exploded"),
        (lambda sigma: sigma.data.fill_(float("nan")), "sigma size", "NaN"),
    ):
        agent = Agent()
        change(agent.online[2].weight_sigma)
        finding = agent.examined(update=None)[check]
        assert finding.status == "fail", str(finding)
        assert said in finding.message


def test_no_redraw_between_updates() -> None:
    agent = Agent()

    def update() -> None:
        agent.optimizer.zero_grad()
        agent.loss().backward()
        agent.optimizer.step()

    found = agent.examined(update=update)
    assert found["redraw between updates"].status == "fail"
    assert "attach" in found["redraw between updates"].cure
    # Without `update` one step is tried, and a hook of the optimizer is seen.
    assert agent.examined(update=None)["redraw between updates"].status == "skipped"
    noisynet.attach(agent.optimizer, agent.online)
    assert agent.examined(update=None)["redraw between updates"].status == "pass"


def test_other_exploration_left_on_and_rows_that_share_a_draw() -> None:
    agent = Agent()
    generator = torch.Generator().manual_seed(0)

    def act(observation: Tensor) -> Tensor:
        greedy = agent.act(observation)
        uniform = torch.rand(B, generator=generator) < 0.5
        return torch.where(uniform, torch.randint(A, (B,), generator=generator), greedy)

    found = agent.examined(act=act)["other exploration"]
    assert found.status == "warn"
    assert "under one and the same draw" in found.message
    for option, said in (({"epsilon": 0.1}, "ε = 0.1"), ({"entropy_bonus": 0.01}, "0.01")):
        assert said in agent.examined(**option)["other exploration"].message
    noisynet.hold(agent.online)
    assert agent.examined()["rows"].status == "warn"


@pytest.mark.parametrize("shape", [(B, P), (B, 3, P)])
def test_a_network_that_acts_with_a_forward_for_each_observation(shape: tuple[int, ...]) -> None:
    class Sets(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = noisynet.NoisyLinear(P, A)

        def forward(self, sets: Tensor) -> Tensor:
            return self.layer(sets).reshape(-1, A).mean(0)

    net, sets = Sets(), torch.randn(shape)

    def act(observations: Tensor) -> Tensor:
        return torch.stack([net(one).argmax(-1) for one in observations])

    assert noisynet.doctor(net, sets, act=act)["rows"].status == "pass"
    noisynet.hold(net)
    assert noisynet.doctor(net, sets, act=act)["rows"].status == "warn"


def test_rows_are_not_asked_of_a_single_observation_and_fresh_ones_count() -> None:
    def rows(net: nn.Module, batch: Tensor) -> noisynet.Finding:
        return noisynet.doctor(net, batch, act=lambda seen: net(seen).argmax(-1))["rows"]

    images = torch.randn(B, 2, 4, 4)
    conv = nn.Sequential(noisynet.NoisyConv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, A))
    assert rows(conv, images[:1]).status == "skipped"
    shared = rows(conv, images)
    assert shared.status == "warn"
    assert f"all {B} rows" in shared.message
    noisynet.hold(conv, rows=B)
    assert rows(conv, images).message == f"a draw for each of {B} rows"
    sets = nn.Sequential(noisynet.NoisyLinear(P, A), nn.Flatten())
    assert rows(sets, torch.randn(1, 3, P)).status == "skipped"
    net, batch = network(), torch.randn(B, P)
    noisynet.release(net, per_row=True)
    assert rows(net, batch).status == "pass"
    # What `using` puts in force is one draw for all.
    with noisynet.using(net, noisynet.draw(net)):
        assert rows(net, batch).status == "warn"


def test_a_layer_with_states_beside_its_output_is_learned_from() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = noisynet.NoisyLSTM(P, 8)
            self.head = nn.Linear(8, A)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.memory(x.unsqueeze(0))[0][0])

    net, batch = Recurrent(), torch.randn(B, P)
    found = noisynet.doctor(net, batch, loss=lambda: net(batch).square().mean())
    assert found["noise in the loss"].status == "pass"
    assert found["draws in the loss"].status == "skipped"


def test_layers_of_one_forward_are_told_apart() -> None:
    net = network()
    x = torch.randn(B, P)

    def run() -> None:
        # A module may lie where one that is gone lay.
        for number in range(40):
            (noisynet.NoisyLinear(P, A) if number % 2 else nn.Linear(P, A))(x)

    assert len(calls_of(find_noisy_layers(net), run)) == 20


def test_a_target_within_a_wrapper_that_has_the_online_draw() -> None:
    agent = Agent()
    drawn = noisynet.draw(agent.online)
    noisynet.hold(agent.online, agent.target, drawn=drawn)
    target = nn.ModuleDict({"wrapped": agent.target})
    found = noisynet.doctor(agent.online, target=target)["target"]
    assert found.status == "fail"
    assert "the same draw in '0', '2'" in found.message
    noisynet.resample(agent.target)
    assert noisynet.doctor(agent.online, target=target)["target"].status == "pass"


def test_layers_that_cannot_be_looked_into() -> None:
    class TwoInputs(nn.Module):
        """A layer of another library that needs more than its input."""

        def __init__(self) -> None:
            super().__init__()
            self.weight_mu = nn.Parameter(torch.randn(A, P))
            self.weight_sigma = nn.Parameter(torch.full((A, P), 0.1))

        def forward(self, x: Tensor, noise: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight_mu + self.weight_sigma * noise)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = TwoInputs()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, torch.randn(A, P))

    net = Net()
    found = noisynet.doctor(net, torch.randn(B, P), act=net, evaluate=net, target=Net())
    for check in ("acting", "evaluation", "target"):
        assert found[check].status == "skipped", str(found[check])


def test_an_update_that_breaks_sigma() -> None:
    agent = Agent()

    def update() -> None:
        with torch.no_grad():
            agent.online[2].weight_sigma.fill_(float("nan"))

    found = agent.examined(update=update)["sigma moves"]
    assert found.status == "fail"
    assert "σ of '2' is NaN or infinite after an update" in found.message


def test_a_counter_in_the_state_dict_is_no_noise() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight_mu = nn.Parameter(torch.randn(A, P))
            self.weight_sigma = nn.Parameter(torch.full((A, P), 0.1))
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            noise = torch.randn(A, P)
            return nn.functional.linear(x, self.weight_mu + self.weight_sigma * noise)

    assert noisynet.doctor(Counting())["state_dict"].status == "pass"
    named = Counting()
    named.register_buffer("eps_q", torch.zeros(A))
    assert noisynet.doctor(named)["state_dict"].status == "fail"


def test_a_rollout_learned_under_another_draw() -> None:
    agent = Agent()
    picked = torch.tensor([3, 1, 4, 1])

    def policy_loss() -> Tensor:
        return agent.online(agent.batch).log_softmax(-1)[:, 0].mean()

    def minibatch_loss(drawn: noisynet.Draw) -> Tensor:
        with noisynet.using(agent.online, drawn[picked]):
            return agent.online(agent.batch[picked]).log_softmax(-1)[:, 0].mean()

    def resampled_loss() -> Tensor:
        noisynet.resample(agent.online)
        return policy_loss()

    options: dict[str, Any] = {"on_policy": True, "update": None, "target": None}
    assert agent.examined(loss=policy_loss, **options)["rollout's draw"].status == "pass"
    assert agent.examined(loss=resampled_loss, **options)["rollout's draw"].status == "fail"
    # A shuffled minibatch has rows of the draw that acted.
    acted, other = noisynet.held(agent.online), noisynet.draw(agent.online, rows=B)
    assert acted is not None
    for drawn, status in ((acted, "pass"), (other, "fail")):
        found = agent.examined(loss=lambda drawn=drawn: minibatch_loss(drawn), **options)
        assert found["rollout's draw"].status == status


def test_a_diagnosis_is_a_value() -> None:
    diagnosis = noisynet.doctor(network(), torch.randn(B, P))
    document = json.loads(json.dumps(diagnosis.to_json()))
    assert document["ok"] is True
    assert [one["name"] for one in document["findings"]] == [one.name for one in diagnosis]
    assert (
        len(str(diagnosis).splitlines()) == len(diagnosis) == len({one.name for one in diagnosis})
    )
    with pytest.raises(KeyError):
        diagnosis["nothing"]


def test_bad_input() -> None:
    net, batch = network(), torch.randn(B, P)
    with pytest.raises(TypeError, match=r"model: got list, expected an nn\.Module"):
        noisynet.doctor([], batch)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="target: got int"):
        noisynet.doctor(net, batch, target=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="act: got int, expected a function"):
        noisynet.doctor(net, batch, act=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^optimizer: got an empty list, expected the torch"):
        noisynet.doctor(net, batch, optimizer=[])
    for wrong in (net, [torch.optim.Adam(net.parameters()), net]):
        with pytest.raises(TypeError, match=r"^optimizer: got Sequential, expected the torch"):
            noisynet.doctor(net, batch, optimizer=wrong)
    with pytest.raises(TypeError, match=r"loss: its function gave shape \(8, 3\)"):
        noisynet.doctor(net, batch, loss=lambda: net(batch))
    with pytest.raises(TypeError, match="loss: its function gave float"):
        noisynet.doctor(net, batch, loss=lambda: 1.0)  # pyright: ignore[reportArgumentType]


def test_what_is_recognised_and_what_is_not() -> None:
    class GaussianPolicy(nn.Module):
        """A policy with a deviation, which is no noise in weights."""

        def __init__(self) -> None:
            super().__init__()
            self.mu = nn.Linear(4, 2)
            self.log_std = nn.Parameter(torch.zeros(2))

    class TwoHeads(nn.Module):
        """A policy with a head for the mean and one for the deviation."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 8)
            self.mu, self.sigma = nn.Linear(8, 2), nn.Linear(8, 2)

    assert find_noisy_layers(GaussianPolicy()) == find_noisy_layers(TwoHeads()) == {}
    assert find_noisy_layers(nn.LayerNorm(4)) == {}
    cells = nn.ModuleDict(
        {"cell": noisynet.NoisyLSTMCell(3, 4), "conv": noisynet.NoisyConv2d(1, 2, 3)}
    )
    found = find_noisy_layers(cells)
    assert set(found) == {"cell", "conv"}
    assert found["cell"].sigmas[:2] == ("weight_ih_sigma", "weight_hh_sigma")
    assert found["conv"].inputs == 9
    assert noisynet.doctor(cells).ok


@pytest.mark.parametrize("noise", ["factorised", "independent"])
def test_recurrent_transposed_and_normalised_layers_are_read(noise: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = noisynet.NoisyLSTM(P, 4, 2, bidirectional=True, noise=noise)
            self.up = noisynet.NoisyConvTranspose1d(1, 2, 3, noise=noise)
            plain = nn.utils.parametrizations.spectral_norm(nn.Linear(20, A))
            self.head = noisynet.noisify(plain, noise=noise)

        def forward(self, x: Tensor) -> Tensor:
            features = self.memory(x.unsqueeze(0))[0][0]
            return self.head(self.up(features.unsqueeze(1)).flatten(1))

    net, x = Net(), torch.randn(B, P)
    noisynet.hold(net, rows=B)
    found = find_noisy_layers(net)
    kinds = kinds_of(found, [read_all(found)])
    assert kinds == dict.fromkeys(("memory", "up", "head"), noise)
    assert {name: (one.inputs, one.outputs) for name, one in found.items()} == {
        "memory": (P, 16),
        "up": (3, 2),
        "head": (20, A),
    }
    before = copy.deepcopy(net.state_dict())
    diagnosis = noisynet.doctor(net, x)
    assert [one.name for one in diagnosis if one.status == "fail"] == []
    # No step of the power iteration either.
    assert all(torch.equal(before[name], one) for name, one in net.state_dict().items())
