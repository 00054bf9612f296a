"""ReDo with noise: what a unit that is drawn anew comes to be, and what must not change by it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

import noisynet
from noisynet.plasticity.moments import forget_part

BATCH = torch.rand(16, 4, generator=torch.Generator().manual_seed(0))
KINDS = ("factorised", "independent")


def dead_units(net: nn.Module, units: list[int], layer: str = "0") -> None:
    """Make units silent for every input and draw: no weight, no noise, a bias below 0."""
    module = net.get_submodule(layer)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter[units] = -1.0 if name == "bias" else 0.0


def made(noise: str = "factorised", hidden: int = 6, dead: tuple[int, ...] = (1, 4)) -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 3))
    net = noisynet.noisify(net, noise=noise)
    with torch.no_grad():
        net.get_parameter("0.bias").fill_(2.0)  # the others answer to every input
    dead_units(net, list(dead))
    return net


def stepped(net: nn.Module, steps: int = 3, **options: Any) -> torch.optim.Adam:
    """Return an optimizer that remembers some gradients, of a network left as it was."""
    optimizer = torch.optim.Adam(net.parameters(), **{"lr": 1e-3, **options})
    take_steps(net, [optimizer], steps)
    return optimizer


def take_steps(net: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int = 3) -> None:
    before = copy.deepcopy(net.state_dict())
    for _ in range(steps):
        net.zero_grad()
        net(BATCH).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    net.load_state_dict(before)


def matrices_and_vectors(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    of_ndim = {ndim: [one for one in net.parameters() if one.ndim == ndim] for ndim in (2, 1)}
    return of_ndim[2], of_ndim[1]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("noise", KINDS)
@pytest.mark.parametrize("rows", [None, 16])
def test_nothing_that_the_network_says_changes_under_any_draw(noise: str, rows: int | None) -> None:
    net = made(noise)
    optimizer = stepped(net)
    noisynet.hold(net, rows=rows)
    held, by_draw = noisynet.held(net), net(BATCH)
    with noisynet.mean_weights(net):
        by_means = net(BATCH)
    found = noisynet.revive(net, optimizer, BATCH, generator=seeded())
    assert found.units == {"0": (1, 4)}
    assert (found.count, found.left) == (2, {})
    after = noisynet.held(net)
    assert held is not None
    assert after is not None
    assert all(map(torch.equal, held.flats, after.flats))
    # Sums in which other terms are 0 now, and nothing else.
    torch.testing.assert_close(net(BATCH), by_draw, rtol=1e-6, atol=1e-6)
    with noisynet.mean_weights(net):
        torch.testing.assert_close(net(BATCH), by_means, rtol=1e-6, atol=1e-6)
    # The units answer now.
    assert noisynet.units(net, BATCH, draws=0)["0"].scores[[1, 4]].max() > 0.025


@pytest.mark.parametrize("noise", KINDS)
def test_a_sigma_left_alive_would_speak(noise: str) -> None:
    """What the σ of outgoing weights is set to 0 for: μ alone at 0 is not silence."""
    net = made(noise)
    sigma = net.get_parameter("2.weight_sigma").detach().clone()
    noisynet.hold(net)
    before = net(BATCH)
    noisynet.revive(net, stepped(net), BATCH, generator=seeded())
    assert (net.get_parameter("2.weight")[:, [1, 4]] == 0).all()
    with torch.no_grad():
        net.get_parameter("2.weight_sigma").copy_(sigma)
    assert (net(BATCH) - before).abs().max() > 1e-3


@pytest.mark.parametrize("noise", KINDS)
def test_mu_and_sigma_of_a_new_unit(noise: str) -> None:
    net = made(noise)
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        net.get_parameter("0.weight_sigma")[0] = 0.3  # of a unit that lives
    before["0.weight_sigma"] = net.get_parameter("0.weight_sigma").detach().clone()
    noisynet.revive(net, stepped(net), BATCH, generator=seeded())
    after = net.state_dict()
    # In: μ uniform within the paper's bound, σ the paper's constant; p = 4.
    bound, sigma = (1 / 2, 0.5 / 2) if noise == "factorised" else (math.sqrt(3 / 4), 0.017)
    new = after["0.weight"][[1, 4]]
    assert (new != before["0.weight"][[1, 4]]).all()
    assert new.abs().max() <= bound
    assert after["0.bias"][[1, 4]].abs().max() <= bound
    assert torch.allclose(after["0.weight_sigma"][[1, 4]], torch.tensor(sigma))
    assert torch.allclose(after["0.bias_sigma"][[1, 4]], torch.tensor(sigma))
    # Out: 0, both.
    assert (after["2.weight"][:, [1, 4]] == 0).all()
    assert (after["2.weight_sigma"][:, [1, 4]] == 0).all()
    # All else is what it was.
    others = [0, 2, 3, 5]
    for name in before:
        part = (slice(None), others) if name.startswith("2.weight") else others
        if name.startswith("2.bias"):
            part = slice(None)
        assert torch.equal(after[name][part], before[name][part]), name


def test_sigma_of_outgoing_weights_learns_again() -> None:
    net = made()
    optimizer = stepped(net)
    noisynet.revive(net, optimizer, BATCH, generator=seeded())
    noisynet.resample(net, generator=seeded(1))
    for _ in range(3):
        optimizer.zero_grad()
        (net(BATCH) - 1).square().mean().backward()
        optimizer.step()
    for name in ("2.weight", "2.weight_sigma"):
        assert net.get_parameter(name)[:, [1, 4]].abs().amax() > 1e-4, name


def test_the_moments_are_those_of_new_weights() -> None:
    net = made()
    optimizer = stepped(net)
    former = {name: copy.deepcopy(optimizer.state[one]) for name, one in net.named_parameters()}
    noisynet.revive(net, optimizer, BATCH, generator=seeded())
    others = [0, 2, 3, 5]
    for name, parameter in net.named_parameters():
        state = optimizer.state[parameter]
        assert state["step"] == 3
        for entry in ("exp_avg", "exp_avg_sq"):
            value, was = state[entry], former[name][entry]
            if name.startswith("2.bias"):
                assert torch.equal(value, was)
                continue
            dim = 1 if name.startswith("2.") else 0
            new = value.index_select(dim, torch.tensor([1, 4]))
            stays = value.index_select(dim, torch.tensor(others))
            assert torch.equal(stays, was.index_select(dim, torch.tensor(others))), name
            expected = 0.0 if entry == "exp_avg" else float(stays.mean())
            assert new.flatten().tolist() == pytest.approx([expected] * new.numel(), rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"batch": BATCH}, {"shrink": 0.5}, {"batch": BATCH, "shrink": 0.5, "reset": "2"}]
)
def test_two_optimizers_of_a_network_do_as_one(options: dict[str, Any]) -> None:
    net, twin = made(), made()
    noisynet.hold(net, generator=seeded(1))
    noisynet.hold(twin, generator=seeded(1))
    one = stepped(net)
    matrices, vectors = map(torch.optim.Adam, matrices_and_vectors(twin))
    take_steps(twin, [matrices, vectors])
    found = noisynet.revive(net, one, generator=seeded(), **options)
    assert noisynet.revive(twin, (matrices, vectors), generator=seeded(), **options) == found
    for parameter, copied in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, copied)
        owner, other = (matrices, vectors) if copied.ndim == 2 else (vectors, matrices)
        assert copied not in other.state
        assert owner.state[copied].keys() == one.state[parameter].keys()
        for entry, value in one.state[parameter].items():
            assert torch.equal(owner.state[copied][entry], value), entry


def test_muon_for_the_matrices_and_adamw_for_the_rest() -> None:
    net, twin = made(), made()
    matrices, vectors = matrices_and_vectors(twin)
    # torch has Muon from 2.9 on; SGD with momentum keeps the same state.
    of_matrices: Any = getattr(torch.optim, "Muon", torch.optim.SGD)
    muon, adamw = of_matrices(matrices, lr=1e-3, momentum=0.9), torch.optim.AdamW(vectors)
    take_steps(twin, [muon, adamw])
    for one in matrices:
        muon.state[one]["momentum_buffer"].fill_(1.0)
    for one in vectors:
        adamw.state[one]["exp_avg"].fill_(1.0)
    noisynet.revive(net, stepped(net), BATCH, generator=seeded())
    assert noisynet.revive(twin, [muon, adamw], BATCH, generator=seeded()).units == {"0": (1, 4)}
    assert all(map(torch.equal, net.parameters(), twin.parameters()))
    rows, columns = torch.ones(6, 4), torch.ones(3, 6)
    rows[[1, 4]] = columns[:, [1, 4]] = 0.0
    for name in ("weight", "weight_sigma"):
        for layer, expected in (("0", rows), ("2", columns)):
            state = muon.state[twin.get_parameter(f"{layer}.{name}")]
            assert torch.equal(state["momentum_buffer"], expected)
    for name in ("bias", "bias_sigma"):
        for layer, expected in (("0", rows[:, 0]), ("2", torch.ones(3))):
            state = adamw.state[twin.get_parameter(f"{layer}.{name}")]
            assert torch.equal(state["exp_avg"], expected)


@pytest.mark.parametrize("cleared", [False, True])
def test_new_weights_take_no_larger_steps_than_others(cleared: bool) -> None:
    """Second moments of 0, as ReDo's authors have them, give steps of up to 6.6 times the rate."""
    weight = nn.Parameter(torch.zeros(3, 4))
    optimizer = torch.optim.Adam([weight], lr=1e-3)
    weight.grad = torch.ones(3, 4)
    for _ in range(3000):
        optimizer.step()
    forget_part(optimizer, weight, 1, torch.tensor([2]))
    if cleared:
        optimizer.state[weight]["exp_avg_sq"][:, 2] = 0
    largest = torch.zeros(4)
    for _ in range(50):
        before = weight.detach().clone()
        optimizer.step()
        largest = torch.maximum(largest, (weight.detach() - before).abs().amax(0) / 1e-3)
    assert largest[[0, 1, 3]].tolist() == pytest.approx([1.0] * 3, rel=1e-2)
    # k steps later Adam divides (1 - β1^k) by the root of (1 - β2^k) / (1 - β2^(3000 + k)).
    by_formula = max(
        (1 - 0.9**k) / math.sqrt((1 - 0.999**k) / (1 - 0.999 ** (3000 + k))) for k in range(1, 51)
    )
    assert by_formula > 6.4
    assert float(largest[2]) == pytest.approx(by_formula if cleared else 1.0, rel=1e-2)


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lambda parameters: torch.optim.RMSprop(parameters, centered=True, momentum=0.5),
        lambda parameters: torch.optim.RAdam(parameters),
        lambda parameters: torch.optim.AdamW(parameters, amsgrad=True),
        lambda parameters: torch.optim.NAdam(parameters),
        lambda parameters: torch.optim.Adagrad(parameters, initial_accumulator_value=0.1),
    ],
)
def test_any_optimizer_of_torch_goes_on(make: Any) -> None:
    net = made()
    optimizer = make(net.parameters())
    net(BATCH).sum().backward()
    optimizer.step()
    dead_units(net, [1, 4])
    noisynet.revive(net, optimizer, BATCH, reset="2", generator=seeded())
    for parameter in net.get_submodule("2").parameters():
        # As of a new one: Adagrad begins its sum with 0.1.
        for entry, value in optimizer.state.get(parameter, {}).items():
            expected = torch.tensor(0.1 if entry == "sum" else 0.0)
            assert value is None or torch.allclose(value, expected), entry
    for _ in range(3):
        optimizer.zero_grad()
        net(BATCH).sum().backward()
        optimizer.step()
    assert all(bool(one.isfinite().all()) for one in net.parameters())
    assert noisynet.units(net, BATCH)["0"].dormant < 1


def test_rprop_steps_new_weights_by_the_size_of_those_that_stay() -> None:
    net = made()
    optimizer = torch.optim.Rprop(net.parameters(), lr=0.01)
    dead_units(net, [1, 4])
    for _ in range(2):
        optimizer.zero_grad()
        net(BATCH).sum().backward()
        optimizer.step()
    noisynet.revive(net, optimizer, BATCH, generator=seeded())
    optimizer.zero_grad()
    net(BATCH).sum().backward()
    optimizer.step()
    assert net.get_parameter("2.weight")[:, [1, 4]].abs().amax() > 0.005


def image_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(1, 4), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(27, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2),
    )  # fmt: skip


def test_convolutions_and_norms_between_layers() -> None:
    net = noisynet.noisify(image_net(), where=lambda *_: True)
    with torch.no_grad():
        # Filter 2 is dead by its norm's bias; so is unit 5 of the hidden layer.
        net.get_parameter("1.bias")[2] = -50.0
        net.get_parameter("7.bias").fill_(3.0)  # the others live
        net.get_parameter("7.bias")[5] = -50.0
        net.get_parameter("3.bias").fill_(1.0)
    dead_units(net, [1], "3")
    optimizer = torch.optim.Adam(net.parameters())
    images = torch.rand(6, 2, 6, 6, generator=seeded(1))
    found = noisynet.revive(net, optimizer, images, generator=seeded())
    assert found.units == {"0": (2,), "3": (1,), "6": (5,)}
    # Gain and bias of the norms are new, and so is what killed the units.
    assert net.get_parameter("1.bias")[2] == 0
    assert net.get_parameter("7.bias")[5] == 0
    for name in ("weight", "weight_sigma"):
        # A filter of nine positions is a block of nine inputs.
        assert (net.get_parameter(f"6.{name}")[[0, 7], 9:18] == 0).all()
        assert (net.get_parameter(f"6.{name}")[0, 18:] != 0).all()
        assert (net.get_parameter(f"3.{name}")[[0, 2], 2] == 0).all()
        # What lies between two new units is new, and not 0.
        assert (net.get_parameter(f"3.{name}")[1, 2] != 0).all()
        assert (net.get_parameter(f"6.{name}")[5, 9:18] != 0).all()
        assert (net.get_parameter(f"9.{name}")[:, 5] == 0).all()
    again = noisynet.units(net, images)
    assert again["0"].scores[2] > 0
    assert again["6"].scores[5] > 0


def test_a_norm_over_the_positions_of_an_image_keeps_its_gain() -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.LayerNorm((4, 4)), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    )
    dead_units(net, [2])  # alike at all positions
    with torch.no_grad():
        net.get_parameter("1.weight").fill_(2.0)
    images = torch.rand(6, 2, 6, 6, generator=seeded(1))
    found = noisynet.revive(net, torch.optim.Adam(net.parameters()), images, generator=seeded())
    assert found.units == {"0": (2,)}
    assert (net.get_parameter("1.weight") == 2.0).all()


def test_a_network_dead_as_a_whole_learns_again() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    net = noisynet.noisify(net, where=lambda name, _: name == "4")
    for layer in ("0", "2"):
        dead_units(net, list(range(16)), layer)
    target = BATCH.sum(1, keepdim=True)

    def learn(steps: int) -> float:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for step in range(steps):
            if step == 20:
                noisynet.revive(net, optimizer, BATCH, generator=seeded())
            with noisynet.using(net, noisynet.draw(net, generator=seeded(step))):
                loss = (net(BATCH) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with noisynet.mean_weights(net), torch.no_grad():
            return float((net(BATCH) - target).square().mean())

    spread = float(target.var(correction=0))
    assert learn(20) > 0.9 * spread  # the best constant
    assert learn(400) < 0.1 * spread


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last(h + self.inner(h).relu())


def test_layers_that_cannot_be_treated_are_refused_in_one_line() -> None:
    net = Residual()
    with pytest.raises(ValueError, match=r"without a layer .*'first': read by add") as caught:
        noisynet.revive(net, torch.optim.Adam(net.parameters()), BATCH)
    assert "\n" not in str(caught.value)


def test_a_network_without_parameters_is_refused_in_one_line() -> None:
    optimizer = torch.optim.Adam(nn.Linear(4, 4).parameters())
    with pytest.raises(ValueError, match=r"^net: got a ReLU without a layer whose units can"):
        noisynet.revive(nn.ReLU(), optimizer, BATCH)


def test_layers_that_cannot_be_treated_are_left_and_named() -> None:
    net = nn.Sequential(Residual(), nn.ReLU(), nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1))
    dead_units(net, [0], "0.first")
    dead_units(net, [2], "2")
    before = net.get_parameter("0.first.bias").detach().clone()
    found = noisynet.revive(net, torch.optim.Adam(net.parameters()), BATCH, draws=0)
    assert found.units["2"][-1] == 2
    assert "add" in found.left["0.first"]
    assert torch.equal(net.get_parameter("0.first.bias"), before)


class Sequence(nn.Module):
    """Two layers whose units are read: the first's by attention or an LSTM, the second's not."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.first, self.reader = nn.Linear(4, 4), reader
        self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.unsqueeze(0)).relu()
        of_attention = isinstance(self.reader, nn.MultiheadAttention)
        read = self.reader(h, h, h)[0] if of_attention else self.reader(h)[0]
        return self.last(self.second(read).relu()).squeeze(0)


@pytest.mark.parametrize(
    "kind", [lambda: noisynet.NoisyMultiheadAttention(4, 2), lambda: noisynet.NoisyLSTM(4, 4)]
)
def test_units_before_attention_and_an_lstm_are_left_and_named(kind: Any) -> None:
    torch.manual_seed(0)
    net = Sequence(kind())
    dead_units(net, [0], "first")
    dead_units(net, [2], "second")
    before = {name: one.detach().clone() for name, one in net.named_parameters()}
    with noisynet.mean_weights(net):
        said = net(BATCH)
        found = noisynet.revive(net, torch.optim.Adam(net.parameters()), BATCH)
        assert torch.equal(net(BATCH), said)
    assert found.left == {"first": f"read by 'reader', a {type(net.reader).__name__}"}
    assert set(found.units) == {"second"}
    assert 2 in found.units["second"]
    moved = {name for name, one in net.named_parameters() if not torch.equal(one, before[name])}
    assert moved == {"second.weight", "second.bias", "last.weight"}


class Uses(nn.Module):
    """Units of `first` that are used in a given way, and units of `own` that are used plainly."""

    def __init__(self, use: Callable[[Any, Tensor], Tensor], head: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.use = use
        self.first, self.other, self.own = (nn.Linear(4, 4) for _ in range(3))
        self.norm, self.last = nn.LayerNorm(4), nn.Linear(4, 2)
        self.head = nn.Linear(4, 2) if head is None else head
        with torch.no_grad():
            self.norm.bias.copy_(torch.tensor([9.0, -9.0, 9.0, -9.0]))
            for layer in (self.first, self.other, self.own):
                layer.bias.fill_(2.0)
        dead_units(self, [1, 3], "first")
        dead_units(self, [2], "own")

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x) + self.last(self.own(x).relu())

    def revived(self) -> noisynet.Revived:
        """Revive, and check that the network says the same."""
        before = self(BATCH)
        optimizer = torch.optim.Adam(self.parameters())
        # With this seed, both new units of `first` are active.
        found = noisynet.revive(self, optimizer, BATCH, threshold=0, draws=0, generator=seeded())
        torch.testing.assert_close(self(BATCH), before, rtol=1e-5, atol=1e-6)
        return found


@pytest.mark.parametrize(
    ("use", "by"),
    [
        (lambda net, x: net.head(net.first(x).relu()) + net.head(net.other(x).relu()), "head"),
        (lambda net, x: net.head(net.first(x).relu()) + net.head(x), "head"),
        (lambda net, x: net.head(x) + net.head(net.first(x).relu()), "head"),
        (lambda net, x: net.head(net.norm(net.first(x)).relu()) + net.norm(x)[:, :2], "norm"),
    ],
    ids=["another layer's units", "the input", "the input first", "a norm of the input"],
)
def test_units_whose_reader_reads_something_else_too_are_left(use: Any, by: str) -> None:
    found = Uses(use).revived()
    assert found.units == {"own": (2,)}
    assert found.left == {"first": f"read by {by!r}, which reads something else too"}


@pytest.mark.parametrize(
    "use",
    [
        lambda net, x: net.head(net.first(x).relu()) + net.head(2 * net.first(-x).relu()),
        lambda net, x: net.head(net.first(x).relu() * net.other(x).relu()),
    ],
    ids=["one layer twice", "a product"],
)
def test_a_reader_of_the_same_units_at_two_places_keeps_them_silent(use: Any) -> None:
    found = Uses(use).revived()
    assert (found.units, found.left) == ({"first": (1, 3), "own": (2,)}, {})


COMPILED_READERS: dict[str, Callable[[], Any]] = {
    "RecursiveScriptModule": lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 2))),
    "TopLevelTracedModule": lambda: torch.jit.trace(nn.Linear(4, 2), BATCH),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", COMPILED_READERS)
@pytest.mark.parametrize("seen_too", [False, True])
def test_units_that_a_script_module_reads_are_left(kind: str, seen_too: bool) -> None:
    def use(net: Any, x: Tensor) -> Tensor:
        h = net.first(x).relu()
        return net.head(h) + net.other(h)[:, :2] if seen_too else net.head(h)

    found = Uses(use, COMPILED_READERS[kind]()).revived()
    assert found.units == {"own": (2,)}
    assert found.left == {"first": f"read by 'head', a {kind}"}
    assert not torch.nn.modules.module._has_any_global_hook()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
def test_units_that_nothing_was_seen_to_read_are_left() -> None:
    doubled = torch.jit.script(_doubled)
    found = Uses(lambda net, x: doubled(net.first(x).relu())[:, :2]).revived()
    assert found.units == {"own": (2,)}
    assert found.left == {"first": "nothing that was seen reads it"}


def _doubled(x: Tensor) -> Tensor:
    return 2 * x


def test_a_parametrised_layer_is_left_and_not_shrunk() -> None:
    net = three_layers()
    nn.utils.parametrizations.spectral_norm(net[0])
    dead_units(net, [1], "2")
    optimizer = torch.optim.Adam(net.parameters())
    before = copy.deepcopy(dict(net[0].named_parameters()))
    found = noisynet.revive(net, optimizer, BATCH)
    assert 1 in found.units["2"]
    assert "keeps more than weights" in found.left["0"]
    with pytest.raises(ValueError, match=r"shrink: got '0.parametrizations.weight'"):
        noisynet.revive(net, optimizer, shrink=0.5)
    assert all(torch.equal(one, before[name]) for name, one in net[0].named_parameters())


def three_layers() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    dead_units(net, [3], "0")
    return net


def test_frozen_layers_are_left() -> None:
    net = three_layers()
    net[0].requires_grad_(False)
    before = net[0].weight.detach().clone()
    found = noisynet.revive(net, torch.optim.Adam(net[2:].parameters()), BATCH)
    assert "frozen" in found.left["0"]
    assert torch.equal(net[0].weight, before)


def test_layers_that_share_a_weight_are_refused() -> None:
    net = three_layers()
    net[2].weight = net[0].weight
    with pytest.raises(ValueError, match="shares a weight"):
        noisynet.revive(net, torch.optim.Adam(net.parameters()), BATCH)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**20), st.sets(st.integers(0, 5), min_size=1), st.sampled_from(KINDS))
def test_whichever_units_are_dead_the_network_says_the_same(
    seed: int, dead: set[int], noise: str
) -> None:
    net = made(noise, dead=tuple(dead))
    optimizer = stepped(net)
    noisynet.hold(net, generator=seeded(seed))
    before = net(BATCH)
    found = noisynet.revive(net, optimizer, BATCH, threshold=0, draws=0, generator=seeded(seed))
    assert set(found.units["0"]) == dead
    torch.testing.assert_close(net(BATCH), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"shrink": 0.5}, {"reset": "2"}, {"batch": BATCH}, {"shrink": 0.5, "batch": BATCH}]
)
def test_a_generator_repeats_it_and_global_generators_stay(options: dict[str, Any]) -> None:
    state = torch.get_rng_state()
    results: list[list[float]] = []
    for seed in (7, 7, 8):
        net = made()
        optimizer = torch.optim.Adam(net.parameters())
        torch.set_rng_state(state)
        noisynet.revive(net, optimizer, generator=seeded(seed), **options)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(nn.utils.parameters_to_vector(net.parameters()).tolist())
    assert results[0] == results[1] != results[2]


def test_gpus_that_the_network_is_not_on_are_not_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    net = made()
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    noisynet.revive(net, torch.optim.Adam(net.parameters()), BATCH, shrink=0.5)
    assert seeds == []


# Whole parameters


def test_shrink_and_perturb_by_hand() -> None:
    net = made()
    optimizer = stepped(net)
    with torch.no_grad():
        net.get_parameter("0.weight_sigma")[0] = torch.tensor([0.05, -0.05, -0.25, 0.0])
    before = {name: one.detach().clone() for name, one in net.named_parameters()}
    assert noisynet.revive(net, optimizer, shrink=0.8, generator=seeded()).count == 0
    # |σ| goes from here to σ0 = 0.25 by a fifth of the way, its sign stays.
    sigma = net.get_parameter("0.weight_sigma")[0]
    assert sigma.tolist() == pytest.approx([0.09, -0.09, -0.25, 0.05])
    for name, bound in (("0.weight", 1 / 2), ("2.weight", 1 / math.sqrt(6))):
        drawn = (net.get_parameter(name) - 0.8 * before[name]) / 0.2
        assert drawn.abs().max() <= bound * (1 + 1e-5)
        assert drawn.std() > bound / 3
    for parameter in net.parameters():
        state = optimizer.state[parameter]
        assert all(not bool(state[one].any()) for one in ("step", "exp_avg", "exp_avg_sq"))


def test_a_reset_draws_a_part_and_leaves_the_rest() -> None:
    net = made()
    optimizer = stepped(net)
    before = copy.deepcopy(net.state_dict())
    noisynet.hold(net)
    held = noisynet.held(net)
    noisynet.revive(net, optimizer, reset="2", generator=seeded())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]) == (name.startswith("0.") or "sigma" in name), name
    assert torch.allclose(net.get_parameter("2.weight_sigma"), torch.tensor(0.5 / math.sqrt(6)))
    assert optimizer.state[net.get_parameter("0.weight")]["step"] == 3
    assert optimizer.state[net.get_parameter("2.weight")]["step"] == 0
    after = noisynet.held(net)
    assert held is not None
    assert after is not None
    assert all(map(torch.equal, held.flats, after.flats))


def test_running_statistics_of_a_reset_part_begin_anew() -> None:
    net = nn.Sequential(
        nn.BatchNorm1d(4),
        nn.Linear(4, 3),
        nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3)),
        nn.Linear(3, 2),
    )
    net[2][2].requires_grad_(False)
    net(BATCH)
    before = {name: value.clone() for name, value in net.named_buffers()}
    optimizer = torch.optim.Adam(net.parameters())
    noisynet.revive(net, optimizer, shrink=0.5)
    assert all(torch.equal(one, before[name]) for name, one in net.named_buffers())
    noisynet.revive(net, optimizer, reset="2")
    for name, value in net.named_buffers():
        if name.startswith(("2.0.", "2.1.")):
            assert not torch.equal(value, before[name])
            assert bool((value == float(name.endswith("var"))).all()), name
        else:
            # Outside of the part, or frozen.
            assert torch.equal(value, before[name]), name


def test_a_reset_needs_the_optimizer_of_its_part_alone() -> None:
    net, twin = made(), made()
    head = torch.optim.Adam(twin.get_submodule("2").parameters())
    noisynet.revive(net, stepped(net), reset="2", generator=seeded())
    noisynet.revive(twin, head, reset="2", generator=seeded())
    assert all(map(torch.equal, net.parameters(), twin.parameters()))


def test_frozen_weights_are_neither_shrunk_nor_reset() -> None:
    net = made()
    net.get_submodule("0").requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.Adam(net.get_submodule("2").parameters())
    noisynet.revive(net, optimizer, shrink=0.5, generator=seeded())
    assert torch.equal(net.get_parameter("0.weight"), before["0.weight"])
    assert not torch.equal(net.get_parameter("2.weight"), before["2.weight"])


# Bad input


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "revive: got nothing to do, expected a batch, shrink= or reset="),
        ({"batch": BATCH, "threshold": 1.0}, "threshold: got 1.0, expected a number in [0, 1)"),
        ({"batch": BATCH, "threshold": -1}, "threshold: got -1, expected a number in [0, 1)"),
        ({"shrink": 1.0}, "shrink: got 1.0, expected a number in [0, 1), or None"),
        ({"shrink": "half"}, "shrink: got 'half', expected a number in [0, 1), or None"),
        ({"reset": "head"}, "reset: got 'head', expected parts of the network (0, 1, 2)"),
        ({"reset": "1"}, "reset: got '1', a ReLU, expected a part with weights that learn"),
        (
            {"batch": BATCH, "shrink": 0.5, "draws": -1},
            "draws: got -1, expected a whole number of at least 0",
        ),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(options: dict[str, Any], said: str) -> None:
    net = made()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole line is compared
        noisynet.revive(net, torch.optim.Adam(net.parameters()), **options)
    assert str(caught.value) == said
    assert all(torch.equal(one, before[name]) for name, one in net.state_dict().items())


def test_an_optimizer_that_does_not_know_the_parameters_is_one_line() -> None:
    net = made()
    means = [one for name, one in net.named_parameters() if "sigma" not in name]
    before = copy.deepcopy(net.state_dict())
    for options, lacking in (({"batch": BATCH}, 0), ({"shrink": 0.5}, 0), ({"reset": "2"}, 2)):
        said = rf"^optimizer: got {{}} without '{lacking}.weight_sigma', "
        with pytest.raises(ValueError, match=said.format("one")):
            noisynet.revive(net, torch.optim.Adam(means), **options)
        halves = [torch.optim.Adam(means[:2]), torch.optim.Adam(means[2:])]
        with pytest.raises(ValueError, match=said.format(2)):
            noisynet.revive(net, halves, **options)
        with pytest.raises(ValueError, match=r"^optimizer: got an empty list, expected the torch"):
            noisynet.revive(net, [], **options)
        for wrong in (None, [*halves, None]):
            with pytest.raises(TypeError, match=r"^optimizer: got NoneType, expected the torch.op"):
                noisynet.revive(net, wrong, **options)  # type: ignore[arg-type]
    assert all(torch.equal(one, before[name]) for name, one in net.state_dict().items())


def test_a_module_that_cannot_be_drawn_is_one_line() -> None:
    net = nn.Sequential(nn.Linear(4, 4), Own())
    optimizer = torch.optim.Adam(net.parameters())
    with pytest.raises(ValueError, match=r"^shrink: got '1', a Own: it has parameters and no"):
        noisynet.revive(net, optimizer, shrink=0.5)
    lazy = nn.Sequential(noisynet.LazyNoisyLinear(3))
    with pytest.raises(ValueError, match=r"^reset: got '0', a LazyNoisyLinear: it has no shape"):
        noisynet.revive(lazy, torch.optim.Adam(lazy.parameters()), reset="0")


COMPUTED: dict[str, Callable[[nn.Module], Any]] = {
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "spectral_norm": nn.utils.spectral_norm,
    "weight_norm": nn.utils.weight_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("how", COMPUTED)
@pytest.mark.parametrize("with_graph", [False, True])
@pytest.mark.parametrize("options", [{"reset": "2"}, {"shrink": 0.5}])
def test_a_weight_computed_from_others_is_one_line_and_changes_nothing(
    how: str, with_graph: bool, options: dict[str, Any]
) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    COMPUTED[how](net[2])
    with torch.set_grad_enabled(with_graph):
        net(BATCH)  # keeps the weight with its graph, if there is one
    optimizer = torch.optim.Adam(net.parameters())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole line is compared
        noisynet.revive(net, optimizer, **options)
    assert str(caught.value) == (
        f"{next(iter(options))}: got '2', a Linear: its weight is computed from other parameters "
        "(pruned or normalised)"
    )
    assert all(torch.equal(one, before[name]) for name, one in net.state_dict().items())


def test_an_optimizer_that_keeps_other_shapes_is_one_line() -> None:
    net = made()
    optimizer = torch.optim.Adafactor(net.parameters())
    net(BATCH).sum().backward()
    optimizer.step()
    with pytest.raises(ValueError, match=r"^optimizer: got Adafactor, which keeps '\w+' of "):
        noisynet.revive(net, optimizer, BATCH)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_activations_that_are_not_finite_are_one_line(wrong: float) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), noisynet.NoisyLinear(4, 2))
    with torch.no_grad():
        net[0].bias[0] = wrong
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.Adam(net.parameters())
    with pytest.raises(ValueError, match=r"^net: got activations of '0' that are NaN or infinite"):
        noisynet.revive(net, optimizer, torch.randn(8, 3))
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
