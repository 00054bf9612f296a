"""Whole transformers of torch: noise in every projection, and off the fast path while it acts."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import noisynet
from noisynet.layers import NoisyLinear, NoisyMultiheadAttention
from noisynet.layers.transformer import NoisyTransformerEncoder, NoisyTransformerEncoderLayer

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

N, T, E = 3, 5, 8
FAST = "_transformer_encoder_layer_fwd"


class Called(TorchDispatchMode):
    """Note which operations run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))


def encoder(**options: Any) -> nn.TransformerEncoder:
    given: dict[str, Any] = {"batch_first": True, "dropout": 0.0, **options}
    layer = nn.TransformerEncoderLayer(E, 2, 16, **given)
    with warnings.catch_warnings():
        # Torch says why it will not use nested tensors, where a test asks for that.
        warnings.simplefilter("ignore")
        return nn.TransformerEncoder(layer, 2).eval()


def padded() -> tuple[Tensor, Tensor]:
    """A batch (N, T, E), and where it is padding; longest first, as nested tensors have it."""
    padding = torch.zeros(N, T, dtype=torch.bool)
    padding[1, 3:] = padding[2, 2:] = True
    return torch.randn(N, T, E), padding


def effective_copy(net: nn.Module) -> nn.Module:
    """The plain net whose weights are those that the draw in force makes: slow and obvious."""
    made = copy.deepcopy(net)
    for name, layer in noisynet.noisy_layers(net).items():
        own: Any = made.get_submodule(name)
        with torch.no_grad():
            if isinstance(layer, NoisyMultiheadAttention):
                parts = layer.effective_weight()
                own.in_proj_weight.copy_(torch.cat([weight for weight, _ in parts]))
                own.in_proj_bias.copy_(torch.cat([bias for _, bias in parts]))
            else:
                assert isinstance(layer, NoisyLinear)
                weight, bias = layer.effective_weight()
                own.weight.copy_(weight)
                own.bias.copy_(bias)
    return noisynet.denoise(made)


@contextmanager
def without_gradients(off: bool) -> Iterator[None]:
    with torch.set_grad_enabled(not off):
        yield


def test_every_projection_becomes_noisy_without_a_warning(noise: str) -> None:
    net = nn.ModuleDict(
        {
            "encoder": encoder(),
            "decoder": nn.TransformerDecoder(nn.TransformerDecoderLayer(E, 2, 16), 1),
            "whole": nn.Transformer(E, 2, 1, 1, 16, batch_first=True),
        }
    )
    noisynet.noisify(net, noise=noise)
    kinds = (nn.Linear, nn.MultiheadAttention)
    products = {name for name, part in net.named_modules() if isinstance(part, kinds)}
    assert noisynet.noisy_layers(net).keys() == products
    # Two, one and two layers of an encoder and a decoder, with 4 products or 6.
    assert len(products) == 2 * 4 + 6 + 4 + 6
    assert {layer.noise for layer in noisynet.noisy_layers(net).values()} == {noise}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("off", [True, False])
@pytest.mark.parametrize("with_padding", [True, False])
def test_noise_acts_in_every_mode_and_the_means_take_the_fast_path(
    noise: str, training: bool, off: bool, with_padding: bool
) -> None:
    plain = encoder().train(training)
    net = noisynet.noisify(copy.deepcopy(plain), noise=noise)
    x, padding = padded()
    seen = ~padding if with_padding else torch.ones_like(padding)
    options = {"src_key_padding_mask": padding} if with_padding else {}
    noisynet.hold(net)
    with without_gradients(off):
        with Called() as called:
            y = net(x, **options)
        assert FAST not in called.names
        expected = effective_copy(net)(x, **options)
        torch.testing.assert_close(y[seen], expected[seen], rtol=1e-4, atol=1e-5)
        means = plain(x, **options)
        assert not torch.allclose(y[seen], means[seen], atol=1e-2)
        with noisynet.mean_weights(net), Called() as called:
            got = net(x, **options)
        assert (FAST in called.names) == (off and not training)
        assert torch.equal(got, means)


def test_a_nested_tensor_is_for_the_means_alone(noise: str) -> None:
    plain = encoder()
    net = noisynet.noisify(copy.deepcopy(plain), noise=noise)
    nested = torch.nested.nested_tensor([torch.randn(4, E), torch.randn(2, E)])
    with torch.no_grad():
        with noisynet.mean_weights(net):
            got = net(nested)
        for one, other in zip(got.unbind(), plain(nested).unbind(), strict=True):
            assert torch.equal(one, other)
        with pytest.raises(ValueError, match=r"^query: got a nested tensor, expected a padded one"):
            net(nested)


@pytest.mark.parametrize("part", ["self_attn", "self_attn.out_proj", "linear1", "linear2"])
def test_noise_in_one_part_is_enough_to_leave_the_fast_path(part: str) -> None:
    net = noisynet.noisify(encoder())
    x, _ = padded()
    layer: Any = net.layers[1].get_submodule(part)
    with torch.no_grad(), noisynet.mean_weights(net):
        means = net(x)
        with noisynet.using(layer, noisynet.draw(layer)):
            y = net(x)
            assert torch.equal(net(x), y)
        assert not torch.allclose(y, means)
        assert torch.equal(net(x), means)


def test_one_converted_part_is_enough_to_leave_the_fast_path() -> None:
    net = noisynet.noisify(encoder(), lambda name, _: name == "layers.0.linear2")
    assert list(noisynet.noisy_layers(net)) == ["layers.0.linear2"]
    assert type(net) is NoisyTransformerEncoder
    kinds = [type(layer) for layer in net.layers]
    assert kinds == [NoisyTransformerEncoderLayer, nn.TransformerEncoderLayer]
    x, padding = padded()
    noisynet.hold(net)
    with torch.no_grad():
        y = net(x, src_key_padding_mask=padding)[~padding]
        expected = effective_copy(net)(x, src_key_padding_mask=padding)[~padding]
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_row_i_of_the_batch_uses_draw_i(noise: str, batch_first: bool, norm_first: bool) -> None:
    net = encoder(batch_first=batch_first, norm_first=norm_first)
    noisynet.noisify(net, noise=noise)
    noisynet.hold(net, rows=N, batch_first=batch_first)
    drawn, (x, padding) = noisynet.held(net), padded()

    def laid_out(batch: Tensor) -> Tensor:
        return batch if batch_first else batch.transpose(0, 1)

    with torch.no_grad():
        y = laid_out(net(laid_out(x), src_key_padding_mask=padding))
        for row in range(N):
            length = int((~padding[row]).sum())
            with noisynet.using(net, drawn[row]):
                alone = laid_out(net(laid_out(x[row : row + 1, :length])))
            torch.testing.assert_close(y[row, :length], alone[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="3 rows"):
        net(laid_out(x[:2]))


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_decoder_has_a_draw_for_each_sequence(noise: str, batch_first: bool) -> None:
    layer = nn.TransformerDecoderLayer(E, 2, 16, dropout=0.0, batch_first=batch_first)
    net = noisynet.noisify(nn.TransformerDecoder(layer, 2), noise=noise)
    noisynet.hold(net, rows=N, batch_first=batch_first)
    drawn = noisynet.held(net)
    target, memory = torch.randn(N, T, E), torch.randn(N, T + 2, E)
    causal = nn.Transformer.generate_square_subsequent_mask(T)

    def decode(target: Tensor, memory: Tensor) -> Tensor:
        if batch_first:
            return net(target, memory, tgt_mask=causal)
        return net(target.mT.permute(2, 0, 1), memory.permute(1, 0, 2), tgt_mask=causal).transpose(
            0, 1
        )

    y = decode(target, memory)
    for row in range(N):
        with noisynet.using(net, drawn[row]):
            alone = decode(target[row : row + 1], memory[row : row + 1])
        torch.testing.assert_close(y[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_denoise_gives_torchs_own_classes_and_their_fast_path_back() -> None:
    plain = encoder()
    x, padding = padded()
    with torch.no_grad():
        expected = plain(x, src_key_padding_mask=padding)
    classes, settings = (
        [type(part) for part in plain.modules()],
        [vars(part).keys() for part in plain.modules()],
    )
    net = noisynet.noisify(plain)
    assert net is plain
    assert isinstance(net, nn.TransformerEncoder)
    assert noisynet.denoise(net) is net
    assert [type(part) for part in net.modules()] == classes
    assert [vars(part).keys() for part in net.modules()] == settings
    with torch.no_grad(), Called() as called:
        assert torch.equal(net(x, src_key_padding_mask=padding), expected)
    assert FAST in called.names


@pytest.mark.parametrize("make", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_keeps_off_the_fast_path_too(make: Callable[[nn.Module], nn.Module]) -> None:
    net = noisynet.noisify(encoder())
    noisynet.hold(net)
    x, padding = padded()
    made = make(net)
    with torch.no_grad():
        assert torch.equal(
            made(x, src_key_padding_mask=padding), net(x, src_key_padding_mask=padding)
        )
        with noisynet.mean_weights(made), Called() as called:
            made(x, src_key_padding_mask=padding)
    assert FAST in called.names


def test_an_encoder_built_from_a_noisy_layer_keeps_off_the_fast_path() -> None:
    layer = noisynet.noisify(nn.TransformerEncoderLayer(E, 2, 16, batch_first=True, dropout=0.0))
    assert type(layer) is NoisyTransformerEncoderLayer
    with pytest.warns(UserWarning, match="activation_relu_or_gelu was not True"):
        net = nn.TransformerEncoder(layer, 2).eval()
    noisynet.hold(net)
    x, padding = padded()
    with torch.no_grad():
        y, expected = (one(x, src_key_padding_mask=padding) for one in (net, effective_copy(net)))
    torch.testing.assert_close(y[~padding], expected[~padding], rtol=1e-4, atol=1e-5)


PARTS: dict[str, Callable[[], nn.Module]] = {
    "self_attn": lambda: NoisyMultiheadAttention(E, 2, batch_first=True),
    "linear1": lambda: NoisyLinear(E, 16),
    "linear2": lambda: NoisyLinear(16, E),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_noisy_layer_put_in_by_hand_keeps_off_the_fast_path(part: str) -> None:
    net = encoder()
    for layer in net.layers:
        setattr(layer, part, PARTS[part]())
    noisynet.hold(net)
    x, _ = padded()
    with torch.no_grad():
        y, expected = (one(x) for one in (net, effective_copy(net)))
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        with noisynet.mean_weights(net), Called() as called:
            assert not torch.allclose(net(x), y)
    assert FAST in called.names


def test_settings_that_were_changed_later_count() -> None:
    net = noisynet.noisify(encoder())
    net.use_nested_tensor = False
    net.layers[0].activation_relu_or_gelu = 0
    with noisynet.mean_weights(net):
        assert not net.use_nested_tensor
        assert [layer.activation_relu_or_gelu for layer in net.layers] == [0, 1]


class OwnLayer(nn.TransformerEncoderLayer):
    """Has no forward of its own, and could have one."""


def test_an_encoder_layer_of_another_class_is_left_alone_with_one_warning() -> None:
    net = nn.ModuleDict({"own": OwnLayer(E, 2, 16), "head": nn.Linear(E, 2)})
    said = r"^noisify leaves alone: own\.self_attn, own\.linear1, own\.linear2 \(the fast path of"
    with pytest.warns(UserWarning, match=said) as caught:
        noisynet.noisify(net)
    assert len(caught) == 1
    # The warning names the caller's line, not one inside noisynet.
    assert caught[0].filename == __file__
    assert list(noisynet.noisy_layers(net)) == ["head"]


def test_a_plain_checkpoint_loads() -> None:
    plain, net = encoder(), noisynet.noisify(encoder())
    result = net.load_state_dict(plain.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert all(name.endswith("_sigma") for name in result.missing_keys)
    x, _ = padded()
    with torch.no_grad(), noisynet.mean_weights(net):
        assert torch.equal(net(x), plain(x))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.skipif(torch.__version__ < (2, 7), reason="torch 2.6 fails to compile it")
def test_a_compiled_encoder_follows_the_noise() -> None:
    torch._dynamo.reset()
    net = noisynet.noisify(encoder())
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    x, _ = padded()
    noisynet.hold(net, rows=N, batch_first=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), net(x))
        noisynet.resample(net)
        torch.testing.assert_close(compiled(x), net(x))
        with noisynet.mean_weights(net):
            torch.testing.assert_close(compiled(x), net(x))
    torch._dynamo.reset()


def test_sigma_learns_everywhere(noise: str) -> None:
    net = noisynet.noisify(encoder(), noise=noise).train()
    noisynet.hold(net, rows=N, batch_first=True)
    net(padded()[0]).pow(3).sum().backward()
    for name, parameter in net.named_parameters():
        assert float(parameter.grad.abs().sum()) > 0, name
