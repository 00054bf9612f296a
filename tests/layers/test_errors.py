"""What is wrong is an error that says what came and what was expected."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import noisynet
from noisynet.layers import NoisyLinear


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise": "gaussian"}, "noise: got 'gaussian', expected one of factorised, independent"),
        ({"sigma0": math.nan}, "sigma0: got nan, expected a finite number of at least 0"),
        ({"sigma0": math.inf}, "sigma0: got inf, expected a finite number of at least 0"),
        ({"sigma0": -0.5}, "sigma0: got -0.5, expected a finite number of at least 0"),
        ({"sigma0": "0.5"}, "sigma0: got '0.5', expected a finite number of at least 0"),
        ({"sigma0": True}, "sigma0: got True, expected a finite number of at least 0"),
        ({"init": ["paper"]}, "init: got ['paper'], expected one of book, dopamine, kaixhin"),
        (
            {"init": "rainbow"},
            "init: got 'rainbow', expected one of book, dopamine, kaixhin, paper",
        ),
    ],
)
def test_wrong_options(options: dict[str, Any], said: str) -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=re.escape(said)):
        NoisyLinear(3, 2, **options)
    with pytest.raises(ValueError, match=re.escape(said)):
        noisynet.noisify(net, **options)
    assert type(net[0]) is nn.Linear


def test_complex_weights_are_refused() -> None:
    said = "^dtype: got torch.complex64, expected a floating-point dtype$"
    with pytest.raises(ValueError, match=said):
        NoisyLinear(3, 2, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((0, 2), "in_features: got 0, expected at least 1"),
        ((3, -1), "out_features: got -1, expected at least 1"),
        ((3.0, 2), "in_features: got 3.0, expected an integer"),
        ((3, "2"), "out_features: got '2', expected an integer"),
    ],
)
def test_wrong_sizes(sizes: tuple[int, int], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        NoisyLinear(*sizes)


@pytest.mark.parametrize("third", [0.1, 0.017, "independent", None])
def test_what_other_libraries_take_in_the_place_of_bias(third: Any) -> None:
    """Kaixhin's, TorchRL's and the book's layers take σ there: here it would be lost."""
    said = re.escape(f"bias: got {third!r}, expected True or False; name noise= and sigma0=")
    for kind in (NoisyLinear, noisynet.NoisyLSTMCell, noisynet.NoisyGRUCell):
        with pytest.raises(ValueError, match=said):
            kind(3, 2, third)
    for kind in (noisynet.NoisyConv1d, noisynet.NoisyConv2d):
        with pytest.raises(ValueError, match=said):
            kind(3, 2, 1, bias=third)


def test_sizes_and_rows_may_be_integers_of_numpy(noise: str) -> None:
    """As `env.action_space.n` and the product of a shape are."""
    layer = NoisyLinear(np.int64(4), np.int64(2), noise=noise)
    noisynet.hold(layer, rows=np.int64(3))
    assert layer(torch.zeros(3, 4)).shape == (3, 2)


@pytest.mark.parametrize("shape", [(5, 3), (4,), (4, 5, 4), (8, 1, 3), (1, 4)])
def test_an_input_that_does_not_fit_the_rows_or_features(
    noise: str, shape: tuple[int, ...]
) -> None:
    layer = NoisyLinear(4, 2, noise=noise)
    noisynet.hold(layer, rows=8)
    got = f"input: got shape {re.escape(str(shape))}, expected "
    features = shape[-1] != 4
    expected = r"\(…, 4\): 4 features" if features else r"\(…, 8, 4\): .* one draw for each of 8 r"
    with pytest.raises(ValueError, match=got + expected):
        layer(torch.zeros(shape))


@pytest.mark.parametrize("held", [True, False])
def test_wrong_features_with_a_shared_draw(noise: str, held: bool) -> None:
    layer = NoisyLinear(4, 2, noise=noise)
    if held:
        noisynet.hold(layer)
    with pytest.raises(ValueError, match=r"input: got shape \(2, 3\), expected \(…, 4\)"):
        layer(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"input: got shape \(\), expected \(…, 4\)"):
        layer(torch.zeros(()))


@pytest.mark.parametrize("rows", [0, -3, True, 2.0, "8"])
def test_wrong_rows(net: nn.Sequential, rows: Any) -> None:
    said = re.escape(f"rows: got {rows!r}, expected a positive integer or None")
    for function in (noisynet.draw, noisynet.hold):
        with pytest.raises(ValueError, match=said):
            function(net, rows=rows)
    assert noisynet.held(net) is None


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.ones(3, dtype=torch.bool), "got torch.bool of shape (3,), expected torch.bool of s"),
        (torch.ones(8), "got torch.float32 of shape (8,), expected torch.bool of shape (8,)"),
        (torch.ones(8, dtype=torch.uint8), "got torch.uint8 of shape (8,), expected torch.bool"),
        (torch.ones(8, 1, dtype=torch.bool), "got torch.bool of shape (8, 1), expected torch.bool"),
        ([0, 3], "got torch.int64 of shape (2,), expected torch.bool of shape (8,)"),
    ],
)
def test_wrong_masks(net: nn.Sequential, mask: Any, said: str) -> None:
    noisynet.hold(net, rows=8)
    former = noisynet.held(net)
    with pytest.raises(ValueError, match=re.escape(f"where: {said}")):
        noisynet.resample(net, where=mask)
    assert torch.equal(noisynet.held(net).flats[0], former.flats[0])


@pytest.mark.parametrize("state", ["fresh", "held"])
def test_a_mask_where_no_rows_are_held(net: nn.Sequential, state: str) -> None:
    if state == "held":
        noisynet.hold(net)
    with pytest.raises(ValueError, match=r"where: got a mask, expected none.*hold\(rows=…\)"):
        noisynet.resample(net, where=torch.ones(8, dtype=torch.bool))


def test_a_generator_of_another_device(noise: str) -> None:
    layer = NoisyLinear(3, 2, noise=noise, device="meta")
    said = "generator: got one on cpu, expected one on meta"
    for function in (noisynet.draw, noisynet.hold, noisynet.resample):
        with pytest.raises(ValueError, match=said):
            function(layer, generator=torch.Generator())


def test_a_module_without_noise() -> None:
    plain = nn.Linear(3, 2)
    noisy = NoisyLinear(3, 2)
    said = "Linear has no noisy layer; noisynet.noisify makes some"
    for function in (noisynet.draw, noisynet.hold, noisynet.resample, noisynet.release):
        with pytest.raises(ValueError, match=said):
            function(plain)
    with pytest.raises(ValueError, match=said):
        noisynet.held(plain)
    with pytest.raises(ValueError, match=said), noisynet.using(plain, noisynet.draw(noisy)):
        pass
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=said):
        noisynet.attach(optimizer, plain)


def test_a_draw_for_another_net(net: nn.Sequential, noise: str) -> None:
    x = torch.randn(2, 3)
    noisynet.hold(net)
    held = net(x)
    other_kind = "independent" if noise == "factorised" else "factorised"
    for other, said in (
        (nn.Sequential(NoisyLinear(4, 4, noise=noise)), "draw: got noise for '0'.*no such noisy"),
        (nn.ModuleDict({"2": NoisyLinear(4, 5, noise=noise)}), "outputs=5.*; here is .*outputs=4"),
        (nn.ModuleDict({"2": NoisyLinear(4, 4, noise=other_kind)}), f"'{other_kind}'.*'{noise}'"),
        (nn.ModuleDict({"2": NoisyLinear(4, 4, noise=noise)}), "draw: got no noise for '4'"),
    ):
        drawn = noisynet.draw(other)
        with pytest.raises(ValueError, match=said), noisynet.using(net, drawn):
            pass
        with pytest.raises(ValueError, match=said):
            noisynet.hold(net, drawn=drawn)
        assert torch.equal(net(x), held)


def test_a_draw_of_another_dtype_or_device(net: nn.Sequential) -> None:
    drawn = noisynet.draw(net)
    said = r"got torch.float64 on cpu, expected torch.float32 on cpu for '2'; move it with draw.to"
    with pytest.raises(ValueError, match=said), noisynet.using(net, drawn.to(torch.float64)):
        pass
    said = "got torch.float32 on meta, expected torch.float32 on cpu for '2'"
    with pytest.raises(ValueError, match=said), noisynet.using(net, drawn.to("meta")):
        pass


def test_a_draw_together_with_rows_or_a_generator(net: nn.Sequential) -> None:
    drawn = noisynet.draw(net)
    said = "hold: got a draw and rows or a generator, expected one or the other"
    for options in ({"rows": 3}, {"generator": torch.Generator()}):
        with pytest.raises(ValueError, match=said):
            noisynet.hold(net, drawn=drawn, **options)


@pytest.mark.parametrize(
    ("rows", "index", "said"),
    [
        (None, 0, "this draw has no rows to pick from"),
        (3, torch.ones(4, dtype=torch.bool), r"mask: got shape \(4,\), expected \(3,\)"),
        (3, True, r"mask: got shape \(\), expected \(3,\)"),
        (3, torch.zeros(2, 2, dtype=torch.int64), "index: got 2 dimensions, expected one"),
        (3, [0.0, 1.0], "index: got torch.float32, expected integers or booleans"),
        (3, None, "index: got None, expected a slice, integers or booleans"),
        (3, 3, "out of (range|bounds)"),
        (3, torch.tensor([0, 3]), "out of (range|bounds)"),
    ],
)
def test_wrong_indices(net: nn.Sequential, rows: int | None, index: Any, said: str) -> None:
    drawn = noisynet.draw(net, rows=rows)
    with pytest.raises(IndexError, match=said):
        drawn[index]


def test_a_layer_that_is_not_drawn(net: nn.Sequential) -> None:
    with pytest.raises(KeyError, match="head"):
        noisynet.draw(net).layer("head")


@pytest.mark.parametrize("act", [noisynet.draw, noisynet.hold, noisynet.resample, noisynet.release])
def test_no_module_at_all_is_an_error(act):
    with pytest.raises(TypeError, match="got no module, expected at least one"):
        act()


def test_what_is_no_module_draw_or_generator(net: nn.Sequential) -> None:
    drawn: Any = noisynet.draw(net)
    number: Any = 8
    said = "^got int, expected an nn.Module; options go by name, as rows=8$"
    for act in (noisynet.draw, noisynet.hold, noisynet.resample, noisynet.release):
        with pytest.raises(TypeError, match=said):
            act(net, number)
    with pytest.raises(TypeError, match=said), noisynet.mean_weights(number):
        pass
    with pytest.raises(TypeError, match=r"^got Draw, expected an nn.Module"):
        noisynet.using(drawn, net).__enter__()
    for nothing in (None, torch.zeros(3)):
        said = f"^draw: got {type(nothing).__name__}, expected a noisynet.Draw$"
        with pytest.raises(TypeError, match=said):
            noisynet.using(net, nothing).__enter__()
    with pytest.raises(TypeError, match=r"^draw: got Tensor, expected a noisynet.Draw$"):
        noisynet.hold(net, drawn=torch.zeros(3))
    for act in (noisynet.draw, noisynet.hold, noisynet.resample):
        with pytest.raises(TypeError, match=r"^generator: got int, expected a torch.Generator or"):
            act(net, generator=number)


def test_an_error_about_one_module_leaves_all_as_they_were(net: nn.Sequential) -> None:
    plain = nn.Linear(3, 2)
    other = NoisyLinear(3, 2)
    noisynet.hold(other)
    for act in (noisynet.hold, noisynet.resample):
        with pytest.raises(ValueError, match="Linear has no noisy layer"):
            act(net, plain)
        assert noisynet.held(net) is None
    noisynet.hold(net, rows=3)
    former = noisynet.held(net)
    with pytest.raises(ValueError, match="where: got a mask, expected none"):
        noisynet.resample(net, other, where=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="Linear has no noisy layer"):
        noisynet.release(net, plain)
    assert torch.equal(noisynet.held(net).flats[0], former.flats[0])
