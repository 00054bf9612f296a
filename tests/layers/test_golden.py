"""Outputs and gradients of every layer, kind of noise, state and form, bit for bit as recorded.

    python -m tests.layers.test_golden             writes golden.json anew, for a change meant
    python -m tests.layers.test_golden --beside    adds this kind of machine to it

Bits depend on the processor and on torch: on a machine of which there is no recording, the test
holds values to those that are close.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

import noisynet
from noisynet.layers import noisy_linear

from ..golden.recordings import machine, one_thread, recorded, with_recording

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*deprecated:DeprecationWarning")

RECORD = Path(__file__).with_name("golden.json")
KINDS = ("factorised", "independent")
STATES = ("fresh", "per row", "held", "rows", "static", "using", "using rows", "mean weights")
DTYPES = ("float32", "float64", "bfloat16 autocast")
SEED = 1706_10295

Case = Callable[[], Iterator[Tensor]]

LAYERS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    # name: (how to make it, shape of one input, sizes of the batch)
    # Tiny: always one product. Small and large: two products, then one, from scratch where large.
    "linear, tiny": (lambda **o: noisynet.NoisyLinear(6, 5, **o), (6,), (1, 3, 40)),
    "linear, no bias": (lambda **o: noisynet.NoisyLinear(6, 5, bias=False, **o), (6,), (3,)),
    "linear, small": (lambda **o: noisynet.NoisyLinear(130, 129, **o), (130,), (1, 3, 20)),
    "linear, large": (lambda **o: noisynet.NoisyLinear(260, 256, **o), (260,), (1, 3, 20)),
    "conv1d": (lambda **o: noisynet.NoisyConv1d(4, 6, 3, padding=1, **o), (4, 9), (1, 5)),
    "conv2d": (lambda **o: noisynet.NoisyConv2d(3, 4, 3, stride=2, **o), (3, 8, 7), (1, 5)),
    "conv2d, groups": (
        lambda **o: noisynet.NoisyConv2d(4, 6, (3, 2), groups=2, dilation=(1, 2), **o),
        (4, 8, 7),
        (1, 5),
    ),
    "conv2d, circular": (
        lambda **o: noisynet.NoisyConv2d(
            3, 4, 3, padding=1, padding_mode="circular", bias=False, **o
        ),
        (3, 6, 5),
        (3,),
    ),
    "lstm cell": (lambda **o: noisynet.NoisyLSTMCell(5, 6, **o), (5,), (1, 4)),
    "gru cell": (lambda **o: noisynet.NoisyGRUCell(5, 6, **o), (5,), (1, 4)),
    "lazy linear": (lambda **o: noisynet.LazyNoisyLinear(5, **o), (6,), (1, 3)),
    "lazy conv1d": (lambda **o: noisynet.LazyNoisyConv1d(6, 3, groups=2, **o), (4, 9), (3,)),
    "lazy conv2d": (lambda **o: noisynet.LazyNoisyConv2d(4, 3, **o), (3, 8, 7), (3,)),
}


@contextmanager
def in_state(layer: nn.Module, state: str, rows: int) -> Iterator[None]:
    """Put a layer into one of STATES."""
    if state in ("held", "rows", "static"):
        noisynet.hold(layer, rows=rows if state == "rows" else None, static=state == "static")
    else:
        noisynet.release(layer, per_row=state == "per row")
    above: Any = nullcontext()
    if state == "using":
        above = noisynet.using(layer, noisynet.draw(layer))
    elif state == "using rows":
        above = noisynet.using(layer, noisynet.draw(layer, rows=rows + 2)[torch.arange(rows) + 1])
    elif state == "mean weights":
        above = noisynet.mean_weights(layer)
    with above:
        yield


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Flatten an output, which may be a tuple or hold None."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_of(part)


def squares(output: Any) -> Tensor:
    return torch.stack([part.to(torch.float64).square().sum() for part in tensors_of(output)]).sum()


def layer_case(name: str, kind: str, state: str, mode: str) -> Case:
    """What a layer makes: parameters, forwards without and with gradients, first and second."""
    make, shape, batches = LAYERS[name]
    autocast = torch.autocast("cpu", torch.bfloat16, enabled="autocast" in mode)
    dtype = torch.float64 if mode == "float64" else torch.float32

    def run() -> Iterator[Tensor]:
        layer = make(noise=kind, dtype=dtype)
        if "lazy" in name:
            layer(torch.randn(2, *shape, dtype=dtype))
        parameters = list(layer.parameters())
        yield from parameters
        for batch in batches:
            x = torch.randn(batch, *shape, dtype=dtype, requires_grad=True)
            wanted = [x, *parameters]
            with in_state(layer, state, batch):
                with autocast, torch.no_grad():
                    yield from tensors_of(layer(x))
                with autocast:
                    y = layer(x)
                yield from tensors_of(y)
                yield from tensors_of(torch.autograd.grad(squares(y), wanted, allow_unused=True))
                if batch == batches[0]:
                    yield from tensors_of(layer.effective_weight())
                if batch == batches[0] and "autocast" not in mode:
                    (slope,) = torch.autograd.grad(squares(layer(x)), x, create_graph=True)
                    twice = torch.autograd.grad(squares(slope), wanted, allow_unused=True)
                    yield from tensors_of(twice)

    return run


def transformed_case(name: str, kind: str, state: str) -> Case:
    """What `torch.func` makes of a layer: gradients for each sample, and a forward derivative."""
    make, shape, batches = LAYERS[name]

    def run() -> Iterator[Tensor]:
        layer, batch = make(noise=kind), batches[-1]
        x, v = torch.randn(batch, *shape), torch.randn(batch, *shape)
        parameters = {name: value.detach() for name, value in layer.named_parameters()}
        with in_state(layer, state, batch):

            def loss(values: dict[str, Tensor], x: Tensor) -> Tensor:
                return squares(functional_call(layer, values, (x,)))

            if "row" not in state and state != "fresh":
                yield from vmap(grad(loss), (None, 0))(parameters, x[:3]).values()
            yield from tensors_of(jvp(layer, (x,), (v,)))

    return run


def model_case(kind: str) -> Case:
    """A whole model: draws as values, redraws, masks, generators, copies, conversion."""

    def run() -> Iterator[Tensor]:
        plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
        plain.append(nn.Linear(6, 3))
        net = noisynet.noisify(plain, noise=kind)
        x, generator = torch.randn(5, 4), torch.Generator().manual_seed(3)
        yield from net.parameters()
        yield net(x)
        for rows in (None, 5):
            drawn = noisynet.draw(net, rows=rows, generator=generator)
            yield from drawn.flats
            yield from pickle.loads(pickle.dumps(drawn)).flats
            noisynet.hold(net, rows=rows)
            yield net(x)
            noisynet.resample(net, generator=generator)
            yield net(x)
            yield copy.deepcopy(net)(x)
            held = noisynet.held(net)
            assert held is not None
            yield from held.flats
        noisynet.resample(net, where=torch.arange(5) % 2 == 0)
        yield net(x)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        target = copy.deepcopy(net)
        noisynet.attach(optimizer, net, target)
        for _ in range(3):
            loss = (net(x) - target(x).detach()).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss
        yield from net.parameters()
        yield from noisynet.sigma_parameters(net)
        with noisynet.mean_weights(net):
            yield net(x)
        yield noisynet.denoise(net)(x)

    return run


def initial_case(init: str, kind: str) -> Case:
    def run() -> Iterator[Tensor]:
        options: dict[str, Any] = {"noise": kind, "init": init}
        for layer in (
            noisynet.NoisyLinear(7, 5, **options),
            noisynet.NoisyLinear(7, 5, sigma0=0.3, **options),
            noisynet.NoisyConv2d(4, 6, 3, groups=2, **options),
            noisynet.NoisyGRUCell(5, 6, **options),
        ):
            yield from layer.parameters()
        wrapped = noisynet.NoisyLSTMCell.from_cell(nn.LSTMCell(3, 2), **options)
        yield from wrapped.parameters()

    return run


def function_case(kind: str) -> Case:
    """The pure function, with leading dimensions before the rows."""

    def run() -> Iterator[Tensor]:
        layer = noisynet.NoisyLinear(6, 5, noise=kind, dtype=torch.float64)
        drawn = noisynet.draw(layer, rows=3)
        parameters = (layer.weight, layer.bias, layer.weight_sigma, layer.bias_sigma)
        noise: Any = drawn.layer("")
        yield noisy_linear(torch.randn(2, 3, 6, dtype=torch.float64), *parameters, noise)
        yield from (noise.weight_noise(), noise.bias_noise())

    return run


def all_groups() -> dict[str, dict[str, Case]]:
    """Name all cases, in groups that are a test each."""
    groups: dict[str, dict[str, Case]] = {}
    for kind in KINDS:
        for name in LAYERS:
            for mode in DTYPES:
                groups[f"{name}, {kind}, {mode}"] = {
                    state: layer_case(name, kind, state, mode) for state in STATES
                }
            if "lazy" not in name and "cell" not in name:
                groups[f"{name}, {kind}, transformed"] = {
                    state: transformed_case(name, kind, state)
                    for state in ("held", "rows", "using", "mean weights")
                }
        groups[f"whole model, {kind}"] = {
            "model": model_case(kind),
            "function": function_case(kind),
            **{
                f"init {init}": initial_case(init, kind)
                for init in ("paper", "book", "kaixhin", "torchrl", "tianshou", "pfrl", "dopamine")
                if kind == "factorised" or init in ("paper", "book")
            },
        }
    return groups


GROUPS = all_groups()


def outcome(case: Case) -> tuple[str, float, float]:
    """Hash all tensors of a case, and sum up their sizes and directions in two numbers."""
    torch.manual_seed(SEED)
    digest, size, direction = hashlib.sha256(), 0.0, 0.0
    # The last one says how much was drawn.
    for tensor in (*case(), torch.rand(1)):
        flat = tensor.detach().reshape(-1).contiguous()
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
        exact = flat.double()
        norm = float(exact.norm())
        if norm > 0:
            size += math.log(norm)
            pattern = torch.cos(torch.arange(len(exact), dtype=torch.float64) + 1)
            direction += float(exact @ pattern) / norm
    return digest.hexdigest()[:16], round(size, 4), round(direction, 4)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return json.loads(RECORD.read_text())


@pytest.mark.parametrize("group", GROUPS)
def test_numbers_are_those_recorded(group: str, record: dict[str, Any]) -> None:
    with one_thread():
        found = {name: outcome(case) for name, case in GROUPS[group].items()}
    close = record["close"][group]
    # bfloat16 keeps 8 bits, and a case sums up some thirty tensors.
    tolerance = 0.2 if "bfloat16" in group else 2e-3
    for name, (_, *values) in found.items():
        assert values == pytest.approx(close[name], abs=tolerance), name
    hashes = recorded(record["recordings"], group, machine())
    if hashes is None:
        pytest.skip(f"the values are close; no bits are recorded for {machine()}")
    assert {name: values[0] for name, values in found.items()} == hashes


@pytest.mark.parametrize("name", ["linear, large", "conv2d", "gru cell"])
def test_a_second_run_makes_the_same_bits(name: str, noise: str) -> None:
    case = layer_case(name, noise, "per row", "float32")
    with one_thread():
        assert outcome(case) == outcome(case)


def test_no_group_is_missing_from_the_record(record: dict[str, Any]) -> None:
    names = {name: set(cases) for name, cases in GROUPS.items()}
    for groups in (record["close"], *(one["hashes"] for one in record["recordings"])):
        assert {name: set(cases) for name, cases in groups.items()} == names


def main(*, beside: bool) -> None:
    with one_thread():
        cases = {
            group: {name: outcome(case) for name, case in parts.items()}
            for group, parts in GROUPS.items()
        }
    hashes = {
        group: {name: values[0] for name, values in parts.items()} for group, parts in cases.items()
    }
    former = json.loads(RECORD.read_text())
    if not beside:
        former["close"] = {
            group: {name: values[1:] for name, values in parts.items()}
            for group, parts in cases.items()
        }
    former["recordings"] = with_recording(former["recordings"], hashes, machine(), beside=beside)
    recordings = ",\n".join(
        f'{{"machine": {json.dumps(one["machine"])},\n"hashes": {_a_line_each(one["hashes"])}}}'
        for one in former["recordings"]
    )
    close = _a_line_each(former["close"])
    RECORD.write_text(f'{{"close": {close},\n"recordings": [{recordings}]}}\n')


def _a_line_each(groups: dict[str, Any]) -> str:
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(parts)}" for name, parts in groups.items())
    return f"{{\n{lines}\n}}"


if __name__ == "__main__":
    main(beside="--beside" in sys.argv)
