"""PyTorch's checks of its own modules, on the layers that replace them.

Modules, inputs, references and wrong inputs are those that torch ships for its tests, and so are
its older checks (`NewModuleTest`: two derivatives, batched gradients, layouts, pickles, dtypes).
The newer ones, of torch's test_modules.py, are written anew from their description.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet

pytest.importorskip("expecttest", reason="torch's tests need it")
modules: Any = pytest.importorskip("torch.testing._internal.common_modules")
older: Any = pytest.importorskip("torch.testing._internal.common_nn")

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

OURS: dict[type[nn.Module], Any] = {
    nn.Linear: noisynet.NoisyLinear,
    nn.LazyLinear: noisynet.LazyNoisyLinear,
    nn.Conv1d: noisynet.NoisyConv1d,
    nn.LazyConv1d: noisynet.LazyNoisyConv1d,
    nn.Conv2d: noisynet.NoisyConv2d,
    nn.LazyConv2d: noisynet.LazyNoisyConv2d,
    nn.LSTMCell: noisynet.NoisyLSTMCell,
    nn.GRUCell: noisynet.NoisyGRUCell,
}


def inputs_of(info: Any, function: Any) -> list[Any]:
    return function(info, device="cpu", dtype=torch.float64, requires_grad=True, training=False)


INFOS = {one.module_cls: one for one in modules.module_db if one.module_cls in OURS}
CASES = [
    pytest.param((info, number), id=f"{kind.__name__}-{number}")
    for kind, info in INFOS.items()
    for number, _ in enumerate(inputs_of(info, info.module_inputs_func))
]
WRONG = [
    pytest.param(info, number, id=f"{kind.__name__}-{number}")
    for kind, info in INFOS.items()
    if info.module_error_inputs_func is not None
    for number, _ in enumerate(inputs_of(info, info.module_error_inputs_func))
]


def named(options: dict[str, Any]) -> str:
    return options.get("fullname") or "_".join((options["module_name"], options.get("desc", "")))


OLDER = [
    one
    for one in older.module_tests + older.get_new_module_tests()
    if named(one).partition("_")[0] in ("Linear", "Conv1d", "Conv2d")
]


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts if part is not None for tensor in tensors(part)]


class Case:
    """A module of torch and ours in its place, on one of torch's inputs."""

    def __init__(self, info: Any, number: int, noise: str) -> None:
        torch.manual_seed(1706_10295)
        sample = inputs_of(info, info.module_inputs_func)[number]
        self.kind, self.reference, self.noise = info.module_cls, sample.reference_fn, noise
        self.sizes, self.options = sample.constructor_input.args, sample.constructor_input.kwargs
        self.input = (*sample.forward_input.args, *sample.forward_input.kwargs.values())
        self.layer = self.build(dtype=torch.float64)
        self.layer(*self.input)  # A lazy layer takes its shape from it.
        noisynet.hold(self.layer)

    def build(self, **options: Any) -> Any:
        return OURS[self.kind](*self.sizes, **self.options, noise=self.noise, **options)

    def output(self, layer: nn.Module | None = None) -> list[Tensor]:
        return tensors((layer or self.layer)(*self.input))


@pytest.fixture(params=["factorised", "independent"])
def noise(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, noise: str) -> Case:
    return Case(*request.param, noise)


def assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_with_the_noise_off_it_is_torchs_module_and_its_reference(case: Case) -> None:
    plain = case.kind(*case.sizes, **case.options, dtype=torch.float64)
    means = {name: one for name, one in case.layer.state_dict().items() if "_sigma" not in name}
    plain.load_state_dict(means)
    noisy = case.output()
    with noisynet.mean_weights(case.layer):
        assert_same(case.output(), case.output(plain))
        if case.reference is not None:
            expected = tensors(case.reference(case.layer, *case.input))
            for one, other in zip(case.output(), expected, strict=True):
                torch.testing.assert_close(one, other)
    for one, other in zip(noisy, case.output(plain), strict=True):
        assert not torch.allclose(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_device_and_dtype_reach_every_parameter(
    case: Case, device: str, dtype: torch.dtype
) -> None:
    for name, parameter in case.build(device=device, dtype=dtype).named_parameters():
        assert (parameter.device.type, parameter.dtype) == (device, dtype), name


def test_a_state_dict_a_pickle_and_a_copy_keep_what_it_computes(case: Case) -> None:
    other = case.build(dtype=torch.float64)
    other.load_state_dict(case.layer.state_dict())
    noisynet.hold(other, drawn=noisynet.held(case.layer))
    assert_same(case.output(other), case.output())
    file = io.BytesIO()
    torch.save(case.layer, file)
    file.seek(0)
    assert_same(case.output(torch.load(file, weights_only=False)), case.output())
    assert_same(case.output(copy.deepcopy(case.layer)), case.output())


def test_train_and_eval_do_not_differ(case: Case) -> None:
    assert_same(case.output(case.layer.train()), case.output(case.layer.eval()))


def test_every_input_and_parameter_gets_a_gradient(case: Case) -> None:
    before = case.output()
    torch.autograd.backward([one.sum() for one in before])
    for tensor in (*tensors(case.input), *case.layer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0
    assert_same(case.output(), before)


def test_layouts_of_the_input_do_not_matter(case: Case) -> None:
    expected = case.output()

    def apart(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(apart, value))
        return torch.stack([torch.empty_like(value), value], dim=-1).select(-1, 1)

    inputs = [apart(case.input)]
    if case.input[0].ndim == 4:
        inputs.append((case.input[0].contiguous(memory_format=torch.channels_last),))
    for one in inputs:
        for output, other in zip(tensors(case.layer(*one)), expected, strict=True):
            torch.testing.assert_close(output, other)


def test_both_derivatives_pass_the_numerical_check(case: Case) -> None:
    names = [name for name, _ in case.layer.named_parameters()]
    inputs = tensors(case.input)

    def output(*values: Tensor) -> Any:
        given = iter(values)
        one = next(given)
        rest: Any = [next(given) for _ in inputs[1:]]
        if rest:
            rest = [tuple(rest)] if case.kind is nn.LSTMCell else rest
        parameters = dict(zip(names, given, strict=True))
        return torch.func.functional_call(case.layer, parameters, (one, *rest))

    values = (*inputs, *case.layer.parameters())
    # A random direction instead of every number, as in torch's own check.
    assert torch.autograd.gradcheck(output, values, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(output, values, fast_mode=True)


def test_it_moves_to_meta_and_back_and_to_another_dtype(case: Case) -> None:
    moved = copy.deepcopy(case.layer).to(torch.float32)
    assert {one.dtype for one in moved.parameters()} == {torch.float32}
    empty = copy.deepcopy(case.layer).to("meta").to_empty(device="cpu")
    empty.load_state_dict(case.layer.state_dict())
    noisynet.hold(empty, drawn=noisynet.held(case.layer))
    assert_same(case.output(empty), case.output())


@pytest.mark.parametrize(("info", "number"), WRONG)
def test_what_torch_rejects_is_rejected(info: Any, number: int, noise: str) -> None:
    wrong = inputs_of(info, info.module_error_inputs_func)[number].module_error_input
    layer = OURS[info.module_cls](*wrong.constructor_input.args[:2], noise=noise).double()
    # Ours says it in words of its own, with one type of error.
    with pytest.raises(ValueError, match=r"got .* expected"):
        layer(*wrong.forward_input.args)


class OldCase(older.NNTestCase):
    """What the older checks ask of a test case."""

    __test__ = False

    def runTest(self) -> None: ...

    def _forward(self, module: nn.Module, input: Any) -> Any:
        return module(*input) if isinstance(input, tuple) else module(input)

    def _backward(self, module: nn.Module, input: Any, output: Tensor, grad: Any, **_: Any) -> Any:
        output.backward(grad, retain_graph=True)
        return tuple(one.grad for one in input) if isinstance(input, tuple) else input.grad

    def _get_parameters(self, module: nn.Module) -> Any:
        parameters = list(module.parameters())
        return parameters, [one.grad for one in parameters]

    def _zero_grad_parameters(self, module: nn.Module) -> None:
        module.zero_grad(set_to_none=False)


@pytest.mark.parametrize(
    "options",
    OLDER,
    ids=named,
)
def test_the_older_checks_pass(options: dict[str, Any], noise: str) -> None:
    options = dict(options)
    plain = options.pop("constructor", None) or getattr(nn, options.pop("module_name"))

    def constructor(*arguments: Any) -> nn.Module:
        layer = noisynet.noisify(plain(*arguments), lambda *_: True, noise=noise)
        noisynet.hold(layer)
        return layer

    # The references know nothing of noise; they have a test above.
    older.NewModuleTest(constructor, **{**options, "reference_fn": None})(OldCase())
