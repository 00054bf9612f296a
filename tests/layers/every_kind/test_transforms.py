"""Copies, `meta`, compilers and derivatives of every kind of layer."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import noisynet


@pytest.mark.parametrize("make", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_does_the_same_and_then_draws_apart(
    kind: Any, noise: Any, make: Callable[[nn.Module], nn.Module], rows: int | None
) -> None:
    layer, inputs = kind.build(noise), kind.inputs()
    kind.hold(layer, rows)
    before = kind.as_one(layer(*inputs))
    made = make(layer)
    assert torch.equal(kind.as_one(made(*inputs)), before)
    noisynet.resample(made)
    assert not torch.equal(kind.as_one(made(*inputs)), before)
    assert torch.equal(kind.as_one(layer(*inputs)), before)
    with noisynet.mean_weights(made), noisynet.mean_weights(layer):
        assert torch.equal(kind.as_one(made(*inputs)), kind.as_one(layer(*inputs)))


@pytest.mark.parametrize("static", [False, True])
def test_redrawing_between_forward_and_backward_changes_no_gradient(
    kind: Any, noise: Any, static: bool
) -> None:
    layer, inputs = kind.build(noise), kind.inputs()
    kind.hold(layer, static=static)
    parameters = list(layer.parameters())
    expected = torch.autograd.grad(kind.as_one(layer(*inputs)).square().sum(), parameters)
    y = kind.as_one(layer(*inputs))
    noisynet.resample(layer)
    layer(*inputs)
    now = torch.autograd.grad(y.square().sum(), parameters)
    torch.testing.assert_close(now, expected)


def test_built_on_meta_and_filled_later(kind: Any, noise: Any) -> None:
    layer, inputs = kind.build(noise, device="meta"), kind.inputs()
    kind.hold(layer, kind.rows)
    if not kind.is_sequence:
        assert kind.as_one(layer(*tree_map(lambda one: one.to("meta"), inputs))).is_meta
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    filled = dict(kind.build(noise).named_parameters())
    for name, parameter in layer.named_parameters():
        if name.endswith("_sigma"):
            assert torch.equal(parameter, filled[name]), name
        elif f"{name}_sigma" in filled:
            assert float(parameter.detach().abs().max()) <= math.sqrt(3), name
    assert noisynet.not_finite(layer) == {}
    assert torch.equal(kind.as_one(layer(*inputs)), kind.as_one(layer(*inputs)))
    # The draw on meta had no values: now it has real ones, with the moments of noise.
    held: Any = noisynet.held(layer)
    assert held.rows == kind.rows
    values = torch.cat([flat.flatten() for flat in held.flats])
    factorised = noise == "factorised"
    expected, variance = (math.sqrt(2 / math.pi), 1 - 2 / math.pi) if factorised else (1.0, 2.0)
    bound = 5 * math.sqrt(variance / len(values))
    assert float(values.square().mean()) == pytest.approx(expected, abs=bound)


def test_reset_parameters_reaches_tensors_that_stand_for_parameters(kind: Any, noise: Any) -> None:
    """TensorDict's functional swap takes parameters out and puts tensors in as attributes."""
    layer = kind.build(noise)
    parameters = dict(layer.named_parameters())

    def owner(name: str) -> tuple[Any, str]:
        path, _, last = name.rpartition(".")
        return layer.get_submodule(path), last

    for name, parameter in parameters.items():
        part, last = owner(name)
        delattr(part, last)
        part.__dict__[last] = torch.zeros_like(parameter)
    layer.reset_parameters()
    for name, parameter in parameters.items():
        part, last = owner(name)
        value = part.__dict__[last]
        if name.endswith("_sigma"):
            assert torch.equal(value, parameter), name
        else:
            assert value.count_nonzero() == value.numel(), name


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_forward_uses_each_new_draw(kind: Any, noise: Any, rows: int | None) -> None:
    if kind.is_sequence:
        pytest.skip("the compiler leaves these to PyTorch: test_sequence.py")
    torch.compiler.reset()
    layer, inputs = kind.build(noise), kind.inputs()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    kind.hold(layer, rows)
    first = kind.as_one(compiled(*inputs))
    torch.testing.assert_close(first, kind.as_one(layer(*inputs)))
    noisynet.resample(layer)
    second = kind.as_one(compiled(*inputs))
    torch.testing.assert_close(second, kind.as_one(layer(*inputs)))
    assert not torch.equal(first, second)
    with noisynet.mean_weights(layer):
        torch.testing.assert_close(kind.as_one(compiled(*inputs)), kind.as_one(layer(*inputs)))
    torch.compiler.reset()


# What PyTorch says of its own kernels of an LSTM and of grouped convolutions.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_an_ensemble_by_vmap_is_that_of_a_loop(kind: Any, noise: Any, rows: int | None) -> None:
    layer, inputs = kind.build(noise), kind.inputs()
    members = [kind.build(noise) for _ in range(2)]
    stacked, _ = torch.func.stack_module_state(members)
    kind.hold(layer, rows)
    drawn: Any = noisynet.held(layer)

    def loss(values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        y = kind.as_one(torch.func.functional_call(layer, values, inputs))
        return y.square().sum(), y

    together, outputs = torch.func.vmap(torch.func.grad(loss, has_aux=True))(stacked)
    for number, member in enumerate(members):
        with noisynet.using(member, drawn):
            y = kind.as_one(member(*inputs))
        torch.testing.assert_close(outputs[number], y, rtol=1e-4, atol=1e-4)
        y.square().sum().backward()
        for name, parameter in member.named_parameters():
            torch.testing.assert_close(together[name][number], parameter.grad, rtol=1e-4, atol=1e-4)


def test_first_and_second_derivatives_pass_the_numerical_check(
    kind: Any, noise: Any, rows: int | None
) -> None:
    layer = kind.build(noise, dtype=torch.float64)
    kind.hold(layer, rows)
    names = [name for name, _ in layer.named_parameters()]
    first, *more = kind.inputs(dtype=torch.float64)

    def apply(x: Tensor, *values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        return kind.as_one(torch.func.functional_call(layer, parameters, (x, *more))).square()

    given = (first.requires_grad_(), *layer.parameters())
    assert torch.autograd.gradcheck(apply, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(apply, given, fast_mode=True)
