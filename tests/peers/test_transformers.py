"""Tiny models of transformers, of random weights, made noisy: forward, generate, save and load."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet

transformers: Any = pytest.importorskip("transformers")

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

ROWS, WORDS = 3, 31


def gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=1,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32, bos_token_id=1,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def bert() -> Any:
    return transformers.BertModel(transformers.BertConfig(vocab_size=WORDS, **SMALL))


def vit() -> Any:
    return transformers.ViTModel(transformers.ViTConfig(image_size=8, patch_size=4, **SMALL))


MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Tensor]]] = {
    "gpt2": (gpt2, lambda: torch.randint(2, WORDS, (ROWS, 6))),
    "llama": (llama, lambda: torch.randint(2, WORDS, (ROWS, 6))),
    "bert": (bert, lambda: torch.randint(2, WORDS, (ROWS, 6))),
    "vit": (vit, lambda: torch.randn(ROWS, 3, 8, 8)),
}
GENERATING = ["gpt2", "llama"]


@pytest.fixture(params=["factorised", "independent"])
def noise(request: pytest.FixtureRequest) -> str:
    return request.param


def plain_model(name: str) -> nn.Module:
    torch.manual_seed(1706_10295)
    return MODELS[name][0]().eval()


def noisy_model(name: str, noise: str = "factorised") -> Any:
    """The model with noise that shows in the words that it picks."""
    return noisynet.noisify(
        plain_model(name), noise=noise, sigma0=2.0 if noise == "factorised" else 0.3
    )


def output(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_product_with_a_weight_is_noisy_or_named(name: str) -> None:
    model = plain_model(name)
    matrices = {
        one
        for one, parameter in model.named_parameters()
        if parameter.ndim > 1 and "embed" not in one and "wte" not in one and "wpe" not in one
    } - {"embeddings.cls_token"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        noisynet.noisify(model)
    layers = noisynet.noisy_layers(model)
    noisy = {f"{one}.weight" for one in layers}
    assert matrices <= noisy
    assert not any("attn" in str(one.message) or "Linear" in str(one.message) for one in caught)
    said = [str(one.message) for one in caught if "noisify" in str(one.message)]
    # The patches of a vision transformer are cut by a convolution.
    assert len(said) == (name == "vit")
    assert all("projection (Conv2d: choose it with where=…)" in one for one in said)


@pytest.mark.parametrize("name", MODELS)
def test_the_means_are_the_plain_model_and_noise_acts_in_eval_mode(name: str, noise: str) -> None:
    plain, model, x = plain_model(name), noisy_model(name, noise), MODELS[name][1]()
    with noisynet.mean_weights(model):
        assert torch.equal(output(model, x), output(plain, x))
    assert not torch.allclose(output(model, x), output(plain, x))
    assert not torch.equal(output(model, x), output(model, x))
    assert torch.equal(output(noisynet.denoise(model), x), output(plain, x))
    assert [type(part) for part in model.modules()] == [type(part) for part in plain.modules()]


@pytest.mark.parametrize("name", MODELS)
def test_row_i_of_the_batch_uses_draw_i(name: str, noise: str) -> None:
    model, x = noisy_model(name, noise), MODELS[name][1]()
    noisynet.hold(model, rows=ROWS, batch_first=True)
    drawn, y = noisynet.held(model), output(model, x)
    for row in range(ROWS):
        with noisynet.using(model, drawn[row]):
            torch.testing.assert_close(
                output(model, x[row : row + 1])[0], y[row], rtol=1e-3, atol=1e-4
            )
    with pytest.raises(ValueError, match="3 rows, the first dimension"):
        model(x[:2])


@pytest.mark.parametrize("name", MODELS)
def test_every_sigma_learns(name: str, noise: str) -> None:
    model, x = noisy_model(name, noise), MODELS[name][1]()
    noisynet.hold(model, rows=ROWS, batch_first=True)
    # Of everything that it returns; BERT's and ViT's poolers are apart.
    sum(one.pow(2).sum() for one in model(x).to_tuple() if isinstance(one, Tensor)).backward()
    for sigma in noisynet.sigma_parameters(model):
        assert sigma.grad is not None
    learned = [bool(sigma.grad.any()) for sigma in noisynet.sigma_parameters(model)]
    # A key's bias shifts all scores of a query alike, and so has no gradient.
    assert sum(learned) >= len(learned) - 2


def generated(model: Any, prompt: Tensor, *, cache: bool) -> Tensor:
    return model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=10,
        use_cache=cache, pad_token_id=0,
    )  # fmt: skip


@pytest.mark.parametrize("name", GENERATING)
def test_generation_with_a_cache_is_that_without_one(name: str, noise: str) -> None:
    model, prompt = noisy_model(name, noise), torch.randint(2, WORDS, (1, 4)).expand(ROWS, -1)
    noisynet.hold(model, rows=ROWS, batch_first=True)
    drawn = noisynet.held(model)
    words = generated(model, prompt, cache=True)
    assert words.shape == (ROWS, 14)
    assert torch.equal(generated(model, prompt, cache=False), words)
    assert torch.equal(generated(model, prompt, cache=True), words)
    # One prompt, and what differs is the draws.
    assert len({tuple(row.tolist()) for row in words}) > 1
    for row in range(ROWS):
        with noisynet.using(model, drawn[row]):
            assert torch.equal(generated(model, prompt[:1], cache=True)[0], words[row])
    noisynet.resample(model)
    assert not torch.equal(generated(model, prompt, cache=True), words)


@pytest.mark.parametrize("name", MODELS)
def test_checkpoints_of_the_plain_model_and_back(name: str, tmp_path: Path) -> None:
    plain, model, x = plain_model(name), noisy_model(name), MODELS[name][1]()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    result = model.load_state_dict(plain.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert all(one.endswith("_sigma") for one in result.missing_keys)
    with noisynet.mean_weights(model):
        assert torch.equal(output(model, x), output(plain, x))
    # What the noisy model saves, the plain class reads, and leaves σ.
    model.save_pretrained(tmp_path)
    means = type(plain).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(output(means, x), output(plain, x))
    # And all of it goes back into a noisy one.
    torch.save(model.state_dict(), tmp_path / "noisy.pt")
    other = noisy_model(name)
    other.load_state_dict(torch.load(tmp_path / "noisy.pt"))
    noisynet.hold(other, rows=ROWS, batch_first=True)
    noisynet.hold(model, drawn=noisynet.held(other))
    torch.testing.assert_close(output(model, x), output(other, x))


@pytest.mark.parametrize("make", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_gpt2_does_the_same(make: Callable[[Any], Any]) -> None:
    model, x = noisy_model("gpt2"), MODELS["gpt2"][1]()
    noisynet.hold(model, rows=ROWS, batch_first=True)
    made = make(model)
    assert torch.equal(output(made, x), output(model, x))
    layer = made.transformer.h[0].attn.c_attn
    assert isinstance(layer, transformers.pytorch_utils.Conv1D)
    assert repr(layer) == (
        "NoisyTransformersConv1D(nf=48, nx=16, noise='factorised' (held for 3 rows, batch first))"
    )
    noisynet.resample(made)
    assert not torch.equal(output(made, x), output(model, x))


def test_gpt2s_linear_layers_have_the_initial_sigma_of_linear_ones() -> None:
    model: Any = noisynet.noisify(plain_model("gpt2"))
    layer = model.transformer.h[0].mlp.c_proj  # 64 inputs, 16 outputs
    assert torch.equal(layer.weight_sigma, torch.full((64, 16), 0.5 / 8))
    assert torch.equal(layer.bias_sigma, torch.full((16,), 0.5 / 8))


def test_the_tied_output_of_gpt2_stays_tied() -> None:
    model: Any = noisynet.noisify(plain_model("gpt2"))
    assert model.lm_head.weight is model.transformer.wte.weight
    assert noisynet.denoise(model).lm_head.weight is model.transformer.wte.weight


def test_a_subclass_of_gpt2s_linear_layer_is_named() -> None:
    own = type("Own", (transformers.pytorch_utils.Conv1D,), {})
    net = nn.ModuleDict({"own": own(3, 2), "head": nn.Linear(3, 2)})
    with pytest.warns(UserWarning, match=r"leaves alone: own \(a Own, not a plain Conv1D\)"):
        noisynet.noisify(net)
