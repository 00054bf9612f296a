"""Fresh, held, off: which noise is in force, and what changes it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import Draw, NoisyLinear
from noisynet.layers.noise import NoiseName

from .references import STATES, new_net, put_into


def same(first: Any, second: Any) -> bool:
    """Whether two draws hold the same values, layer by layer."""
    names = [slot.name for slot in first.slots]
    assert names == [slot.name for slot in second.slots]
    return all(
        torch.equal(first.layer(name).weight_noise(), second.layer(name).weight_noise())
        and torch.equal(first.layer(name).bias_noise(), second.layer(name).bias_noise())
        for name in names
    )


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 3)


def test_a_new_net_is_fresh_and_draws_at_every_forward(net: Any, x: Tensor) -> None:
    assert noisynet.held(net) is None
    assert not torch.equal(net(x), net(x))
    # One draw for the whole batch: equal rows in, equal rows out.
    together = net(x[:1].expand(6, 3))
    torch.testing.assert_close(together, together[:1].expand(6, 4))


def test_held_noise_stays_until_it_is_redrawn(net: Any, x: Tensor) -> None:
    noisynet.hold(net)
    first = net(x)
    assert torch.equal(net(x), first)
    noisynet.resample(net)
    second = net(x)
    assert not torch.equal(second, first)
    assert torch.equal(net(x), second)
    noisynet.release(net)
    assert noisynet.held(net) is None
    assert not torch.equal(net(x), net(x))


def test_a_fresh_net_becomes_held_on_resample(net: Any, x: Tensor) -> None:
    noisynet.resample(net)
    assert noisynet.held(net).rows is None
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("leading", [(), (1,), (4,), (2, 3)])
def test_rows_serve_any_number_of_leading_dimensions(net: Any, leading: tuple[int, ...]) -> None:
    noisynet.hold(net, rows=6)
    batch = torch.randn(*leading, 6, 3)
    together = net(batch)
    assert together.shape == (*leading, 6, 4)
    flat_in, flat_out = batch.reshape(-1, 6, 3), together.reshape(-1, 6, 4)
    for time_in, time_out in zip(flat_in, flat_out, strict=True):
        torch.testing.assert_close(net(time_in), time_out, rtol=1e-6, atol=1e-6)


def test_resample_keeps_the_rows(net: Any) -> None:
    noisynet.hold(net, rows=5)
    former: Any = noisynet.held(net)
    noisynet.resample(net)
    now: Any = noisynet.held(net)
    assert former.rows == now.rows == 5
    for name in noisynet.noisy_layers(net):
        changed = former.layer(name).weight_noise() != now.layer(name).weight_noise()
        assert bool(changed.flatten(1).all())


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("static", [False, True])
def test_where_redraws_only_the_rows_of_the_mask(
    net: Any, x: Tensor, static: bool, as_list: bool
) -> None:
    noisynet.hold(net, rows=6, static=static)
    former, former_output = noisynet.held(net), net(x)
    done = torch.tensor([True, False, False, True, False, False])
    noisynet.resample(net, where=done.tolist() if as_list else done)
    now, output = noisynet.held(net), net(x)
    assert same(now[~done], former[~done])
    assert torch.equal(output[~done], former_output[~done])
    for row in (0, 3):
        assert not same(now[row], former[row])
        assert not torch.equal(output[row], former_output[row])


def test_a_mask_of_false_changes_nothing(net: Any) -> None:
    noisynet.hold(net, rows=3)
    former: Any = noisynet.held(net)
    noisynet.resample(net, where=torch.zeros(3, dtype=torch.bool))
    assert same(noisynet.held(net), former)


def test_hold_again_changes_the_rows(net: Any) -> None:
    noisynet.hold(net, rows=3)
    noisynet.hold(net, rows=2)
    assert noisynet.held(net).rows == 2
    noisynet.hold(net)
    assert noisynet.held(net).rows is None


def test_hold_takes_a_draw(net: Any, x: Tensor) -> None:
    drawn: Any = noisynet.draw(net, rows=6)
    noisynet.hold(net, drawn=drawn)
    held = net(x)
    assert same(noisynet.held(net), drawn)
    noisynet.release(net)
    with noisynet.using(net, drawn):
        assert torch.equal(net(x), held)


def test_held_gives_a_value_that_later_redraws_do_not_change(net: Any) -> None:
    noisynet.hold(net, static=True)
    value: Any = noisynet.held(net)
    kept = value.clone()
    noisynet.resample(net)
    assert same(value, kept)
    assert not same(value, noisynet.held(net))


def test_several_modules_each_get_a_draw_of_their_own(noise: str) -> None:
    online, target = new_net(noise), new_net(noise)
    noisynet.hold(online, target)
    assert not same(noisynet.held(online), noisynet.held(target))
    former: Any = noisynet.held(online), noisynet.held(target)
    noisynet.resample(online, target)
    assert not same(noisynet.held(online), former[0])
    assert not same(noisynet.held(target), former[1])
    assert not same(noisynet.held(online), noisynet.held(target))
    noisynet.release(online, target)
    assert noisynet.held(online) is noisynet.held(target) is None


def test_using_puts_a_draw_in_force_and_restores_what_was(net: Any, x: Tensor) -> None:
    noisynet.hold(net)
    held = net(x)
    drawn: Any = noisynet.draw(net)
    with noisynet.using(net, drawn):
        first = net(x)
        assert torch.equal(net(x), first)
        assert not torch.equal(first, held)
    assert torch.equal(net(x), held)
    with noisynet.using(net, drawn):
        assert torch.equal(net(x), first)


@pytest.mark.parametrize("context", ["using", "mean_weights"])
@pytest.mark.parametrize("state", ["fresh", "held", "rows"])
def test_the_former_state_comes_back_after_an_error(
    net: Any, x: Tensor, context: str, state: str
) -> None:
    if state != "fresh":
        noisynet.hold(net, rows=6 if state == "rows" else None)
    former: Any = noisynet.held(net)
    manager = (
        noisynet.using(net, noisynet.draw(net))
        if context == "using"
        else noisynet.mean_weights(net)
    )
    # An input of the wrong size is the error.
    with pytest.raises(RuntimeError, match="cannot be multiplied"), manager:
        net(torch.zeros(2, 9))
    if former is None:
        assert noisynet.held(net) is None
        assert not torch.equal(net(x), net(x))
    else:
        assert same(noisynet.held(net), former)
        with noisynet.using(net, former):
            expected = net(x)
        assert torch.equal(net(x), expected)


def test_contexts_nest(net: Any, x: Tensor) -> None:
    noisynet.hold(net)
    first, second = noisynet.draw(net, net)

    def under(drawn: Draw) -> Tensor:
        with noisynet.using(net, drawn):
            return net(x)

    held, by_first, by_second = net(x), under(first), under(second)
    with noisynet.mean_weights(net):
        mean = net(x)
    with noisynet.using(net, first):
        with noisynet.mean_weights(net):
            assert torch.equal(net(x), mean)
            assert torch.equal(under(second), by_second)
            assert torch.equal(net(x), mean)
        assert torch.equal(net(x), by_first)
        assert torch.equal(under(second), by_second)
        assert torch.equal(net(x), by_first)
    assert torch.equal(net(x), held)
    assert len({tuple(y.flatten().tolist()) for y in (held, mean, by_first, by_second)}) == 4


@pytest.mark.parametrize("change", ["hold", "resample"])
def test_what_is_held_may_change_inside_using(net: Any, x: Tensor, change: str) -> None:
    noisynet.hold(net)
    held = net(x)
    with noisynet.using(net, noisynet.draw(net)):
        inside = net(x)
        getattr(noisynet, change)(net)
        assert torch.equal(net(x), inside)
    after = net(x)
    assert not torch.equal(after, held)
    assert not torch.equal(after, inside)
    assert torch.equal(net(x), after)


@pytest.mark.parametrize("state", STATES)
def test_mean_weights_is_bit_equal_to_plain_layers(net: Any, x: Tensor, state: str) -> None:
    layers = [net[0], net[2], net[4]]
    plain = x
    for number, layer in enumerate(layers):
        plain = nn.functional.linear(plain, layer.weight, layer.bias)
        plain = plain.relu() if number < 2 else plain
    put_into(net, state, 6)
    with noisynet.mean_weights(net):
        assert torch.equal(net(x), plain)


def test_mean_weights_takes_several_modules_and_ones_without_noise(net: Any, x: Tensor) -> None:
    plain = nn.Linear(3, 2)
    expected = plain(x)
    with noisynet.mean_weights(net, plain, net[2]):
        assert torch.equal(net(x), net(x))
        assert torch.equal(plain(x), expected)
    assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize("state", STATES)
def test_train_and_eval_change_nothing(net: Any, x: Tensor, state: str) -> None:
    put_into(net, state, 6)
    outputs = []
    for mode in (True, False):
        net.train(mode)
        torch.manual_seed(3)
        outputs.append([net(x), net(x)])
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert torch.equal(outputs[0][1], outputs[1][1])
    assert torch.equal(outputs[0][0], outputs[0][1]) == (state in ("held", "rows", "static"))


def test_part_of_a_net_can_be_held_alone(net: Any) -> None:
    noisynet.hold(net[2])
    x = torch.randn(2, 4)
    assert torch.equal(net[2](x), net[2](x))
    assert not torch.equal(net[4](x), net[4](x))
    with pytest.raises(ValueError, match="the layers hold different draws"):
        noisynet.held(net)


def test_repr_says_kind_and_state() -> None:
    layer = NoisyLinear(3, 2)

    def described() -> str:
        return repr(layer)

    start = "NoisyLinear(in_features=3, out_features=2, bias=True, noise='factorised' "
    assert described() == start + "(fresh))"
    noisynet.release(layer, per_row=True)
    assert described() == start + "(fresh per row))"
    noisynet.hold(layer)
    assert described() == start + "(held))"
    noisynet.hold(layer, rows=8)
    assert described() == start + "(held for 8 rows))"
    with noisynet.mean_weights(layer):
        assert described() == start + "(off))"
    with noisynet.using(layer, noisynet.draw(layer)):
        assert described() == start + "(using a draw))"


def test_effective_weight_is_what_the_state_says(noise: NoiseName) -> None:
    layer: Any = NoisyLinear(3, 2, noise=noise)
    x = torch.randn(5, 3)
    noisynet.hold(layer)
    weight, bias = layer.effective_weight()
    torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, bias))
    noisynet.hold(layer, rows=5)
    weight, bias = layer.effective_weight()
    torch.testing.assert_close(layer(x), torch.einsum("rqp,rp->rq", weight, x) + bias)
    with noisynet.mean_weights(layer):
        assert layer.effective_weight() == (layer.weight, layer.bias)


def test_noisy_layers_are_listed_by_name(net: Any) -> None:
    assert noisynet.noisy_layers(net) == {"2": net[2], "4": net[4]}
    assert noisynet.noisy_layers(net[2]) == {"": net[2]}
    assert noisynet.noisy_layers(nn.Linear(2, 2)) == {}


def test_sigma_parameters_lists_each_sigma_once(net: Any) -> None:
    tied = nn.ModuleList([net, net[2], nn.Sequential(net[4])])
    expected = [net[2].weight_sigma, net[2].bias_sigma, net[4].weight_sigma, net[4].bias_sigma]
    assert [id(p) for p in noisynet.sigma_parameters(tied)] == [id(p) for p in expected]
    # Two layers may also share one σ.
    net[4].weight_sigma = net[2].weight_sigma
    del expected[2]
    assert [id(p) for p in noisynet.sigma_parameters(net)] == [id(p) for p in expected]
    assert noisynet.sigma_parameters(nn.Linear(2, 2)) == []


def test_attach_resamples_now_and_after_each_step() -> None:
    online, target = new_net(), new_net()
    optimizer = torch.optim.SGD(online.parameters(), lr=0.0)
    handle = noisynet.attach(optimizer, online, target)
    seen = [(noisynet.held(online), noisynet.held(target))]
    for _ in range(2):
        online(torch.randn(2, 3)).sum().backward()
        optimizer.step()
        seen.append((noisynet.held(online), noisynet.held(target)))
    draws = [drawn for pair in seen for drawn in pair]
    assert None not in draws
    assert not any(same(a, b) for i, a in enumerate(draws) for b in draws[:i])
    handle.remove()
    optimizer.step()
    assert same(noisynet.held(online), seen[-1][0])
    assert same(noisynet.held(target), seen[-1][1])


def test_attach_warns_of_an_optimizer_that_lacks_sigma() -> None:
    net: Any
    net, target = (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    noisynet.noisify(net)
    noisynet.noisify(target)
    with pytest.warns(UserWarning, match=r"means of '0', '2' and lacks their σ.*add_param_group"):
        noisynet.attach(optimizer, net, target).remove()
    optimizer.add_param_group({"params": noisynet.sigma_parameters(net)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        noisynet.attach(optimizer, net, target).remove()
        # σ that is frozen is left out on purpose, and another optimizer may have the whole layer.
        net[0].weight_sigma.requires_grad_(False)
        of_last = torch.optim.SGD([*net[2].parameters(), net[0].weight, net[0].bias_sigma], lr=0.1)
        noisynet.attach(of_last, net).remove()


def test_attach_redraws_once_per_step_of_all_optimizers(net: Any) -> None:
    optimizers = [
        torch.optim.SGD([one for one in net.parameters() if one.ndim == ndim], lr=0.0)
        for ndim in (2, 1)
    ]
    noisynet.hold(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # each lacks some σ, and both together have all
        generator = torch.Generator().manual_seed(5)
        handle = noisynet.attach(optimizers, net, generator=generator)
    reference = torch.Generator().manual_seed(5)
    drawn = noisynet.draw(net, generator=reference)
    for _ in range(2):
        optimizers[0].step()
        assert same(noisynet.held(net), drawn)
        optimizers[1].step()
        drawn = noisynet.draw(net, generator=reference)
        assert same(noisynet.held(net), drawn)
    handle.remove()
    optimizers[1].step()
    assert same(noisynet.held(net), drawn)


def test_attach_warns_of_a_sigma_that_no_optimizer_has() -> None:
    net: Any = noisynet.noisify(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    means = [one for name, one in net.named_parameters() if "sigma" not in name]
    of_means = torch.optim.SGD(means, lr=0.1)
    of_sigmas = torch.optim.SGD(noisynet.sigma_parameters(net), lr=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        noisynet.attach((of_means, of_sigmas), net).remove()
    of_first = torch.optim.SGD(noisynet.sigma_parameters(net[0]), lr=0.01)
    with pytest.warns(UserWarning, match=r"optimizers have the means of '2' and lack their σ"):
        noisynet.attach([of_means, of_first], net).remove()


def test_attach_takes_optimizers_alone(net: Any) -> None:
    noisynet.hold(net)
    before = noisynet.held(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"^optimizer: got an empty tuple, expected the torch"):
        noisynet.attach((), net)
    for wrong in (net, [optimizer, net]):
        with pytest.raises(TypeError, match=r"^optimizer: got Sequential, expected the torch"):
            noisynet.attach(wrong, net)

    class Wrapper(torch.optim.Optimizer):
        """An optimizer around another one, without a state of its own, as accelerate makes it."""

        def __init__(self, inside: torch.optim.Optimizer) -> None:
            self.optimizer = inside

    with pytest.raises(TypeError, match=r"^optimizer: got Wrapper, a wrapper that takes no"):
        noisynet.attach(Wrapper(optimizer), net)
    assert same(noisynet.held(net), before)


def test_attach_keeps_the_rows_and_uses_its_generator(net: Any) -> None:
    noisynet.hold(net, rows=4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    state = torch.get_rng_state()
    handle = noisynet.attach(optimizer, net, generator=torch.Generator().manual_seed(5))
    optimizer.step()
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch.Generator().manual_seed(5)
    noisynet.draw(net, rows=4, generator=generator)
    assert same(noisynet.held(net), noisynet.draw(net, rows=4, generator=generator))
    handle.remove()
