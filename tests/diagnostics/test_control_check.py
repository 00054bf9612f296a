"""The doctor says what multiplies the noise, and does not take a scale for a fault."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import noisynet
from noisynet.control import Cosine, scale
from noisynet.control.scale import set_scale

from . import replicas


def network(**options: Any) -> nn.Module:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3))
    return noisynet.noisify(net, **options)


def said(net: nn.Module) -> tuple[str, str]:
    finding = noisynet.doctor(net)["control"]
    return finding.status, finding.message


def test_which_control_is_on() -> None:
    net = network()
    assert said(net) == ("pass", "none: the scale is 1, σ acts as it was learned")
    scale(net, 0.3)
    assert said(net) == ("pass", "a constant scale of 0.3")
    schedule = Cosine(1.0, 0.1, 1000)
    set_scale([net], schedule(500), control=schedule.words)
    expected = "cosine schedule, 1 to 0.1 over steps 0 to 1,000: the scale is 0.55 now"
    assert said(net) == ("pass", expected)
    scale(net[0], 1.0)
    assert said(net) == ("warn", "scales from 0.55 to 1: the layers have different ones")
    scale(net, 0)
    assert said(net) == ("fail", "the scale is 0: no noise acts")


def test_layers_of_others_have_no_scale() -> None:
    finding = noisynet.doctor(replicas.KaixhinLike(4, 3))["control"]
    assert (finding.status, finding.message) == (
        "skipped",
        "a scale is a state of noisynet's layers",
    )


@pytest.mark.parametrize("kind", ["factorised", "independent"])
@pytest.mark.parametrize("value", [0.05, 20.0])
def test_a_scale_is_no_fault_of_the_draws(kind: str, value: float) -> None:
    net = network(noise=kind)
    scale(net, value)
    noisynet.hold(net, rows=64)
    batch = torch.randn(64, 4)
    optimizer = torch.optim.Adam(net.parameters())

    def update() -> None:
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()
        noisynet.resample(net)

    found = noisynet.doctor(
        net,
        batch,
        act=lambda one: net(one).argmax(-1),
        loss=lambda: net(batch).square().mean(),
        optimizer=optimizer,
        update=update,
    )
    assert found.ok, str(found)
    for name in ("distribution", "redraw", "acting", "sigma gradient", "own draws", "backward"):
        assert found[name].status == "pass", str(found[name])
    assert scale(net) == value


def test_the_ratio_is_that_of_the_noise_that_acts() -> None:
    net = network()
    scale(net, 1e-4)
    assert noisynet.doctor(net)["sigma size"].status == "fail"
    scale(net, 1.0)
    assert noisynet.doctor(net)["sigma size"].status == "pass"


def test_sigma_that_is_not_learned_is_meant_so() -> None:
    net = network(noise="independent", sigma0=0.1, learned=False)
    assert said(net)[0] == "warn"
    assert "is not learned, and no control adapts it" in said(net)[1]
    noisynet.control.target(net, effective_epsilon=0.05)
    means = [one for name, one in net.named_parameters() if not name.endswith("_sigma")]
    optimizer = torch.optim.SGD(means, lr=0.1)
    batch = torch.randn(8, 4)
    found = noisynet.doctor(
        net, batch, loss=lambda: net(batch).square().mean(), optimizer=optimizer
    )
    assert found.ok, str(found)
    assert found["control"].status == "pass"
    for name in ("sigma gradient", "sigma moves", "optimizer"):
        assert (found[name].status, found[name].message) == (
            "skipped",
            "σ is not learned (learned=False)",
        )
    # Frozen by hand is a fault still.
    frozen = network()
    for one in noisynet.sigma_parameters(frozen):
        one.requires_grad_(False)
    loss = noisynet.doctor(frozen, batch, loss=lambda: frozen(batch).square().mean())
    assert loss["sigma gradient"].status == "fail"


def test_what_functions_do_to_the_scale_is_undone() -> None:
    net = network()
    noisynet.hold(net)
    batch = torch.randn(8, 4)
    before = net(batch)

    def act(one: torch.Tensor) -> torch.Tensor:
        scale(net, 0.5)
        return net(one).argmax(-1)

    noisynet.doctor(net, batch, act=act)
    assert scale(net) == 1.0
    assert torch.equal(net(batch), before)
