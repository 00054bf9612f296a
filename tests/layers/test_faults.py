"""One test for each fault of an existing library that a layer can have (docs: the noise).

Each check is a plain function that is true of a sound layer. Where it is short, a replica with the
fault stands beside it, and the check must be false of that: so a check cannot go blind.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import noisynet
from noisynet.layers import NoisyLinear
from noisynet.layers.noise import NoiseName

from .references import STATES, put_into

P, Q = 6, 5


def held_draw(net: nn.Module) -> Any:
    """The draw that a net holds, where a test knows that there is one."""
    return noisynet.held(net)


class Replica(nn.Module):
    """A noisy layer as others write it: ε in buffers, filled by `reset_noise`."""

    def __init__(self, inputs: int = P, outputs: int = Q) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-1, 1))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), 0.5 / math.sqrt(inputs)))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), 0.5 / math.sqrt(outputs)))
        self.weight_noise = nn.Buffer(torch.zeros(outputs, inputs))
        self.bias_noise = nn.Buffer(torch.zeros(outputs))
        self.reset_noise()

    def reset_noise(self) -> None:
        self.weight_noise.data.normal_()
        self.bias_noise.data.normal_()

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(
            x,
            self.weight + self.weight_sigma * self.weight_noise,
            self.bias + self.bias_sigma * self.bias_noise,
        )


class SwitchedByTraining(Replica):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return functional.linear(x, self.weight, self.bias)
        self.reset_noise()
        return super().forward(x)


class DrawnOnTheCpu(Replica):
    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(self.weight.shape).to(self.weight.device)
        return functional.linear(x, self.weight + self.weight_sigma * noise)


def sound(noise: NoiseName = "factorised", **options: Any) -> NoisyLinear:
    return NoisyLinear(P, Q, noise=noise, **options)


def explores_in(layer: nn.Module, training: bool) -> bool:
    """Whether two forwards of a layer in its first state differ."""
    layer.train(training)
    x = torch.ones(1, P)
    return not torch.equal(layer(x), layer(x))


def test_noise_switched_by_training_so_that_the_agent_never_explores(noise: NoiseName) -> None:
    assert explores_in(sound(noise), training=True)
    assert explores_in(sound(noise), training=False)
    # A held draw does not go off either.
    layer = sound(noise)
    noisynet.hold(layer)
    x = torch.ones(1, P)
    assert torch.equal(layer.train()(x), layer.eval()(x))
    assert not torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))

    assert explores_in(SwitchedByTraining(), training=True)
    assert not explores_in(SwitchedByTraining(), training=False)


def sigma_learns(layer: Any, training: bool) -> bool:
    layer.train(training)
    layer.zero_grad()
    layer(torch.randn(8, P)).square().sum().backward()
    gradient = layer.weight_sigma.grad
    return gradient is not None and bool(gradient.abs().sum() > 0)


@pytest.mark.parametrize("state", STATES)
def test_the_loss_runs_in_a_deterministic_mode_and_sigma_gets_no_gradient(
    noise: NoiseName, state: str
) -> None:
    layer = sound(noise)
    put_into(layer, state, 8)
    assert sigma_learns(layer, training=True)
    assert sigma_learns(layer, training=False)
    with noisynet.mean_weights(layer):
        assert not sigma_learns(layer, training=True)
        assert layer.weight_sigma.grad is None

    assert sigma_learns(SwitchedByTraining(), training=True)
    assert not sigma_learns(SwitchedByTraining(), training=False)


def test_an_option_that_is_accepted_and_ignored() -> None:
    default = sound()
    # Each option does something that can be seen …
    assert noisynet.draw(sound("independent")).flats[0].numel() == P * Q + Q
    assert noisynet.draw(default).flats[0].numel() == P + Q
    assert float(sound(sigma0=0.1).weight_sigma[0, 0].detach()) == pytest.approx(0.1 / math.sqrt(P))
    assert sound(bias=False).bias_sigma is None
    assert sound(dtype=torch.float64).weight_sigma.dtype == torch.float64
    assert sound(device="meta").weight_sigma.is_meta
    # … and one that does not exist, or a conversion of nothing, is an error.
    with pytest.raises(TypeError, match="noisy"):
        sound(noisy=True)
    with pytest.raises(ValueError, match="init: got 'orthogonal'"):
        sound(init="orthogonal")
    with pytest.raises(ValueError, match="nothing to convert"):
        noisynet.noisify(nn.Conv2d(1, 1, 1))


def means_vary(layer: Any) -> bool:
    return all(len(mean.detach().unique()) == mean.numel() for mean in (layer.weight, layer.bias))


def test_means_initialised_to_a_constant(noise: NoiseName) -> None:
    assert means_vary(sound(noise))

    constant = Replica()
    nn.init.constant_(constant.weight, 0.1)
    assert not means_vary(constant)


def bias_sigma_is_of_the_inputs(layer: Any) -> bool:
    expected = torch.full((Q,), 0.5 / math.sqrt(P))
    return torch.equal(layer.bias_sigma.detach(), expected)


def test_bias_sigma_divided_by_the_root_of_the_outputs() -> None:
    assert bias_sigma_is_of_the_inputs(sound())

    assert not bias_sigma_is_of_the_inputs(Replica())


def noise_has_rank_one(weight_noise: Tensor) -> bool:
    return int(torch.linalg.matrix_rank(weight_noise)) == 1


def test_independent_draws_that_are_called_factorised() -> None:
    factorised, independent = sound("factorised"), sound("independent")
    for layer, is_factorised in ((factorised, True), (independent, False)):
        noise: Any = noisynet.draw(layer).layer("")
        assert noise_has_rank_one(noise.weight_noise()) == is_factorised
    # Each kind has its own initial σ.
    assert float(factorised.weight_sigma[0, 0].detach()) == pytest.approx(0.5 / math.sqrt(P))
    assert float(independent.weight_sigma[0, 0].detach()) == pytest.approx(0.017)

    assert not noise_has_rank_one(Replica().weight_noise)


def all_differ(tensors: list[Tensor]) -> bool:
    return not any(torch.equal(a, b) for i, a in enumerate(tensors) for b in tensors[:i])


@pytest.mark.parametrize("generator", [None, 3])
def test_one_random_key_for_every_layer_or_both_factors(generator: int | None) -> None:
    net = nn.Sequential(*(NoisyLinear(4, 4) for _ in range(3)))
    seeded = None if generator is None else torch.Generator().manual_seed(generator)
    drawn: Any = noisynet.draw(net, generator=seeded)
    layers = [drawn.layer(str(number)) for number in range(3)]
    assert all_differ([factor for noise in layers for factor in (noise.input, noise.output)])
    # The same of fresh forwards: layers with equal μ and σ give different outputs.
    for layer in net:
        layer.load_state_dict(net[0].state_dict())
    x = torch.ones(1, 4)
    assert all_differ([layer(x) for layer in net])

    with_one_key = [torch.randn(4, generator=torch.Generator().manual_seed(3)) for _ in range(3)]
    assert not all_differ(with_one_key)


def changes_from_forward_to_forward(layer: nn.Module, forwards: int = 5) -> bool:
    x = torch.ones(1, P)
    return all_differ([layer(x) for _ in range(forwards)])


def test_noise_cached_at_the_first_call_and_constant_for_the_run(noise: NoiseName) -> None:
    layer = sound(noise)
    assert changes_from_forward_to_forward(layer)
    noisynet.hold(layer)
    x = torch.ones(1, P)
    outputs = []
    for _ in range(5):
        noisynet.resample(layer)
        outputs.append(layer(x))
    assert all_differ(outputs)

    assert not changes_from_forward_to_forward(Replica())


def test_noise_first_redrawn_when_learning_starts(noise: NoiseName) -> None:
    # Acting before the first optimizer step: a layer as it was built, converted or loaded.
    assert changes_from_forward_to_forward(sound(noise))
    assert changes_from_forward_to_forward(noisynet.noisify(nn.Linear(P, Q), noise=noise))
    loaded = sound(noise)
    loaded.load_state_dict(sound(noise).state_dict())
    assert changes_from_forward_to_forward(loaded)
    # Whoever holds and attaches gets a new draw at once, not at the first step.
    layer = sound(noise)
    noisynet.hold(layer)
    former = layer(torch.ones(1, P))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    noisynet.attach(optimizer, layer).remove()
    assert not torch.equal(layer(torch.ones(1, P)), former)


def test_the_gradients_draw_reused_to_choose_the_next_action(noise: NoiseName) -> None:
    online = sound(noise)
    target = copy.deepcopy(online)
    noisynet.hold(online, target)
    x = torch.randn(4, P)
    # ε, ε′ and ε″ of the double-DQN target, and ε once more for the gradient.
    learned_with = online(x)
    evaluated_with = target(x)
    with noisynet.using(online, noisynet.draw(online)):
        chosen_with = online(x)
    assert all_differ([learned_with, evaluated_with, chosen_with])
    # Equal parameters: what differs is the noise alone, and choosing changed nothing.
    assert torch.equal(online(x), learned_with)
    with noisynet.mean_weights(online, target):
        assert torch.equal(online(x), target(x))


def noise_is_in_a_register(layer: nn.Module) -> bool:
    learned = {"weight", "bias", "weight_sigma", "bias_sigma"}
    names = {*layer.state_dict(), *dict(layer.named_parameters()), *dict(layer.named_buffers())}
    return bool(names - learned)


def sync_copies_noise(online: nn.Module, target: nn.Module) -> bool:
    target.load_state_dict(online.state_dict())
    x = torch.randn(3, P)
    return torch.equal(online(x), target(x))


def test_noise_in_the_state_dict_so_that_sync_copies_it(noise: NoiseName) -> None:
    online, target = sound(noise), sound(noise)
    noisynet.hold(online, target)
    # A sync leaves the target's draw whole, and so does blending parameters, as soft updates do.
    held: Any = held_draw(target).flats[0]
    assert not noise_is_in_a_register(online)
    assert not sync_copies_noise(online, target)
    with noisynet.mean_weights(online, target):
        assert sync_copies_noise(online, target)
    with torch.no_grad():
        for mine, theirs in zip(target.parameters(), online.parameters(), strict=True):
            mine.lerp_(theirs, 0.5)
    assert torch.equal(held_draw(target).flats[0], held)

    assert noise_is_in_a_register(Replica())
    assert sync_copies_noise(Replica(), Replica())


def sigma_gradient_is_of_the_forward(
    layer: Any, noise_now: Callable[[], Tensor], redraw: Callable[[], None]
) -> bool:
    x = torch.randn(8, P)
    expected = noise_now().clone() * x.sum(0)
    loss = layer(x).sum()
    redraw()
    layer(x)
    layer.zero_grad()
    loss.backward()
    return torch.allclose(layer.weight_sigma.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("static", [False, True])
def test_a_second_forward_before_backward_makes_gradients_wrong(
    noise: NoiseName, static: bool
) -> None:
    layer = sound(noise)
    noisynet.hold(layer, static=static)
    assert sigma_gradient_is_of_the_forward(
        layer,
        lambda: held_draw(layer).layer("").weight_noise(),
        lambda: noisynet.resample(layer),
    )

    # Buffers filled through `.data` escape autograd's check: silently wrong.
    replica = Replica()
    assert not sigma_gradient_is_of_the_forward(
        replica, lambda: replica.weight_noise, replica.reset_noise
    )


@pytest.mark.parametrize("state", STATES)
def test_noise_still_on_at_evaluation_with_no_switch(noise: NoiseName, state: str) -> None:
    layer = sound(noise)
    put_into(layer, state, 4)
    x = torch.randn(4, P)
    mean = functional.linear(x, layer.weight, layer.bias)
    assert not torch.allclose(layer(x), mean)
    with noisynet.mean_weights(layer):
        assert torch.equal(layer(x), mean)
    assert not torch.allclose(layer(x), mean)


def conversion_faults(convert: Callable[[nn.Module], nn.Module]) -> set[str]:
    """Name what a converter breaks in a net with a tied layer, in float64, and in a root Linear."""
    shared = nn.Linear(3, 3)
    net = nn.ModuleDict({"a": shared, "b": shared}).double()
    former = {name: value.clone() for name, value in net.state_dict().items()}
    converted: Any = convert(net)
    faults = set()
    now = converted.state_dict()
    if not all(name in now and torch.equal(now[name], former[name]) for name in former):
        faults.add("forgets trained weights")
    if {parameter.dtype for parameter in converted.parameters()} != {torch.float64}:
        faults.add("changes dtype")
    if converted["a"] is not converted["b"]:
        faults.add("unties shared layers")
    if type(convert(nn.Linear(3, 3))) is nn.Linear:
        faults.add("skips a root Linear")
    return faults


def convert_badly(module: nn.Module) -> nn.Module:
    for name, _ in list(module.named_children()):
        setattr(module, name, Replica(3, 3))
    return module


def test_a_converter_that_breaks_what_it_converts() -> None:
    assert conversion_faults(noisynet.noisify) == set()
    # Attention reads its projection without calling it: the layer in its place calls it.
    attention = nn.MultiheadAttention(4, 2)
    x = torch.randn(3, 1, 4)
    expected = attention(x, x, x)[0]
    net: Any = noisynet.noisify(nn.ModuleList([attention, nn.Linear(4, 2)]))
    with noisynet.mean_weights(net):
        assert torch.equal(net[0](x, x, x)[0], expected)
        with noisynet.using(net[0].out_proj, noisynet.draw(net[0].out_proj)):
            assert not torch.allclose(net[0](x, x, x)[0], expected)

    assert conversion_faults(convert_badly) == {
        "forgets trained weights",
        "changes dtype",
        "unties shared layers",
        "skips a root Linear",
    }


class Devices(TorchDispatchMode):
    """Collect the devices of every tensor that is made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        parts = made if isinstance(made, tuple | list) else [made]
        self.seen |= {part.device.type for part in parts if isinstance(part, Tensor)}
        return made


def stays_on_its_device(layer: nn.Module, *steps: Callable[[nn.Module], object]) -> bool:
    """Whether nothing is made on the CPU for a layer that lies elsewhere (`meta` plays a GPU)."""
    x = torch.empty(4, P, device="meta")
    with Devices() as devices:
        layer(x)
        for step in steps:
            step(layer)
            layer(x)
    return devices.seen == {"meta"}


def test_draws_made_on_the_cpu_and_copied(noise: NoiseName) -> None:
    assert stays_on_its_device(
        sound(noise, device="meta"),
        lambda layer: noisynet.release(layer, per_row=True),
        noisynet.hold,
        noisynet.resample,
        lambda layer: noisynet.hold(layer, rows=4, static=True),
        noisynet.resample,
    )

    assert not stays_on_its_device(DrawnOnTheCpu().to("meta"))
