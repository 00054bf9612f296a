"""Equal forms of a layer are equal, and which one computes it is fixed by the shape alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import noisynet
from noisynet.layers import FactorisedNoise
from noisynet.layers.functional import reference_linear
from noisynet.layers.kernels import dispatch
from noisynet.layers.weights import Weights


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_all_forms_are_equal(rows: int, bias: bool) -> None:
    layer = noisynet.NoisyLinear(7, 5, bias=bias, dtype=torch.float64)
    x = torch.randn(rows, 7, dtype=torch.float64, requires_grad=True)
    noise = layer.noise_in_force()
    assert isinstance(noise, FactorisedNoise)
    (weights,) = layer.weights()
    wanted = [x, *layer.parameters()]
    answers: list[tuple[Tensor, ...]] = []
    for form in dispatch.SHARED_FORMS.values():
        y = (form or reference_linear)(x, weights, noise)
        answers.append((y.detach(), *torch.autograd.grad(y.square().sum(), wanted)))
    for other in answers[1:]:
        for one, two in zip(answers[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "rows", "learns", "form"),
    [
        ((512, 3136), 16, False, "two products"),
        ((512, 3136), 18, False, "one product from scratch"),
        ((512, 3136), 1, True, "two products"),
        ((512, 3136), 2, True, "one product from scratch"),
        ((18, 512), 1, False, "one product"),
        ((18, 512), 10, False, "one product"),
        ((256, 256), 8, False, "two products"),
        ((256, 256), 10, False, "one product"),
        ((18, 512), 1, True, "one product"),
        ((256, 256), 8, True, "one product"),
        ((257, 256), 8, True, "one product from scratch"),
    ],
)
def test_the_form_follows_the_table(
    shape: tuple[int, int], rows: int, learns: bool, form: str
) -> None:
    # Leading dimensions count together: two times of `rows` / 2 are `rows`.
    inputs = [torch.empty(rows, shape[1])]
    if rows % 2 == 0:
        inputs.append(torch.empty(2, rows // 2, shape[1]))
    weight = torch.empty(shape, requires_grad=True)
    with torch.set_grad_enabled(learns):
        for input in inputs:
            assert dispatch.shared_form(input, Weights(weight, None, weight, None)) == form


def test_an_empty_batch_passes() -> None:
    layer = noisynet.NoisyLinear(3, 2)
    y = layer(torch.empty(0, 3))
    assert y.shape == (0, 2)
    y.sum().backward()
    assert layer.weight_sigma.grad is not None
    assert layer.weight_sigma.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("value", "wanted"), [(None, False), ("", False), ("0", False), ("1", True)]
)
def test_the_kernels_are_used_where_the_variable_asks_for_them(
    monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: bool
) -> None:
    monkeypatch.delenv("NOISYNET_KERNELS", raising=False)
    if value is not None:
        monkeypatch.setenv("NOISYNET_KERNELS", value)
    settings = dispatch._Settings()
    assert settings.allowed == wanted
    # Triton's interpreter in place of a GPU.
    settings.interpreted = True
    monkeypatch.setattr(dispatch, "_settings", settings)
    layer = noisynet.NoisyLinear(512, 512, noise="independent")
    assert dispatch._suits_kernels(layer.weight) == wanted


def test_another_value_of_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISYNET_KERNELS", "yes")
    with pytest.warns(UserWarning, match="NOISYNET_KERNELS: got 'yes', expected 0 or 1"):
        assert not dispatch._Settings().allowed
