"""Graphs for any batch size: compiled, exported by PyTorch, traced, and what ONNX is told."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim, export

import noisynet

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::torch.jit.TracerWarning",
    "ignore:the exported graph keeps the noise draw:UserWarning",
)

LAYERS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    # name: (how to make it, shape of one row). The large ones have several forms by batch size.
    "linear": (lambda **o: noisynet.NoisyLinear(4, 3, **o), (4,)),
    "linear, small": (lambda **o: noisynet.NoisyLinear(130, 129, **o), (130,)),
    "linear, large": (lambda **o: noisynet.NoisyLinear(260, 256, **o), (260,)),
    "conv1d": (lambda **o: noisynet.NoisyConv1d(4, 6, 3, groups=2, **o), (4, 7)),
    "conv2d": (lambda **o: noisynet.NoisyConv2d(2, 3, 3, padding=1, **o), (2, 5, 5)),
    "lstm cell": (lambda **o: noisynet.NoisyLSTMCell(4, 3, **o), (4,)),
    "gru cell": (lambda **o: noisynet.NoisyGRUCell(4, 3, **o), (4,)),
}
STATES = ("fresh", "per row", "held", "static", "off")


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def put_into(layer: nn.Module, state: str) -> None:
    noisynet.release(layer, per_row=state == "per row")
    if state in ("held", "static"):
        noisynet.hold(layer, static=state == "static")


class Called(nn.Module):
    """A layer in a state, with one tensor as its output."""

    def __init__(self, layer: nn.Module, state: str) -> None:
        super().__init__()
        self.layer, self.off = layer, state == "off"
        put_into(layer, state)

    def forward(self, x: Tensor) -> Tensor:
        if self.off:
            with noisynet.mean_weights(self.layer):
                y = self.layer(x)
        else:
            y = self.layer(x)
        return y[0] if isinstance(y, tuple) else y


def check(call: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> None:
    """Compare under one seed: these graphs draw with PyTorch's own generator."""
    torch.manual_seed(3)
    y = call(x)
    torch.manual_seed(3)
    torch.testing.assert_close(y, module(x))


@pytest.mark.parametrize("layer", ["linear", "linear, large", "conv2d", "gru cell"])
def test_one_compilation_serves_other_batch_sizes(layer: str, noise: str) -> None:
    new, row = LAYERS[layer]
    module, counter = Called(new(noise=noise), "per row"), CompileCounterWithBackend("eager")
    call = torch.compile(module, backend=counter, fullgraph=True)
    for batch in (20, 21, 23):
        check(call, module, torch.randn(batch, *row))
    assert counter.frame_count == 2


@pytest.mark.parametrize("state", ["fresh", "per row", "held"])
@pytest.mark.parametrize("layer", LAYERS)
def test_an_export_serves_every_batch_size(layer: str, noise: str, state: str) -> None:
    new, row = LAYERS[layer]
    module = Called(new(noise=noise), state)
    shapes = ({0: Dim("batch", min=1, max=4096)},)
    with torch.no_grad():
        exported = export(module, (torch.randn(3, *row),), dynamic_shapes=shapes, strict=False)
        for batch in (1, 3, 30):
            check(exported.module(), module, torch.randn(batch, *row))


def test_rows_repeat_over_any_number_of_times(noise: str) -> None:
    layer = noisynet.NoisyLinear(4, 3, noise=noise)
    noisynet.hold(layer, rows=5)
    call = torch.compile(layer, backend="eager", fullgraph=True)
    shapes = ({0: Dim("time", min=1, max=4096)},)
    exported = export(layer, (torch.randn(3, 5, 4),), dynamic_shapes=shapes).module()
    for times in (2, 3, 8):
        x = torch.randn(times, 5, 4)
        torch.testing.assert_close(call(x), layer(x))
        torch.testing.assert_close(exported(x), layer(x))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_trace_before_the_first_forward(layer: str, noise: str, grad: bool) -> None:
    new, row = LAYERS[layer]
    for state in STATES:
        module = Called(new(noise=noise), state)
        new_initial_values = state in ("fresh", "per row")
        with torch.set_grad_enabled(grad):
            traced: Any = torch.jit.trace(
                module, (torch.randn(5, *row),), check_trace=not new_initial_values
            )
            # Convolutions per row are groups of one, and TorchScript keeps their number.
            for batch in (5,) if layer.startswith("conv") and state == "per row" else (5, 1, 30):
                check(traced, module, torch.randn(batch, *row))
        torch.jit.save(traced, io.BytesIO())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_is_told_to_denoise(dynamo: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    net: Any = nn.Sequential(noisynet.NoisyLinear(4, 3)).eval()

    def to_onnx() -> None:
        file = tmp_path / "net.onnx"
        torch.onnx.export(net, (torch.randn(2, 4),), file, dynamo=dynamo, verbose=False)

    with pytest.raises(Exception, match=r"export noisynet\.denoise\(net\)"):
        to_onnx()
    noisynet.hold(net)
    to_onnx()
    noisynet.release(net)
    noisynet.denoise(net)
    to_onnx()


def to_onnx(net: Any, x: Tensor, *, dynamo: bool) -> None:
    torch.onnx.export(net, (x,), io.BytesIO(), dynamo=dynamo, verbose=False)


EXPORTS: dict[str, Callable[[Any, Tensor], object]] = {
    "torch.export": lambda net, x: export(net, (x,), strict=False),
    "torch.export, strict": lambda net, x: export(net, (x,), strict=True),
    "torch.jit.trace": lambda net, x: torch.jit.trace(net, (x,), check_trace=False),
    "torch.onnx": lambda net, x: to_onnx(net, x, dynamo=True),
    "torch.onnx by TorchScript": lambda net, x: to_onnx(net, x, dynamo=False),
}


def said(call: Callable[[], object]) -> list[str]:
    """What is said of a draw, where Python shows a line of a file once, as it does by itself."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        call()
    messages = [str(one.message) for one in caught if one.category is UserWarning]
    return [one for one in messages if "noise" in one]


@pytest.mark.parametrize("how", EXPORTS)
def test_an_export_that_keeps_a_draw_says_so_once(how: str) -> None:
    if "onnx" in how:
        pytest.importorskip("onnxscript")
    if "export" in how and torch.__version__ < (2, 7):
        pytest.skip("torch 2.6 does not tell that it exports")
    net = noisynet.noisify(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))).eval()
    x, run = torch.randn(2, 4), EXPORTS[how]
    noisynet.hold(net)
    net(x)  # What a layer keeps of its draw between forwards must not hide it.
    (message,) = said(lambda: run(net, x))
    assert "keeps the noise draw that is in force" in message
    assert "export noisynet.denoise(net) for the means alone" in message
    assert "\n" not in message
    with noisynet.using(net, noisynet.draw(net)):
        assert len(said(lambda: run(net, x))) == 1
    with noisynet.mean_weights(net):
        assert said(lambda: run(net, x)) == []
    noisynet.release(net)
    if "onnx" not in how:
        # It goes on drawing.
        assert said(lambda: run(net, x)) == []
    noisynet.denoise(net)
    assert said(lambda: run(net, x)) == []


def test_compiling_is_no_export() -> None:
    net = noisynet.NoisyLinear(4, 3)
    noisynet.hold(net)
    call = torch.compile(net, backend="eager", fullgraph=True)
    assert said(lambda: call(torch.randn(2, 4))) == []


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_denoised_transformer_exports_with_its_values(dynamo: bool, tmp_path: Path) -> None:
    reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0)
    net = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()
    x = torch.randn(3, 5, 4)
    expected = net(x).detach()
    noisynet.hold(noisynet.noisify(net), rows=3, batch_first=True)
    assert not torch.allclose(net(x), expected)
    plain = noisynet.denoise(net)
    torch.testing.assert_close(export(plain, (x,)).module()(x), expected)
    file = tmp_path / "policy.onnx"
    torch.onnx.export(plain, (x,), file, dynamo=dynamo, verbose=False, input_names=["x"])
    (got,) = reference.ReferenceEvaluator(str(file)).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.tensor(got), expected, rtol=1e-4, atol=1e-5)


def test_the_page_exports_what_it_says(
    run_page: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    names = run_page("transformers.md")
    (got,) = reference.ReferenceEvaluator("policy.onnx").run(None, {"seen": names["seen"].numpy()})
    expected = names["plain"](names["seen"]).detach()
    torch.testing.assert_close(torch.tensor(got), expected, rtol=1e-4, atol=1e-5)
