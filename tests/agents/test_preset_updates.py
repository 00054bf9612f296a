"""The whole update of each paper's preset against a slow one in float64.

The slow one knows neither our layers nor our losses: torch's convolutions and products, the noisy
weight built as the paper writes it, spectral norm by its definition, the loss summed row by row,
the gradient by autograd, clipping, Adam and RMSProp by their formulas. Two updates, so that the
optimizer's memory counts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from noisynet import Draw, held
from noisynet.agents import ActorCritic, QLearning, Rollout, SampledQuantiles
from noisynet.assemble import build_agent
from noisynet.assemble.agents import step_size
from noisynet.layers.noise import FactorisedNoise, IndependentNoise
from noisynet.replay import Batch
from noisynet.runs import config
from noisynet.runs.config import Config

SHAPE, ACTIONS, BATCH, STEPS = (4, 84, 84), 6, 6, 5
Parameters = dict[str, Tensor]


def double_copy(network: torch.nn.Module) -> Parameters:
    """Copy what is learned, and the vectors of spectral norm beside it."""
    estimates = {
        name: value.double().clone()
        for name, value in network.named_buffers()
        if name.endswith(("_u", "_v"))
    }
    learned = {
        name: value.detach().double().clone().requires_grad_()
        for name, value in network.named_parameters()
    }
    return learned | estimates


def linear(parameters: Parameters, noise: Draw | None, name: str, x: Tensor) -> Tensor:
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    if noise is not None and f"{name}.weight_sigma" in parameters:
        drawn = noise.layer(name)
        if isinstance(drawn, FactorisedNoise):
            epsilon_bias = drawn.output.double()
            epsilon = torch.outer(epsilon_bias, drawn.input.double())
        else:
            assert isinstance(drawn, IndependentNoise)
            assert drawn.bias is not None
            epsilon, epsilon_bias = drawn.weight.double(), drawn.bias.double()
        weight = weight + parameters[f"{name}.weight_sigma"] * epsilon
        bias = bias + parameters[f"{name}.bias_sigma"] * epsilon_bias
    return x @ weight.T + bias


STRIDES = {"nature": (4, 2, 1), "data-efficient": (5, 5)}


def strided(parameters: Parameters, frames: np.ndarray, torso: str = "nature") -> Tensor:
    x = torch.from_numpy(frames).double() / 255
    for number, stride in enumerate(STRIDES[torso]):
        name = f"torso.convolutions.{2 * number}"
        x = functional.conv2d(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"], stride)
        x = x.relu()
    return x.flatten(1)


def normed(parameters: Parameters, name: str, *, learns: bool) -> Tensor:
    """Divide a weight by its largest singular value, as far as its vectors u and v know it.

    Where the network learns, they take a step of the power iteration first, and are constants
    (arXiv 1802.05957, §2.1 and algorithm 1).
    """
    weight = parameters[f"{name}.parametrizations.weight.original"]
    matrix = weight.flatten(1)
    u, v = (parameters[f"{name}.parametrizations.weight.0._{one}"] for one in "uv")
    if learns:
        with torch.no_grad():
            u.copy_(matrix @ v).div_(u.norm().clamp_min(1e-12))
            v.copy_(matrix.T @ u).div_(v.norm().clamp_min(1e-12))
    return weight / (u.clone() @ matrix @ v.clone())


def impala(parameters: Parameters, frames: np.ndarray, *, learns: bool) -> Tensor:
    def residual(name: str, x: Tensor) -> Tensor:
        for part in ("1", "3"):
            part = f"{name}.{part}"
            weight = normed(parameters, part, learns=learns)
            x = functional.conv2d(x.relu(), weight, parameters[f"{part}.bias"], padding=1)
        return x

    x = torch.from_numpy(frames).double() / 255
    for block in range(3):
        name = f"torso.convolutions.{4 * block}"
        x = functional.conv2d(
            x, parameters[f"{name}.weight"], parameters[f"{name}.bias"], padding=1
        )
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for unit in (1, 2):
            x = x + residual(f"torso.convolutions.{4 * block + 1 + unit}", x)
    return functional.adaptive_max_pool2d(x, 6).relu().flatten(1)


class SlowOptimizer:
    """Clip the gradient's norm, then step as Adam or RMSProp do."""

    def __init__(self, settings: Config, parameters: Parameters) -> None:
        self.learning = settings.learning
        parameters = {name: one for name, one in parameters.items() if one.requires_grad}
        self.parameters = parameters
        self.mean = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.square = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.steps = 0

    def step(self, loss: Tensor, rate: float) -> None:
        gradients = dict(
            zip(
                self.parameters,
                torch.autograd.grad(loss, list(self.parameters.values())),
                strict=True,
            )
        )
        limit = self.learning.max_gradient_norm
        if limit is not None:
            norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
            if norm > limit:
                gradients = {name: one * limit / norm for name, one in gradients.items()}
        self.steps += 1
        adam = self.learning.optimizer == "adam"
        keep_mean = 0.9 if adam else self.learning.rmsprop_decay
        keep_square = 0.999 if adam else self.learning.rmsprop_decay
        for name, gradient in gradients.items():
            mean, square = self.mean[name], self.square[name]
            mean.mul_(keep_mean).add_((1 - keep_mean) * gradient)
            square.mul_(keep_square).add_((1 - keep_square) * gradient**2)
            if adam:
                root = (square / (1 - 0.999**self.steps)).sqrt() + self.learning.adam_epsilon
                step = mean / (1 - 0.9**self.steps) / root
            else:
                centred = self.learning.rmsprop_centred
                root = (square - mean**2 if centred else square).sqrt()
                step = gradient / (root + self.learning.rmsprop_epsilon)
            with torch.no_grad():
                self.parameters[name] -= rate * step


def assert_same(
    network: torch.nn.Module, slow: Parameters, before: Parameters, worst: float = 1e-2
) -> None:
    """Compare how far each parameter moved, on the scale of its tensor's largest move."""
    slow = {name: value.detach() for name, value in slow.items()}
    before = {name: value.detach() for name, value in before.items()}
    for name, parameter in network.named_parameters():
        moved, wanted = parameter.detach().double() - before[name], slow[name] - before[name]
        largest = float(wanted.abs().max())
        assert largest > 0, f"{name} did not move"
        # 2⁻²⁴ of the parameter itself is lost when float32 adds the step.
        rounding = float(before[name].abs().max()) * 2 * torch.finfo(parameter.dtype).eps
        assert float((moved - wanted).abs().max()) < worst * largest + rounding, name


# Value-based


def make_batch(seed: int, *, weighted: bool) -> Batch[np.ndarray]:
    """Made-up transitions, some of them terminal."""
    generator = np.random.Generator(np.random.PCG64(seed))
    size = (BATCH, *SHAPE)
    observation_tm1 = generator.integers(0, 256, size=size, dtype=np.uint8)
    observation_t = generator.integers(0, 256, size=size, dtype=np.uint8)
    return Batch(
        observation_tm1=observation_tm1,
        action_tm1=generator.integers(ACTIONS, size=BATCH),
        return_t=generator.normal(size=BATCH, scale=2).astype(np.float32),
        discount_t=np.array([0.99, 0.0, 0.97, 0.99, 0.0, 0.99], np.float32),
        observation_t=observation_t,
        weights=np.linspace(0.3, 1, BATCH).astype(np.float32) if weighted else None,
    )


def in_numbers(batch: Batch[np.ndarray]) -> Batch[np.ndarray]:
    """Bring the pixels to 0…1 in float64, as a torso in float64 takes them."""
    return replace(
        batch,
        observation_tm1=batch.observation_tm1 / 255,
        observation_t=batch.observation_t / 255,
    )


def slow_head(
    settings: Config,
    parameters: Parameters,
    noise: Draw | None,
    frames: np.ndarray,
    tau: Tensor | None = None,
    *,
    learns: bool = False,
) -> Tensor:
    """Return Q-values (B, actions), logits (B, actions, atoms) or quantiles (B, K, actions)."""
    network = settings.network
    if network.torso == "impala":
        features = impala(parameters, frames, learns=learns)
    else:
        features = strided(parameters, frames, network.torso)
    if tau is not None:
        cosines = torch.cos(math.pi * torch.arange(network.cosines) * tau.double().T.unsqueeze(-1))
        embedded = linear(parameters, noise, "head.embedding", cosines).relu()
        features = features.unsqueeze(1) * embedded

    def stream(name: str) -> Tensor:
        hidden = linear(parameters, noise, f"head.{name}.0", features)
        if network.layer_norm:
            centred = hidden - hidden.mean(-1, keepdim=True)
            hidden = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        last = "3" if network.layer_norm else "2"
        return linear(parameters, noise, f"head.{name}.{last}", hidden.relu())

    atoms = network.atoms
    if atoms:
        advantage = stream("advantage").reshape(BATCH, ACTIONS, atoms)
    elif network.dueling:
        advantage = stream("advantage")
    else:
        return stream("q")
    if not network.dueling:
        return advantage
    value = stream("value")
    value = value.reshape(BATCH, 1, atoms) if atoms else value
    actions = 1 if atoms else -1
    return value + advantage - advantage.mean(actions, keepdim=True)


def slow_soft_quantile_loss(
    settings: Config,
    online: Parameters,
    target: Parameters,
    draws: tuple[Any, ...],
    batch: Batch[np.ndarray],
    samples: SampledQuantiles,
) -> Tensor:
    """M-IQN: the target is that of the softmax policy, the loss that of quantiles."""
    alpha, tau = settings.learning.munchausen, settings.learning.entropy_temperature
    least = settings.learning.log_policy_least
    assert tau is not None
    target_t = slow_head(settings, target, draws[1], batch.observation_t, samples.target).detach()
    prediction_tm1 = slow_head(
        settings, online, draws[0], batch.observation_tm1, samples.online, learns=True
    )
    total = torch.zeros((), dtype=torch.float64)
    for row in range(BATCH):
        action = int(batch.action_tm1[row])
        policy_tm1 = (prediction_tm1[row].detach().mean(0) / tau).softmax(-1)
        policy_t = (target_t[row].mean(0) / tau).softmax(-1)
        reward = float(batch.return_t[row])
        reward += alpha * min(max(tau * math.log(float(policy_tm1[action])), least), 0.0)
        wanted = []
        for quantiles in target_t[row]:
            soft = sum(
                float(policy) * (float(one) - tau * math.log(float(policy)))
                for policy, one in zip(policy_t, quantiles, strict=True)
                if policy > 0
            )
            wanted.append(reward + float(batch.discount_t[row]) * soft)
        loss = torch.zeros((), dtype=torch.float64)
        for fraction, prediction in zip(
            samples.online[:, row].double(), prediction_tm1[row, :, action], strict=True
        ):
            for one in wanted:
                error = one - prediction
                huber = 0.5 * error**2 if bool(error.abs() <= 1) else error.abs() - 0.5
                loss = loss + (fraction - float(error < 0)).abs() * huber / len(wanted)
        assert batch.weights is not None
        total = total + loss * float(batch.weights[row])
    return total / BATCH


def slow_loss(
    settings: Config,
    online: Parameters,
    target: Parameters,
    draws: tuple[Any, ...],
    batch: Batch[np.ndarray],
) -> Tensor:
    network, epsilon, epsilon_target, epsilon_choice = settings.network, *draws
    prediction_tm1 = slow_head(settings, online, epsilon, batch.observation_tm1)
    target_t = slow_head(settings, target, epsilon_target, batch.observation_t).detach()
    choice_t = slow_head(settings, online, epsilon_choice, batch.observation_t).detach()
    support = torch.linspace(network.value_min, network.value_max, network.atoms or 2).double()

    def values(of_row: Tensor) -> Tensor:
        return of_row.softmax(-1) @ support if network.atoms else of_row

    total = torch.zeros((), dtype=torch.float64)
    for row in range(BATCH):
        return_t, discount_t = float(batch.return_t[row]), float(batch.discount_t[row])
        chooser = choice_t if settings.learning.double else target_t
        best = int(values(chooser[row]).argmax())
        action = int(batch.action_tm1[row])
        if network.atoms:
            gap = float(support[1] - support[0])
            wanted = torch.zeros(network.atoms, dtype=torch.float64)
            for atom, probability in zip(support, target_t[row, best].softmax(-1), strict=True):
                moved = min(max(return_t + discount_t * float(atom), -10.0), 10.0)
                place = (moved + 10.0) / gap
                low = math.floor(place)
                high = min(low + 1, network.atoms - 1)
                wanted[low] += (1 - (place - low)) * probability
                wanted[high] += (place - low) * probability
            # The target's own entropy has no gradient, but stands in the divergence.
            log_target = torch.where(wanted > 0, wanted.log(), torch.zeros(()).double())
            loss = (wanted * (log_target - prediction_tm1[row, action].log_softmax(-1))).sum()
        else:
            error = return_t + discount_t * target_t[row, best] - prediction_tm1[row, action]
            loss = 0.5 * error**2 if bool(error.abs() <= 1) else error.abs() - 0.5
        total = total + loss * (1.0 if batch.weights is None else float(batch.weights[row]))
    return total / BATCH


@pytest.mark.parametrize(
    "preset",
    ["dqn", "noisy-dqn", "double", "dueling", "noisy-dueling", "c51", "rainbow", "der", "btr"],
)
def test_two_updates_of_a_value_based_preset(preset: str) -> None:
    settings = config.load(preset, {"device": "cpu", "precision": "float32", "threads": 1})
    settings = settings.replaced(replay_capacity=100_000, environments=2)
    agent = build_agent(settings, SHAPE, ACTIONS)
    assert isinstance(agent, QLearning)
    # Fifteen convolutions deep some gradients are as small as Adam's ε, and what float32 rounds
    # there would show in a step: this agent is looked at in float64.
    in_double = settings.network.torso == "impala"
    if in_double:
        agent.online.double()
        agent.target.double()
    with torch.no_grad():
        for parameter in agent.target.parameters():
            parameter.mul_(1.05)  # so that it matters which net is asked
    before, online, target = (
        double_copy(one) for one in (agent.online, agent.online, agent.target)
    )
    slow = SlowOptimizer(settings, online)
    for seed in range(2):
        batch = make_batch(seed, weighted=settings.learning.prioritised)
        states = [generator.get_state() for generator in agent.generators]
        fixed = agent.draws()
        assert len({id(one) for one in fixed if one is not None}) == (3 if agent.noise else 0)
        if settings.network.quantiles:
            sampler = agent._quantiles  # pyright: ignore[reportPrivateUsage]
            assert sampler is not None
            samples = sampler.of_update(BATCH, choice=False)
            loss = slow_soft_quantile_loss(settings, online, target, fixed, batch, samples)
        else:
            loss = slow_loss(settings, online, target, fixed, batch)
        for generator, state in zip(agent.generators, states, strict=True):
            generator.set_state(state)
        learned = agent.update(in_numbers(batch) if in_double else batch)
        assert learned.loss == pytest.approx(float(loss.detach()), rel=1e-4)
        slow.step(loss, settings.learning.learning_rate)
    assert_same(agent.online, online, before, worst=1e-5 if in_double else 1e-2)


@pytest.mark.parametrize("preset", ["dqn", "noisy-dqn", "double", "dueling", "noisy-dueling"])
def test_small_gradients_move_weights_as_in_the_dqn_paper(preset: str) -> None:
    """There the gradient is a sum over the batch, and 0.01 is added under the root."""
    learning = config.load(preset).learning
    gradient = torch.logspace(-9, -5, 5).double()
    centred_square = 1e-12
    summed = gradient * learning.batch_size
    paper = summed / (learning.batch_size**2 * centred_square + 0.01) ** 0.5
    ours = gradient / (centred_square**0.5 + learning.rmsprop_epsilon)
    assert torch.allclose(ours, paper, rtol=1e-3)


# Actor-critics


def slow_rollout_loss(
    settings: Config, parameters: Parameters, noise: Draw | None, rollout: Rollout
) -> Tensor:
    section, gamma = settings.actor_critic, settings.learning.discount
    taken: list[Tensor] = []
    for row in range(rollout.action_t.shape[1]):
        drawn = noise if noise is None or noise.rows is None else noise[row]
        features = strided(parameters, rollout.observation[:, row])
        hidden = linear(parameters, drawn, "hidden", features).relu()
        policy = linear(parameters, drawn, "head.policy", hidden).log_softmax(-1)
        value = linear(parameters, drawn, "head.value", hidden).squeeze(-1)
        for t in range(STEPS):
            # The n-step return: rewards up to the rollout's end, or a game's, then the value there.
            wanted, power = 0.0, 1.0
            for later in range(t, STEPS):
                wanted += power * float(rollout.reward_t[later, row])
                power *= gamma
                if rollout.discount_t[later, row] == 0:
                    power = 0.0
                    break
            wanted += power * float(value[STEPS].detach())
            advantage = wanted - float(value[t].detach())
            entropy = -(policy[t].exp() * policy[t]).sum()
            taken.append(
                -advantage * policy[t, int(rollout.action_t[t, row])]
                + section.value_coefficient * (wanted - value[t]) ** 2
                - section.entropy_bonus * entropy
            )
    return torch.stack(taken).mean()


def play(agent: ActorCritic, settings: Config, seed: int) -> Rollout:
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = settings.environment.environments
    observation = generator.integers(0, 256, size=(STEPS + 1, rows, *SHAPE), dtype=np.uint8)
    never = np.zeros((STEPS, rows), bool)
    terminated = never.copy()
    terminated[STEPS - 1, 0] = True
    first = np.zeros((STEPS + 1, rows), bool)
    return Rollout.of_steps(
        observation=observation,
        first=first,
        action=np.stack([agent.act(observation[t], 0, first[t]) for t in range(STEPS)]),
        reward=generator.normal(size=never.shape).astype(np.float32),
        terminated=terminated,
        truncated=never,
        ignored=never,
        discount=settings.learning.discount,
    )


@pytest.mark.parametrize("preset", ["a2c", "noisy-a2c", "a3c", "noisy-a3c"])
def test_two_updates_of_an_actor_critic_preset(preset: str) -> None:
    settings = config.load(preset, {"device": "cpu", "precision": "float32", "threads": 1})
    if settings.learning.algorithm == "a2c":
        settings = settings.replaced(environments=3)
    agent = build_agent(settings, SHAPE, ACTIONS)
    assert isinstance(agent, ActorCritic)
    assert (agent.noise is None) == (settings.actor_critic.entropy_bonus > 0)
    before, parameters = double_copy(agent.network), double_copy(agent.network)
    slow = SlowOptimizer(settings, parameters)
    for seed in range(2):
        noise = held(agent.network) if agent.noise is not None else None
        rollout = play(agent, settings, seed)
        loss = slow_rollout_loss(settings, parameters, noise, rollout)
        step = 1000 * (seed + 1)
        rate = settings.learning.learning_rate * (1 - step / settings.training.steps)
        assert step_size(settings)(step) == pytest.approx(rate)
        learned = agent.update(rollout, step_size(settings)(step))
        assert learned.loss == pytest.approx(float(loss.detach()), rel=1e-4)
        slow.step(loss, rate)
    assert_same(agent.network, parameters, before)
