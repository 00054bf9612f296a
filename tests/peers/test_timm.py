"""A tiny vision transformer of timm, of random weights, made noisy."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet

timm: Any = pytest.importorskip("timm")

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

ROWS = 3


@pytest.fixture(params=["factorised", "independent"])
def noise(request: pytest.FixtureRequest) -> str:
    return request.param


def plain_model(**options: Any) -> Any:
    torch.manual_seed(1706_10295)
    model = timm.models.VisionTransformer(
        img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=5, **options
    ).eval()
    with torch.no_grad():
        # The head starts at zero.
        nn.init.normal_(model.head.weight)
    return model


def output(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def images() -> Tensor:
    return torch.randn(ROWS, 3, 8, 8)


def test_every_linear_layer_is_noisy_and_the_patches_are_named() -> None:
    model = plain_model()
    linears = {name for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    with pytest.warns(UserWarning, match="noisify") as caught:
        noisynet.noisify(model)
    said = [str(one.message) for one in caught]
    assert said == ["noisify leaves alone: patch_embed.proj (Conv2d: choose it with where=…)"]
    assert noisynet.noisy_layers(model).keys() == linears
    assert len(linears) == 2 * 4 + 1


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_row_i_of_the_batch_uses_draw_i(noise: str, fused: bool, pool: str) -> None:
    options = {"class_token": False} if pool != "token" else {}
    model = plain_model(global_pool=pool, **options)
    expected, x = output(model, images()), images()
    plain = copy.deepcopy(model)
    noisynet.noisify(model, lambda *_: True, noise=noise)
    for block in model.blocks:
        block.attn.fused_attn = fused
    noisynet.hold(model, rows=ROWS, batch_first=True)
    drawn, y = noisynet.held(model), output(model, x)
    assert y.shape == expected.shape == (ROWS, 5)
    for row in range(ROWS):
        with noisynet.using(model, drawn[row]):
            alone = output(model, x[row : row + 1])[0]
        torch.testing.assert_close(alone, y[row], rtol=1e-3, atol=1e-4)
    with noisynet.mean_weights(model):
        torch.testing.assert_close(output(model, x), output(plain, x))
    with pytest.raises(ValueError, match="3 rows"):
        model(x[:2])


def test_save_load_and_copies(noise: str, tmp_path: Any) -> None:
    plain, model, x = plain_model(), noisynet.noisify(plain_model(), noise=noise), images()
    result = model.load_state_dict(plain.state_dict(), strict=False)
    assert result.unexpected_keys == []
    torch.save(model.state_dict(), tmp_path / "noisy.pt")
    other = noisynet.noisify(plain_model(), noise=noise)
    other.load_state_dict(torch.load(tmp_path / "noisy.pt"))
    noisynet.hold(model, rows=ROWS, batch_first=True)
    noisynet.hold(other, drawn=noisynet.held(model))
    for one in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(output(one, x), output(model, x))
    assert torch.equal(output(noisynet.denoise(model), x), output(plain, x))


def test_every_sigma_learns(noise: str) -> None:
    model = noisynet.noisify(plain_model(), noise=noise)
    noisynet.hold(model, rows=ROWS, batch_first=True)
    model(images()).pow(2).sum().backward()
    assert all(bool(sigma.grad.any()) for sigma in noisynet.sigma_parameters(model))
