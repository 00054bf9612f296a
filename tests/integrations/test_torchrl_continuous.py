"""SAC, TD3 and DDPG under TorchRL's own collector and losses, with noise in the actor."""

from __future__ import annotations

import copy
import itertools
import warnings
from typing import Any

import pytest

# The host warns of its own deprecated classes while it is imported.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torchrl.collectors", reason="needs noisynet[torchrl]")

import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import Bounded
from torchrl.envs import Compose, GymEnv, InitTracker, SerialEnv, StepCounter, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import (
    Actor,
    AdditiveGaussianModule,
    OrnsteinUhlenbeckProcessModule,
    ProbabilisticActor,
    TanhModule,
    TanhNormal,
    ValueOperator,
)
from torchrl.objectives import DDPGLoss, SACLoss, SoftUpdate, TD3Loss

import noisynet
from noisynet.control import scale
from noisynet.integrations.torchrl import NoiseControl, NoisyPolicy, attach

pytestmark = [
    pytest.mark.filterwarnings("ignore:No target network updater"),
    pytest.mark.filterwarnings("ignore:The env passed to Collector"),
]

ENVIRONMENTS = 3
ACTION = Bounded(-2.0, 2.0, (1,))
LOSSES = ("sac", "td3", "ddpg")


class Critic(nn.Module):
    """Q of an observation and an action."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([observation, action], -1))


def actor_of(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2 if name == "sac" else 1))
    noisynet.noisify(net)
    if name != "sac":
        actor = Actor(net, in_keys=["observation"], out_keys=["parameter"], spec=None)
        squash = TanhModule(in_keys=["parameter"], out_keys=["action"], low=-2.0, high=2.0)
        return TensorDictSequential(actor, squash)
    return ProbabilisticActor(
        TensorDictModule(
            nn.Sequential(net, NormalParamExtractor()), ["observation"], ["loc", "scale"]
        ),
        in_keys=["loc", "scale"],
        spec=ACTION,
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -2.0, "high": 2.0},
        return_log_prob=True,
    )


def loss_of(name: str, actor: Any, critic: nn.Module | None = None) -> Any:
    q = ValueOperator(critic or Critic(), in_keys=["observation", "action"])
    loss: Any
    if name == "sac":
        loss = SACLoss(actor, q)
    elif name == "td3":
        loss = TD3Loss(actor, q, action_spec=ACTION)
    else:
        loss = DDPGLoss(actor, q, delay_actor=True, delay_value=True)
    loss.make_value_estimator(gamma=0.99)
    SoftUpdate(loss, eps=0.99)
    return loss


def adam(loss: Any) -> torch.optim.Adam:
    return torch.optim.Adam(loss.actor_network_params.flatten_keys().values(), lr=1e-3)


def pendulums(*, tracked: bool = False) -> Any:
    games = SerialEnv(ENVIRONMENTS, lambda: GymEnv("Pendulum-v1"))
    games.set_seed(0)
    if tracked:
        games = TransformedEnv(games, Compose(InitTracker(), StepCounter(max_steps=5)))
    return games


def minibatch(size: int = 8) -> TensorDict:
    seen = torch.randn(size, 3, generator=torch.Generator().manual_seed(0))
    return TensorDict(
        {
            "observation": seen,
            "action": torch.linspace(-1, 1, size)[:, None],
            # The same observations: only the noise can differ.
            "next": {
                "observation": seen,
                "reward": torch.ones(size, 1),
                "done": torch.zeros(size, 1, dtype=torch.bool),
                "terminated": torch.zeros(size, 1, dtype=torch.bool),
            },
        },
        batch_size=[size],
    )


def update(loss: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss(minibatch())["loss_actor"].backward()
    optimizer.step()


def mode(actor: Any, observation: torch.Tensor) -> torch.Tensor:
    """The action without the sampling of SAC's policy."""
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        return actor(TensorDict({"observation": observation}, observation.shape[:1]))["action"]


@pytest.mark.parametrize("name", LOSSES)
def test_noise_acts_in_the_collector_and_sigma_of_the_actor_learns(name: str) -> None:
    actor = actor_of(name)
    loss, policy = loss_of(name, actor), NoisyPolicy(actor)
    optimizer = adam(loss)
    attached = attach(optimizer, loss, policy)
    sigmas = noisynet.sigma_parameters(actor)
    before = [one.detach().clone() for one in sigmas]
    collector: Any = Collector(
        pendulums(), policy, frames_per_batch=2 * ENVIRONMENTS, total_frames=-1
    )
    held = []
    for number, batch in zip(range(6), collector, strict=False):
        assert policy._held is not None
        held.append(policy._held.flats[0].clone())
        with noisynet.mean_weights(actor):
            mean = mode(actor, batch["observation"].reshape(-1, 3))
        if name != "sac":
            assert (batch["action"].reshape(-1, 1) - mean).abs().min() > 1e-6
        if number % 2:
            update(loss, optimizer)
    collector.shutdown()
    assert all(len(one) == len(one.unique(dim=0)) == ENVIRONMENTS for one in held)
    same = [torch.equal(one, other) for one, other in itertools.pairwise(held)]
    assert same == [True, False, True, False, True]
    for was, now in zip(before, sigmas, strict=True):
        assert (now - was).abs().mean() > 1e-4 * was.abs().mean()
    attached.remove()
    assert policy._held is None


@pytest.mark.parametrize("name", LOSSES)
def test_the_actor_draws_apart_for_its_loss_and_for_the_next_actions(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = actor_of(name)
    loss = loss_of(name, actor)
    attach(adam(loss), loss, NoisyPolicy(actor))
    layer = next(iter(noisynet.noisy_layers(loss.actor_network).values()))
    own = type(layer).forward
    added: list[torch.Tensor] = []

    def noting(self: Any, input: torch.Tensor) -> torch.Tensor:
        output = own(self, input)
        if self is layer:
            mean = nn.functional.linear(input, self.weight, self.bias)
            added.append((output - mean).detach())
        return output

    monkeypatch.setattr(type(layer), "forward", noting)
    losses = loss(minibatch())
    (losses["loss_actor"] + losses["loss_value" if name == "ddpg" else "loss_qvalue"]).backward()
    assert len(added) == 2
    assert added[0].abs().max() > 1e-3
    assert added[1].abs().max() > 1e-3
    assert not torch.allclose(*added)
    for sigma in noisynet.sigma_parameters(actor):
        assert sigma.grad is not None
        assert sigma.grad.abs().max() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_deterministic_is_the_mean_weights_where_it_is_asked_for(name: str) -> None:
    actor = actor_of(name)
    policy = NoisyPolicy(actor, mean_when_deterministic=True)
    observation = torch.randn(6, 3)
    with noisynet.mean_weights(actor):
        mean = mode(actor, observation)
    assert torch.equal(mode(policy, observation), mean)
    assert not torch.allclose(mode(NoisyPolicy(actor), observation), mean)


def test_draws_by_episode_last_until_the_episode_ends_whatever_is_updated() -> None:
    actor = actor_of("td3")
    loss, policy = loss_of("td3", actor), NoisyPolicy(actor, redraw="episode")
    optimizer = adam(loss)
    attach(optimizer, loss, policy)
    collector: Any = Collector(
        pendulums(tracked=True), policy, frames_per_batch=ENVIRONMENTS, total_frames=-1
    )
    held = []
    for _, _ in zip(range(11), collector, strict=False):
        assert policy._held is not None
        held.append(policy._held.flats[0].clone())
        update(loss, optimizer)
    collector.shutdown()
    same = [torch.equal(one, other) for one, other in itertools.pairwise(held)]
    assert same == [True] * 4 + [False] + [True] * 4 + [False]
    assert len(held[-1].unique(dim=0)) == ENVIRONMENTS


@pytest.mark.parametrize("shape", [(3,), ()])
def test_an_episode_that_begins_redraws_its_own_environment(shape: tuple[int, ...]) -> None:
    actor = actor_of("td3")
    policy = NoisyPolicy(actor, redraw="episode")

    def play(*begins: bool) -> torch.Tensor:
        seen = TensorDict(
            {
                "observation": torch.ones(*shape, 3),
                "is_init": torch.tensor(begins[: len(shape) * 3 or 1]).reshape(*shape, 1),
            },
            shape,
        )
        return policy(seen)["action"].detach().reshape(-1)

    first = play(True, True, True)
    assert torch.equal(play(False, False, False), first)
    changed = play(True, False, True) != first
    assert changed.tolist() == ([True, False, True] if shape else [True])
    # A copy holds its own, as it sees where episodes begin.
    copied = copy.deepcopy(policy)
    assert copied._held is None
    policy = copied
    assert torch.equal(play(True, True, True), play(False, False, False))


def test_environments_that_do_not_tell_where_an_episode_begins() -> None:
    policy = NoisyPolicy(actor_of("td3"), redraw="episode")
    seen = TensorDict({"observation": torch.ones(2, 3)}, [2])
    expected = r"without 'is_init' for redraw='episode', expected .* torchrl.envs.InitTracker\(\)$"
    policy(seen)
    with pytest.raises(ValueError, match=expected):
        policy(seen)
    wrong: Any = "step"
    with pytest.raises(ValueError, match=r"^redraw: got 'step', expected 'update' or 'episode'$"):
        NoisyPolicy(actor_of("td3"), redraw=wrong)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (AdditiveGaussianModule(ACTION, 0.1, 0.1), "Gaussian noise .*σ = 0.1; .* leaving Additive"),
        (
            OrnsteinUhlenbeckProcessModule(ACTION, 0.2, 0.2),
            "Ornstein-Uhlenbeck noise .*ε = 0.2; .* leaving OrnsteinUhlenbeckProcessModule",
        ),
    ],
)
def test_action_noise_left_on_is_told_how_to_turn_off(module: Any, expected: str) -> None:
    actor = actor_of("td3")
    loss = loss_of("td3", actor)
    policy = TensorDictSequential(NoisyPolicy(actor), module)
    with pytest.warns(UserWarning, match=expected) as seen:
        attach(adam(loss), loss, policy)
    assert [warning.filename for warning in seen] == [__file__]
    silent = AdditiveGaussianModule(ACTION, 0.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(adam(loss), loss, TensorDictSequential(NoisyPolicy(actor), silent))


def test_noise_in_critics_that_the_host_runs_as_one() -> None:
    actor = actor_of("sac")
    critic = Critic()
    noisynet.noisify(critic)
    loss = loss_of("sac", actor, critic)
    with pytest.raises(ValueError, match=r"^SACLoss: got noise in the critics, whose copies the"):
        attach(adam(loss), loss, NoisyPolicy(actor))


def test_the_optimizer_of_the_critics_alone() -> None:
    actor = actor_of("sac")
    loss = loss_of("sac", actor)
    critics = torch.optim.Adam(loss.qvalue_network_params.flatten_keys().values())
    with pytest.raises(ValueError, match=r"the optimizer has no .*weight_sigma"):
        attach(critics, loss, NoisyPolicy(actor))


def test_an_agent_that_is_loaded_acts_as_it_did() -> None:
    actor, other = actor_of("sac"), actor_of("sac", seed=1)
    loss, loaded = loss_of("sac", actor), loss_of("sac", other)
    optimizer = adam(loss)
    attach(optimizer, loss, NoisyPolicy(actor))
    update(loss, optimizer)
    loaded.load_state_dict(loss.state_dict())
    observation = torch.randn(5, 3)
    drawn = noisynet.draw(actor)
    with noisynet.using(actor, drawn), noisynet.using(other, drawn):
        assert torch.equal(mode(actor, observation), mode(other, observation))


@pytest.mark.parametrize("name", LOSSES)
def test_a_deviation_of_the_deterministic_action_is_held(name: str) -> None:
    actor = actor_of(name)
    scale(actor, 5.0)
    options: dict[str, Any] = {"action_deviation": 0.2, "every": 64, "factor": 1.1}
    control = NoiseControl(NoisyPolicy(actor), **options)
    batch = TensorDict({"observation": torch.randn(64, 3)}, [64])
    found = [control(batch)["noise/measured"] for _ in range(80)][-20:]
    assert sum(found) / 20 == pytest.approx(0.2, rel=0.25)
    assert scale(actor) < 5
    assert noisynet.doctor(actor)["control"].message.startswith("target, action deviation 0.2:")


@pytest.mark.parametrize("name", LOSSES)
def test_an_effective_epsilon_of_continuous_actions_is_refused(name: str) -> None:
    kind = "BoundedContinuous" if name == "sac" else "continuous"
    expected = f"got effective ε 0.1 for {kind} actions, expected action_deviation"
    with pytest.raises(TypeError, match=expected):
        NoiseControl(actor_of(name), effective_epsilon=0.1)
