"""DQN under TorchRL's own collector and losses: does the noise act, differ and learn?"""

from __future__ import annotations

import copy
import functools
import itertools
import pickle
import warnings
from typing import Any

import pytest

# The host warns of its own deprecated classes while it is imported.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torchrl.collectors", reason="needs noisynet[torchrl]")

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector, MultiSyncCollector
from torchrl.data import Categorical, MultiCategorical, OneHot
from torchrl.envs import Compose, GymEnv, InitTracker, SerialEnv, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import (
    DistributionalQValueActor,
    LSTMModule,
    OneHotCategorical,
    ProbabilisticActor,
    QValueActor,
    QValueModule,
    reset_noise,
)
from torchrl.modules import NoisyLinear as StockNoisyLinear
from torchrl.objectives import DistributionalDQNLoss, DQNLoss, SoftUpdate
from torchrl.trainers import Trainer

import noisynet
from noisynet.control import Linear, scale
from noisynet.integrations.torchrl import NoiseControl, NoisyPolicy, attach

# The host's own advice about targets and transforms, which these tests look after themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore:No target network updater"),
    pytest.mark.filterwarnings("ignore:The env passed to Collector"),
]

ENVIRONMENTS = 4


def actor_of(net: nn.Module, **options: Any) -> QValueActor:
    return QValueActor(
        net, in_keys=["observation"], spec=Categorical(2), action_space="categorical", **options
    )


def noisy_actor(seed: int = 0, **options: Any) -> QValueActor:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    return actor_of(noisynet.noisify(net, **options))


def stock_actor() -> QValueActor:
    torch.manual_seed(0)
    return actor_of(nn.Sequential(StockNoisyLinear(4, 16), nn.ReLU(), StockNoisyLinear(16, 2)))


def loss_of(actor: QValueActor, **options: Any) -> DQNLoss:
    loss = DQNLoss(actor, action_space="categorical", **{"double_dqn": True, **options})
    loss.make_value_estimator(gamma=0.99)
    # Updates of the target are not what is looked at; without one the host warns.
    SoftUpdate(loss, eps=0.99)
    return loss


def minibatch(size: int = 16) -> TensorDict:
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(2, size, 4, generator=generator)
    return TensorDict(
        {
            "observation": observation[0],
            "action": torch.arange(size) % 2,
            "next": {
                "observation": observation[1],
                "reward": torch.ones(size, 1),
                "done": torch.zeros(size, 1, dtype=torch.bool),
                "terminated": torch.zeros(size, 1, dtype=torch.bool),
            },
        },
        batch_size=[size],
    )


class Learner:
    """A noisy agent of the host, with what it collects."""

    def __init__(self, actor: QValueActor | None = None) -> None:
        self.actor = noisy_actor() if actor is None else actor
        self.loss = loss_of(self.actor)
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=1e-3)
        self.policy = NoisyPolicy(self.actor)
        self.attached = attach(self.optimizer, self.loss, self.policy)
        games = SerialEnv(
            ENVIRONMENTS, lambda: GymEnv("CartPole-v1", categorical_action_encoding=True)
        )
        games.set_seed(0)
        self.collector: Any = Collector(
            games, self.policy, frames_per_batch=2 * ENVIRONMENTS, total_frames=-1
        )
        self.batches = iter(self.collector)

    def update(self) -> None:
        self.optimizer.zero_grad()
        self.loss(minibatch())["loss"].backward()
        self.optimizer.step()


def share_changed(actor: QValueActor, batch: Any) -> float:
    with noisynet.mean_weights(actor), torch.no_grad():
        mean = actor(batch.select("observation").clone())["action"]
    return float((batch["action"] != mean).float().mean())


def test_noise_acts_under_the_host_s_collector_and_sigma_learns() -> None:
    learner = Learner()
    sigmas = noisynet.sigma_parameters(learner.actor)
    before = [one.detach().clone() for one in sigmas]
    shares = []
    for _ in range(40):
        shares.append(share_changed(learner.actor, next(learner.batches)))
        learner.update()
    assert 0.02 < sum(shares) / len(shares) < 0.9
    for was, now in zip(before, sigmas, strict=True):
        assert now.grad is not None
        assert now.grad.abs().max() > 0
        assert (now - was).abs().mean() > 0.005 * was.abs().mean()
    learner.collector.shutdown()


def test_environments_have_draws_of_their_own_until_the_next_step_of_the_optimizer() -> None:
    learner = Learner()
    held = []
    for _ in range(3):
        for _ in range(2):
            next(learner.batches)
            assert learner.policy._held is not None
            held.append(learner.policy._held.flats[0].clone())
        learner.update()
    assert all(len(draw) == len(draw.unique(dim=0)) == ENVIRONMENTS for draw in held)
    same = [torch.equal(one, other) for one, other in itertools.pairwise(held)]
    assert same == [True, False, True, False, True]
    learner.collector.shutdown()


@pytest.mark.parametrize("exploration", list(ExplorationType)[:4])
def test_no_exploration_type_switches_the_noise_off(exploration: ExplorationType) -> None:
    policy = NoisyPolicy(noisy_actor())
    observation = TensorDict({"observation": torch.ones(6, 4)}, [6])
    with set_exploration_type(exploration):
        q = policy(observation)["action_value"]
    assert len(q.unique(dim=0)) == 6


def test_deterministic_is_the_mean_weights_where_it_is_asked_for() -> None:
    actor = noisy_actor()
    policy = NoisyPolicy(actor, mean_when_deterministic=True)
    observation = torch.randn(6, 4)

    def q(kind: ExplorationType) -> torch.Tensor:
        with set_exploration_type(kind), torch.no_grad():
            return policy(TensorDict({"observation": observation}, [6]))["action_value"]

    with noisynet.mean_weights(actor), torch.no_grad():
        mean = actor(TensorDict({"observation": observation}, [6]))["action_value"]
    assert torch.equal(q(ExplorationType.DETERMINISTIC), mean)
    assert not torch.allclose(q(ExplorationType.RANDOM), mean)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_batch_of_any_shape_has_a_draw_for_each_element(shape: tuple[int, ...]) -> None:
    policy = NoisyPolicy(noisy_actor())
    asked = TensorDict({"observation": torch.ones(*shape, 4)}, shape)
    answer = policy(asked)
    assert answer is asked
    assert answer["action"].shape == shape
    q = answer["action_value"].reshape(-1, 2)
    assert len(q.unique(dim=0)) == len(q)


class Sets(nn.Module):
    """(environments, entities, 4) to Q: the rows of its first layer are the entities."""

    def __init__(self) -> None:
        super().__init__()
        self.entity, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.head(self.entity(seen).relu().mean(-2))


class EntitiesFirst(Sets):
    """The entities before the environments, as a transformer takes them."""

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.head(self.entity(seen.transpose(0, 1)).relu().mean(0))


@pytest.mark.parametrize("shape", [(3,), (2,), (2, 2)])
@pytest.mark.parametrize("kind", [Sets, EntitiesFirst])
def test_over_sets_the_rows_of_a_draw_are_the_environments(
    kind: type[nn.Module], shape: tuple[int, ...]
) -> None:
    """With as many entities as environments, too."""
    actor = actor_of(noisynet.noisify(kind()))
    policy = NoisyPolicy(actor)
    policy.hold()
    seen = torch.randn(*shape, 3, 4)
    asked = TensorDict({"observation": seen}, shape)
    answer = policy(asked)
    assert answer is asked
    values = answer["action_value"].reshape(-1, 2)
    for row, one in enumerate(seen.reshape(-1, 3, 4)):
        with noisynet.using(actor, policy._held[row]):
            expected = actor(TensorDict({"observation": one[None]}, [1]))
        assert torch.allclose(values[row], expected["action_value"][0])
        assert answer["action"].reshape(-1)[row] == expected["action"][0]


def test_a_recurrent_actor_has_a_draw_for_each_environment() -> None:
    memory = LSTMModule(input_size=4, hidden_size=4, in_key="observation", out_key="seen")
    head = noisynet.noisify(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    actor = QValueActor(head, in_keys=["seen"], spec=Categorical(2), action_space="categorical")
    both = TensorDictSequential(memory, actor)
    games = SerialEnv(2, lambda: GymEnv("CartPole-v1", categorical_action_encoding=True))
    games = TransformedEnv(games, Compose(InitTracker(), memory.make_tensordict_primer()))
    policy = NoisyPolicy(both)
    policy.hold()
    played = games.rollout(5, policy, break_when_any_done=False)
    for row in range(2):
        with noisynet.using(both, policy._held[row]), torch.no_grad():
            values = head(played["seen"][row])
        assert torch.allclose(values, played["action_value"][row], atol=1e-6)


def forwards(loss: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, torch.Tensor]]:
    """Run a loss; for each forward of its first layer, whose weight it had and what noise added."""
    layer = next(iter(noisynet.noisy_layers(loss.value_network).values()))
    kind = type(layer)
    own = kind.forward
    seen: list[tuple[int, torch.Tensor]] = []

    def noting(self: Any, input: torch.Tensor) -> torch.Tensor:
        output = own(self, input)
        if self is layer:
            mean = nn.functional.linear(input, self.weight, self.bias)
            seen.append((self.weight.data_ptr(), (output - mean).detach()))
        return output

    monkeypatch.setattr(kind, "forward", noting)
    batch = minibatch()
    # The same observations everywhere: only the noise can differ.
    batch["next", "observation"] = batch["observation"]
    loss(batch)["loss"].backward()
    return seen


def distributional() -> tuple[QValueActor, DistributionalDQNLoss]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 22), nn.Unflatten(-1, (11, 2)))
    actor = DistributionalQValueActor(
        noisynet.noisify(net),
        in_keys=["observation"],
        support=torch.linspace(0, 20, 11),
        spec=Categorical(2),
        action_space="categorical",
    )
    loss = DistributionalDQNLoss(actor, gamma=0.99, delay_value=True)
    SoftUpdate(loss, eps=0.99)
    return actor, loss


@pytest.mark.parametrize(("name", "count"), [("single", 2), ("double", 3), ("distributional", 3)])
def test_online_target_and_choice_draw_apart_in_the_loss(
    name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "distributional":
        actor, loss = distributional()
    else:
        actor = noisy_actor()
        loss = loss_of(actor, double_dqn=name == "double")
    attach(torch.optim.Adam(loss.parameters()), loss, NoisyPolicy(actor))
    seen = forwards(loss, monkeypatch)
    assert len(seen) == count
    assert len({pointer for pointer, _ in seen}) == 2, "the online and the target parameters"
    for number, (_, added) in enumerate(seen):
        assert added.abs().max() > 1e-3
        for _, other in seen[:number]:
            assert not torch.allclose(added, other)
    for sigma in noisynet.sigma_parameters(actor):
        assert sigma.grad is not None
        assert sigma.grad.abs().max() > 0


def test_the_target_has_sigma_and_no_noise_of_its_own_to_copy() -> None:
    loss = loss_of(noisy_actor())
    target = loss.target_value_network_params.flatten_keys(".")
    online = loss.value_network_params.flatten_keys(".")
    assert sum("sigma" in key for key in target.keys()) == 4  # noqa: SIM118
    assert not any("epsilon" in key for key in loss.state_dict())
    for key in online.keys():  # noqa: SIM118
        assert torch.equal(online[key].data, target[key])


def test_a_copy_draws_anew_at_every_forward() -> None:
    learner = Learner()
    observation = torch.ones(ENVIRONMENTS, 4)

    def q(policy: NoisyPolicy) -> torch.Tensor:
        with torch.no_grad():
            return policy(TensorDict({"observation": observation}, [ENVIRONMENTS]))["action_value"]

    assert torch.equal(q(learner.policy), q(learner.policy))
    for copied in (copy.deepcopy(learner.policy), pickle.loads(pickle.dumps(learner.policy))):
        assert not torch.allclose(q(copied), q(copied))
    learner.attached.remove()
    assert not torch.allclose(q(learner.policy), q(learner.policy))
    learner.collector.shutdown()


def test_a_policy_that_is_moved_draws_where_its_layers_are() -> None:
    policy = NoisyPolicy(noisy_actor())
    policy.hold()
    for dtype in (torch.float32, torch.float64):
        policy.to(dtype)
        observed = TensorDict({"observation": torch.ones(2, 4, dtype=dtype)}, [2])
        q = [policy(observed.clone())["action_value"] for _ in range(2)]
        assert q[0].dtype == dtype
        assert torch.equal(*q)


def test_an_agent_that_is_loaded_goes_on_as_it_was() -> None:
    learner = Learner()
    for _ in range(4):
        learner.update()
    other = Learner(noisy_actor(seed=1))
    other.loss.load_state_dict(learner.loss.state_dict())
    # What is written to a file is a copy.
    other.optimizer.load_state_dict(copy.deepcopy(learner.optimizer.state_dict()))
    observation = torch.randn(64, 4)
    drawn = noisynet.draw(learner.actor)
    values = []
    for one in (learner, other):
        with noisynet.using(one.actor, drawn), torch.no_grad():
            values.append(one.actor(TensorDict({"observation": observation}, [64])))
    assert torch.equal(values[0]["action_value"], values[1]["action_value"])
    # Under one seed both make the same update, to σ too.
    for one in (learner, other):
        torch.manual_seed(3)
        one.update()
    pairs = zip(learner.actor.parameters(), other.actor.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert 0.0 < share_changed(other.actor, _collected(other)) < 1.0
    for one in (learner, other):
        one.collector.shutdown()


def _collected(learner: Learner, batches: int = 10) -> Any:
    return torch.cat([next(learner.batches).clone() for _ in range(batches)])


def sigma_gradients(actor: QValueActor, loss: DQNLoss) -> list[torch.Tensor | None]:
    loss(minibatch())["loss"].backward()
    return [one.grad for name, one in actor.named_parameters() if "sigma" in name]


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="losses run in a deterministic exploration type"
)
def test_sigma_of_the_host_s_own_layer_learns() -> None:
    actor = stock_actor()
    for gradient in sigma_gradients(actor, loss_of(actor)):
        assert gradient is not None
        assert gradient.abs().max() > 0


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="the loss keeps its module out of its children"
)
def test_resetting_the_noise_of_the_host_s_loss_redraws_its_layers() -> None:
    actor = stock_actor()
    loss = loss_of(actor)
    before = actor.module[0].module[0].weight_epsilon.clone()
    loss.apply(reset_noise)
    assert not torch.equal(actor.module[0].module[0].weight_epsilon, before)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="one draw for the whole batch")
def test_environments_have_draws_of_their_own_with_the_host_s_layer() -> None:
    actor = stock_actor()
    with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
        q = actor(TensorDict({"observation": torch.ones(6, 4)}, [6]))["action_value"]
    assert len(q.unique(dim=0)) == 6


def test_sigma_of_our_layer_learns_in_the_same_loss() -> None:
    actor = noisy_actor()
    for gradient in sigma_gradients(actor, loss_of(actor)):
        assert gradient is not None
        assert gradient.abs().max() > 0


def test_noise_in_one_layer_alone() -> None:
    actor = actor_of(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), noisynet.NoisyLinear(16, 2)))
    policy = NoisyPolicy(TensorDictModule(actor, ["observation"], ["action_value"]).module)
    assert list(noisynet.noisy_layers(policy)) == ["td_module.module.0.module.2"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_worker_processes_draw_apart_and_anew_at_every_step() -> None:
    torch.manual_seed(0)
    # The threshold shows the layers ones whatever is observed: only noise makes Q differ.
    net = nn.Sequential(nn.Threshold(1e9, 1.0), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    policy = NoisyPolicy(actor_of(noisynet.noisify(net)))
    make = functools.partial(GymEnv, "CartPole-v1", categorical_action_encoding=True)
    collector: Any = MultiSyncCollector(
        [make, make], policy, frames_per_batch=16, total_frames=32, cat_results="stack"
    )
    try:
        collector.set_seed(0)
        q = torch.cat([batch["action_value"].reshape(-1, 2).clone() for batch in collector])
    finally:
        collector.shutdown()
    assert len(q) == len(q.unique(dim=0)) == 32


def collected(size: int = 8) -> TensorDict:
    return TensorDict({"observation": torch.randn(size, 4)}, [size])


def test_a_schedule_over_frames_sets_actor_and_loss() -> None:
    actor = noisy_actor()
    loss = loss_of(actor)
    control = NoiseControl(NoisyPolicy(actor), Linear(1.0, 0.2, until=32))
    moved = [control(collected().reshape(2, 4))["noise/scale"] for _ in range(5)]
    assert moved == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.2])
    assert scale(actor) == scale(loss.value_network) == pytest.approx(0.2)
    masked = collected()
    masked["collector", "mask"] = torch.arange(8) < 3
    control(masked)
    assert control.state_dict()["frames"] == 5 * 8 + 3
    other = NoiseControl(noisy_actor(), Linear(1.0, 0.2, until=32))
    other.load_state_dict(control.state_dict())
    assert other.scale == control.scale
    with pytest.raises(TypeError, match="NoiseControl: got NoneType, expected a batch"):
        control(None)  # pyright: ignore[reportArgumentType]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_target_is_measured_on_a_batch_of_another_device() -> None:
    control = NoiseControl(noisy_actor().cuda(), effective_epsilon=0.1, every=8)
    assert "noise/measured" in control(collected())


@pytest.mark.parametrize("atoms", [False, True])
def test_a_target_is_measured_on_what_was_collected(atoms: bool) -> None:
    torch.manual_seed(0)
    actor = distributional()[0] if atoms else noisy_actor()
    scale(actor, 5.0)
    control = NoiseControl(actor, effective_epsilon=0.1, every=16, draws=32)
    batch = collected(64)
    held = noisynet.draw(actor)
    before = torch.get_rng_state()
    noisynet.hold(actor, drawn=held)
    for _ in range(60):
        figures = control(batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert scale(actor) == figures["noise/scale"] < 5
    changed = []
    for _ in range(64):
        with noisynet.using(actor, noisynet.draw(actor)):
            noisy = actor(batch.clone())["action"]
        with noisynet.mean_weights(actor):
            changed.append((noisy != actor(batch.clone())["action"]).float().mean())
    assert float(torch.stack(changed).mean()) == pytest.approx(0.1, rel=0.5)


def logits_actor(spec: Any, kind: Any) -> ProbabilisticActor:
    net = TensorDictModule(noisynet.noisify(nn.Linear(4, 3)), ["observation"], ["logits"])
    return ProbabilisticActor(net, in_keys=["logits"], distribution_class=kind, spec=spec)


def test_a_target_that_does_not_fit_the_actions_is_refused() -> None:
    for actor in (noisy_actor(), NoisyPolicy(noisy_actor()), distributional()[0]):
        with pytest.raises(TypeError, match=r"got action deviation 0\.2 for Categorical actions"):
            NoiseControl(actor, action_deviation=0.2)
    without_spec = QValueActor(
        noisynet.noisify(nn.Linear(4, 2)), in_keys=["observation"], action_space="categorical"
    )
    with pytest.raises(
        TypeError, match=r"got action deviation 0\.2 for discrete actions, expected"
    ):
        NoiseControl(without_spec, action_deviation=0.2)
    several = logits_actor(MultiCategorical([2, 2]), OneHotCategorical)
    for options in ({"action_deviation": 0.2}, {"effective_epsilon": 0.1}):
        with pytest.raises(TypeError, match="for MultiCategorical actions, expected a schedule"):
            NoiseControl(several, **options)
    NoiseControl(several, Linear(1.0, 0.2, until=32))


def test_values_with_a_name_of_their_own_are_measured() -> None:
    torch.manual_seed(0)
    net = TensorDictModule(noisynet.noisify(nn.Linear(4, 2)), ["observation"], [("q", "of_all")])
    chooses = QValueModule(
        action_space="categorical",
        action_value_key=("q", "of_all"),
        out_keys=["action", ("q", "of_all"), "chosen"],
    )
    actor = TensorDictSequential(net, chooses)
    with pytest.raises(TypeError, match=r"got action deviation 0\.2 for discrete actions"):
        NoiseControl(actor, action_deviation=0.2)
    control = NoiseControl(actor, effective_epsilon=0.1, every=8)
    assert 0 < control(collected())["noise/measured"] <= 1


def test_the_effective_epsilon_of_logits_wants_to_know_them() -> None:
    actor = logits_actor(OneHot(3), OneHotCategorical)
    with pytest.raises(TypeError, match=r"without 'action_value', expected values="):
        NoiseControl(actor, effective_epsilon=0.1)
    control = NoiseControl(
        actor, effective_epsilon=0.1, every=8, values=lambda output: output["logits"]
    )
    assert 0 <= control(collected())["noise/measured"] <= 1


@pytest.mark.filterwarnings("ignore:The .optimizer. hook stage:FutureWarning")
def test_the_host_s_trainer_moves_the_scale_and_logs_it() -> None:
    learner = Learner()
    control = NoiseControl(learner.policy, effective_epsilon=0.1, every=16, observations=32)
    trainer = Trainer(
        collector=learner.collector,
        total_frames=96,
        frame_skip=1,
        optim_steps_per_batch=1,
        loss_module=learner.loss,
        optimizer=learner.optimizer,
        progress_bar=False,
    )
    control.register(trainer)
    trainer.register_op("process_optim_batch", lambda _: minibatch())
    trainer.train()
    assert control.target.measurements == 6
    assert trainer._log_dict["noise/scale"][-1] == scale(learner.actor) != 1
    assert len(trainer._log_dict["noise/measured"]) == 6
    with pytest.raises(ValueError, match="has no noisy layer"):
        NoiseControl(actor_of(nn.Linear(4, 2)), effective_epsilon=0.1)
