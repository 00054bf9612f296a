"""The doctor finds each fault that libraries have in replicas of their layers, and not in ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noisynet
from noisynet.diagnostics import Diagnosis

from . import replicas

P, A, B = 6, 4, 8


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(B, P)


def ours(kind: str = "factorised") -> nn.Module:
    layers = [noisynet.NoisyLinear(p, q, noise=kind) for p, q in ((P, 32), (32, 32), (32, A))]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def greedy(model: nn.Module) -> Callable[[Any], Tensor]:
    def act(observation: Any) -> Tensor:
        with torch.no_grad():
            return model(observation).argmax(-1)

    return act


def collector(model: nn.Module) -> Callable[[Any], Tensor]:
    """Act as frameworks collect: in eval mode."""

    def act(observation: Any) -> Tensor:
        former = model.training
        model.eval()
        try:
            return greedy(model)(observation)
        finally:
            model.train(former)

    return act


def td_loss(online: nn.Module, target: nn.Module, x: Tensor, *, redraw: Any = None) -> Tensor:
    """The loss of double DQN; `redraw` is called before each of its three forwards."""
    redraw = redraw or (lambda: None)
    redraw()
    q = online(x)[:, 0]
    with torch.no_grad():
        redraw()
        action = online(x).argmax(-1, keepdim=True)
        value = target(x).gather(1, action)[:, 0]
    return (q - 0.9 * value).square().mean()


def finds(diagnosis: Diagnosis, check: str, status: str, said: str, cure: str) -> None:
    finding = diagnosis[check]
    assert finding.status == status, str(finding)
    assert said in finding.message, str(finding)
    assert cure in finding.cure, str(finding)
    if status == "fail":
        assert not diagnosis.ok


def test_the_collector_s_eval_mode_switches_the_noise_off(batch: Tensor) -> None:
    model = replicas.net(replicas.TianshouLike)
    found = noisynet.doctor(model, batch, act=collector(model))
    finds(found, "acting", "fail", "does not explore by noise", "NoisyLinear")
    finds(found, "modes", "pass", "noise in train mode only", "")
    assert not found.ok
    # In train mode it would act, and without `act` nobody knows.
    assert noisynet.doctor(model, batch, act=greedy(model))["acting"].status == "pass"
    finds(noisynet.doctor(model, batch), "modes", "warn", "collect in eval mode", "NoisyLinear")
    model.eval()
    finds(noisynet.doctor(model, batch), "modes", "fail", "the other one", "NoisyLinear")
    sound = ours()
    assert noisynet.doctor(sound, batch, act=collector(sound))["acting"].status == "pass"
    assert noisynet.doctor(sound, batch)["modes"].status == "pass"


def test_the_loss_runs_deterministically(batch: Tensor) -> None:
    model = replicas.net(replicas.TorchRLLike)
    target = copy.deepcopy(model)

    def loss() -> Tensor:
        with replicas.TorchRLLike.exploring("deterministic"):
            return td_loss(model, target, batch)

    with replicas.TorchRLLike.exploring():
        found = noisynet.doctor(model, batch, loss=loss, act=greedy(model))
    assert found["acting"].status == "pass"
    finds(found, "noise in the loss", "fail", "without noise: σ cannot learn", "noise on")
    finds(found, "sigma gradient", "fail", "gets no gradient", "noise on")
    found = noisynet.doctor(model, batch, act=greedy(model))
    finds(found, "acting", "fail", "noise is off", "NoisyLinear")

    sound = ours()
    other = copy.deepcopy(sound)
    found = noisynet.doctor(sound, batch, loss=lambda: td_loss(sound, other, batch))
    assert found["noise in the loss"].status == found["sigma gradient"].status == "pass"


def test_a_redraw_that_touches_nothing(batch: Tensor) -> None:
    model = replicas.net(replicas.TorchRLLike)
    loss_module = replicas.LossThatHidesItsNetwork(model)

    def reset(module: nn.Module) -> None:
        if hasattr(module, "reset_noise"):
            module.reset_noise()

    with replicas.TorchRLLike.exploring():
        found = noisynet.doctor(model, batch, resample=lambda: loss_module.apply(reset))
        finds(found, "redraw", "fail", "stays the same over resample", "reset_noise()")
        found = noisynet.doctor(model, batch, resample=lambda: model.apply(reset))
        assert found["redraw"].status == "pass"

    # Where the noise is on in acting alone, it is looked at there.
    def act(observation: Tensor) -> Tensor:
        with replicas.TorchRLLike.exploring():
            return greedy(model)(observation)

    found = noisynet.doctor(model, batch, act=act, resample=lambda: loss_module.apply(reset))
    finds(found, "redraw", "fail", "stays the same over resample", "reset_noise()")
    sound = ours()
    noisynet.hold(sound, rows=B)
    found = noisynet.doctor(sound, batch, resample=lambda: noisynet.resample(sound))
    assert found["redraw"].status == "pass"


def test_an_option_that_is_accepted_and_ignored(batch: Tensor) -> None:
    found = noisynet.doctor(replicas.QNetWithAnIgnoredOption(noisy=True), batch)
    finds(found, "layers", "fail", "has no noisy layer", "noisify")
    assert len(found) == 1
    assert noisynet.doctor(ours(), batch)["layers"].status == "pass"


class LazyOfAnotherLibrary(nn.Module):
    """A noisy layer as TorchRL's lazy one, before its first input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_mu = nn.UninitializedParameter()
        self.weight_sigma = nn.UninitializedParameter()


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([noisynet.LazyNoisyLinear], "1 lazy layer has no shape yet: '0'"),
        (
            [noisynet.LazyNoisyLinear, nn.ReLU, noisynet.LazyNoisyLinear],
            "2 lazy layers have no shape yet: '0', '2'",
        ),
        (
            [lambda _: noisynet.NoisyLinear(P, 4), noisynet.LazyNoisyLinear],
            "1 lazy layer has no shape yet: '1'",
        ),
    ],
    ids=["one", "two", "beside another"],
)
def test_lazy_layers_without_a_shape(layers: list[Any], said: str, batch: Tensor) -> None:
    model = nn.Sequential(*(one() if one is nn.ReLU else one(4) for one in layers))
    found = noisynet.doctor(model, batch, act=greedy(model))
    finds(found, "layers", "fail", f"{said}; nothing was examined", "run one forward first")
    assert len(found) == 1
    # No forward of the doctor has given them a shape.
    assert noisynet.doctor(model)["layers"] == found["layers"]
    model(batch)
    assert noisynet.doctor(model, batch)["layers"].status == "pass"


def test_a_lazy_layer_of_another_library_without_a_shape() -> None:
    model = nn.Sequential(noisynet.NoisyLinear(P, A), LazyOfAnotherLibrary())
    finds(noisynet.doctor(model), "layers", "fail", "1 lazy layer has no shape yet: '1'", "forward")
    # A plain lazy layer is no noisy one.
    plain = nn.Sequential(nn.LazyLinear(P))
    finds(noisynet.doctor(plain), "layers", "fail", "has no noisy layer", "noisify")


def test_means_that_are_constant(batch: Tensor) -> None:
    found = noisynet.doctor(replicas.net(replicas.RLlibLike), batch)
    finds(found, "initial mean", "fail", "outputs of the layer are alike", "U[−1/√p, +1/√p]")
    assert noisynet.doctor(ours(), batch)["initial mean"].status == "pass"
    assert noisynet.doctor(ours("independent"), batch)["initial mean"].status == "pass"


@pytest.mark.parametrize("layer", ["KaixhinLike", "PFRLLike"])
def test_sigma_of_the_bias_over_the_root_of_the_outputs(batch: Tensor, layer: str) -> None:
    found = noisynet.doctor(replicas.net(getattr(replicas, layer)), batch)
    preset = "kaixhin" if layer == "KaixhinLike" else "pfrl"
    finds(found, "initial sigma", "warn", preset, "σ0/√p")
    assert "the paper's" in noisynet.doctor(ours(), batch)["initial sigma"].message


def test_independent_draws_with_the_sigma_of_factorised_ones(batch: Tensor) -> None:
    found = noisynet.doctor(replicas.net(replicas.CleanRLLike), batch)
    finds(found, "initial sigma", "fail", "independent draws", "factorised noise")
    assert noisynet.doctor(ours("independent"), batch)["initial sigma"].status == "pass"
    # A stranger's layers of one p might have been given that σ; a σ of ours that was asked for is
    # no fault: 0.05 is 0.4/√64, and 0.1/√4.
    alone = nn.Sequential(replicas.CleanRLLike(32, 32), nn.ReLU(), replicas.CleanRLLike(32, A))
    found = noisynet.doctor(alone, torch.randn(B, 32))
    finds(found, "initial sigma", "warn", "independent draws", "factorised noise")
    chosen = nn.Sequential(
        noisynet.NoisyLinear(4, 64, noise="independent", sigma0=0.05), nn.ReLU(),
        noisynet.NoisyLinear(64, 2, noise="independent", sigma0=0.05),
    )  # fmt: skip
    finds(noisynet.doctor(chosen), "initial sigma", "pass", "0.05", "")


def test_one_random_key_for_all(batch: Tensor) -> None:
    found = noisynet.doctor(replicas.net(replicas.OneKey), batch)
    finds(found, "own draws", "fail", "one random key", "a key")
    for kind in ("factorised", "independent"):
        assert noisynet.doctor(ours(kind), batch)["own draws"].status == "pass"


def test_noise_that_is_cached_for_the_whole_run(batch: Tensor) -> None:
    found = noisynet.doctor(replicas.net(replicas.Cached), batch)
    finds(found, "redraw", "fail", "stays the same", "NoisyLinear")
    # One draw seen often is one draw, from which neither can be told.
    assert found["own draws"].status == found["distribution"].status == "skipped"
    held = ours()
    noisynet.hold(held)
    assert noisynet.doctor(held, batch)["redraw"].status == "pass"
    assert noisynet.doctor(ours(), batch)["redraw"].status == "pass"


def test_a_warm_up_under_one_draw(batch: Tensor) -> None:
    model = replicas.net(replicas.CleanRLLike)
    optimizer = torch.optim.Adam(model.parameters())
    found = noisynet.doctor(model, batch, act=greedy(model), optimizer=optimizer)
    finds(found, "warm-up", "warn", "before the first update", "at every step")
    sound = ours()
    found = noisynet.doctor(
        sound, batch, act=greedy(sound), optimizer=torch.optim.Adam(sound.parameters())
    )
    assert found["warm-up"].status == "pass"


def test_the_gradient_s_draw_chooses_the_next_action(batch: Tensor) -> None:
    model = replicas.net(replicas.KaixhinLike)
    target = copy.deepcopy(model)
    for layer in target:
        if hasattr(layer, "reset_noise"):
            layer.reset_noise()
    found = noisynet.doctor(model, batch, loss=lambda: td_loss(model, target, batch))
    finds(found, "draws in the loss", "fail", "action choice uses the gradient's", "three draws")

    sound = ours()
    noisynet.hold(sound)
    other = copy.deepcopy(sound)
    noisynet.resample(other)

    def redraw() -> None:
        noisynet.resample(sound)

    found = noisynet.doctor(sound, batch, loss=lambda: td_loss(sound, other, batch, redraw=redraw))
    assert found["draws in the loss"].status == "pass"


def test_a_sync_that_copies_the_noise_to_the_target(batch: Tensor) -> None:
    model = replicas.net(replicas.KaixhinLike)
    target = replicas.net(replicas.KaixhinLike)
    target.load_state_dict(model.state_dict())
    found = noisynet.doctor(model, batch, target=target, loss=lambda: td_loss(model, target, batch))
    finds(found, "target", "fail", "the same draw", "attach")
    finds(
        found,
        "draws in the loss",
        "fail",
        "target and action choice use the gradient's own draw",
        "three draws",
    )
    finds(found, "state_dict", "fail", "weight_epsilon", "persistent=False")

    sound, other = ours(), ours()
    noisynet.hold(sound, other)
    other.load_state_dict(sound.state_dict())
    found = noisynet.doctor(sound, batch, target=other)
    assert found["target"].status == found["state_dict"].status == "pass"
    finds(noisynet.doctor(sound, batch, target=sound), "target", "fail", "itself", "deepcopy")


def test_noise_among_the_parameters(batch: Tensor) -> None:
    found = noisynet.doctor(replicas.net(replicas.TianshouLike), batch)
    finds(found, "state_dict", "fail", "ε (eps_p) is in the parameters", "persistent=False")


def test_a_second_forward_that_spoils_the_gradient(batch: Tensor) -> None:
    found = noisynet.doctor(replicas.net(replicas.BookLike), batch)
    finds(found, "backward", "fail", "of the wrong draw", "new tensors")
    for kind in ("factorised", "independent"):
        sound = ours(kind)
        assert noisynet.doctor(sound, batch)["backward"].status == "pass"
        noisynet.hold(sound, rows=B)
        assert noisynet.doctor(sound, batch)["backward"].status == "pass"
    # Kaixhin's way writes into the buffers where autograd sees it: an error, and no silence.
    found = noisynet.doctor(replicas.net(replicas.KaixhinLike), batch)
    finds(found, "backward", "pass", "is an error", "")


def test_no_switch_at_evaluation(batch: Tensor) -> None:
    model = replicas.net(replicas.PFRLLike)
    found = noisynet.doctor(model, batch)
    finds(found, "evaluation", "fail", "no other switch", "mean_weights")
    found = noisynet.doctor(model, batch, evaluate=collector(model))
    finds(found, "evaluation", "fail", "during evaluation", "mean_weights")

    sound = ours()

    def evaluate(observation: Tensor) -> Tensor:
        with noisynet.mean_weights(sound):
            return greedy(sound)(observation)

    assert noisynet.doctor(sound, batch)["evaluation"].status == "pass"
    assert noisynet.doctor(sound, batch, evaluate=evaluate)["evaluation"].status == "pass"
    found = noisynet.doctor(sound, batch, evaluate=greedy(sound))
    finds(found, "evaluation", "fail", "during evaluation", "mean_weights")


def test_draws_made_on_the_cpu(batch: Tensor) -> None:
    found = noisynet.doctor(replicas.net(replicas.DrawnOnCpu), batch)
    finds(found, "device", "warn", "32 numbers copied each time", "device=weight.device")
    for kind in ("factorised", "independent"):
        assert noisynet.doctor(ours(kind), batch)["device"].status == "pass"


def test_numbers_of_another_distribution(batch: Tensor) -> None:
    # DrawnOnCpu forgets f: its factors are plain normals.
    found = noisynet.doctor(replicas.net(replicas.DrawnOnCpu), batch)
    finds(found, "distribution", "fail", "expected 0.798", "√|x|")
    for kind, said in (("factorised", "factorised: E ε²"), ("independent", "independent: E ε²")):
        finds(noisynet.doctor(ours(kind), batch), "distribution", "pass", said, "")


@pytest.mark.parametrize("layer", ["KaixhinLike", "CleanRLLike", "TianshouLike"])
def test_a_step_of_loss_and_optimizer_is_tried_in_layers_that_redraw_in_place(
    batch: Tensor, layer: str
) -> None:
    # A redraw between this loss and its backward would be an error.
    model = replicas.net(getattr(replicas, layer))
    target = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters())
    found = noisynet.doctor(
        model, batch, loss=lambda: td_loss(model, target, batch), optimizer=optimizer
    )
    assert found["sigma moves"].status == "pass"
    assert found["redraw between updates"].status == "skipped"
