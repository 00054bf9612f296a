"""An Ignite engine with noisy networks: what the handler redraws, copies and measures."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ignite", reason="needs noisynet[ignite]")

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn

import noisynet
from noisynet.control import Linear, scale
from noisynet.integrations.ignite import NoiseControl, NoiseHandler


def network() -> nn.Module:
    return noisynet.noisify(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)))


def engine_of(net: nn.Module) -> Engine:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def process_batch(_: Engine, batch: torch.Tensor) -> dict[str, float]:
        optimizer.zero_grad()
        loss = net(batch).square().mean()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    return Engine(process_batch)


def noise_of(net: nn.Module) -> torch.Tensor:
    drawn = noisynet.held(net)
    assert drawn is not None
    return torch.cat([flat.flatten() for flat in drawn.flats])


def batches(count: int) -> list[torch.Tensor]:
    return list(torch.randn(count, 5, 3))


def test_every_iteration_brings_new_noise_to_each_network() -> None:
    net = network()
    target = copy.deepcopy(net)
    engine = engine_of(net)
    NoiseHandler(net, target, target_every=2).attach(engine)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    @engine.on(Events.ITERATION_STARTED)
    def _() -> None:
        seen.append((noise_of(net), noise_of(target)))

    engine.run(batches(4))
    draws = torch.stack([one for pair in seen for one in pair])
    assert len(draws) == len(draws.unique(dim=0)) == 8


def test_the_target_follows_every_so_many_iterations_and_keeps_its_noise() -> None:
    net = network()
    target = copy.deepcopy(net)
    engine = engine_of(net)
    NoiseHandler(net, target, target_every=3, redraw=False).attach(engine)
    noisynet.hold(target)
    noise = noise_of(target)
    same: list[bool] = []

    @engine.on(Events.ITERATION_COMPLETED)
    def _() -> None:
        theirs = target.state_dict()
        same.append(all(torch.equal(one, theirs[key]) for key, one in net.state_dict().items()))

    engine.run(batches(6))
    assert same == [False, False, True, False, False, True]
    assert torch.equal(noise_of(target), noise)


def test_a_target_that_was_restored_stays_until_it_is_due() -> None:
    net, target = network(), network()
    restored = copy.deepcopy(target.state_dict())
    engine = engine_of(net)
    handler = NoiseHandler(net, target, target_every=3)
    handler.attach(engine)
    engine.run(batches(2))
    assert all(torch.equal(one, restored[key]) for key, one in target.state_dict().items())
    handler.copy_to_target()
    assert torch.equal(target.state_dict()["0.weight"], net.state_dict()["0.weight"])


def test_signal_to_noise_ratios_stand_in_the_metrics_when_they_are_due() -> None:
    net = network()
    engine = engine_of(net)
    NoiseHandler(net, snr_every=2).attach(engine)
    seen: list[tuple[int, dict[str, Any], list[float]]] = []

    # Attached later, so called later, as loggers are.
    @engine.on(Events.ITERATION_COMPLETED)
    def _() -> None:
        metrics = dict(engine.state.metrics)
        seen.append((engine.state.iteration, metrics, list(noisynet.snr(net).values())))

    engine.run(batches(4))
    assert [sorted(metrics) for _, metrics, _ in seen] == [[]] + 3 * [["snr_1", "snr_2"]]
    for iteration, metrics, ratios in seen:
        if iteration % 2 == 0:
            assert [metrics["snr_1"], metrics["snr_2"]] == ratios


def test_rows_that_are_held_are_kept_and_fresh_noise_may_stay_fresh() -> None:
    net = network()
    noisynet.hold(net, rows=5)
    engine = engine_of(net)
    NoiseHandler(net).attach(engine)
    before = noise_of(net)
    engine.run(batches(1))
    assert noise_of(net).shape == before.shape
    assert not torch.equal(noise_of(net), before)
    fresh = network()
    engine = engine_of(fresh)
    NoiseHandler(fresh, redraw=False).attach(engine)
    engine.run(batches(2))
    assert noisynet.held(fresh) is None


def test_removed_it_does_nothing_more() -> None:
    net = network()
    engine = engine_of(net)
    NoiseHandler(net, snr_every=1).attach(engine).remove()
    noise = noise_of(net)
    engine.run(batches(2))
    assert torch.equal(noise_of(net), noise)
    assert engine.state.metrics == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": nn.Linear(2, 2)}, "network: finds no noisy layer in Linear; noisynet.noisify"),
        ({"network": "net"}, "network: finds no noisy layer in str"),
        ({"target": nn.Linear(2, 2), "target_every": 1}, "target: finds no noisy layer in Linear"),
        (
            {"target": noisynet.noisify(nn.Sequential(nn.Linear(3, 8))), "target_every": 1},
            "target: got another network, which differs in '2.bias'; expected a copy of the first",
        ),
        ({"target_every": 5}, "got no target with target_every, expected both or none"),
        ({"snr_every": 0}, "snr_every: got 0, expected a whole number of iterations, at least 1"),
        ({"target_every": True}, "target_every: got True, expected a whole number"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^NoiseHandler: {message}"):
        NoiseHandler(**{"network": network(), **options})


def test_a_target_needs_its_period() -> None:
    net = network()
    with pytest.raises(ValueError, match="got a target without target_every"):
        NoiseHandler(net, copy.deepcopy(net))


def test_what_is_no_engine() -> None:
    with pytest.raises(TypeError, match=r"^NoiseHandler: got function, expected ignite's Engine"):
        NoiseHandler(network()).attach(batches)


def test_the_page_runs(run_page: Callable[[str], dict[str, Any]]) -> None:
    names = run_page("ignite.md")
    assert names["trainer"].state.iteration == 200
    failed = [one.name for one in names["before"] if one.status == "fail"]
    assert failed == ["redraw between updates"]
    assert names["after"]["sigma moves"].status == "pass"


def test_the_book_s_flow_runs_on_pong(run_example: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="needs noisynet[atari]")
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs noisynet[train]"
    )
    options = ["--steps", "500", "--warmup-steps", "100", "--batch-size", "2"]
    done = run_example("ignite_pong.py", *options)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ") for line in done.stdout.splitlines())
    assert said["iterations"] == "100"
    assert float(said["loss"]) >= 0
    assert 0 < float(said["snr_1"]) < 10
    (folder,) = (tmp_path / "runs").iterdir()
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    assert {"train/snr_1", "train/snr_2", "train/loss"} <= set(events.Tags()["scalars"])
    (point,) = events.Scalars("train/snr_2")
    assert point.step == 100
    assert point.value == pytest.approx(float(said["snr_2"]), abs=1e-3)


def test_an_example_of_nothing_but_warm_up_is_refused(
    run_example: Callable[..., Any], tmp_path: Path
) -> None:
    pytest.importorskip("ale_py", reason="needs noisynet[atari]")
    done = run_example("ignite_pong.py", "--steps", "500")
    assert done.returncode == 2
    assert done.stderr.endswith("--steps: got 500, which leaves nothing after the warm-up\n")
    assert not any(tmp_path.iterdir())


def test_a_schedule_over_iterations_sets_both_networks() -> None:
    net = network()
    target = copy.deepcopy(net)
    engine = engine_of(net)
    NoiseControl(net, target, schedule=Linear(1.0, 0.2, until=4)).attach(engine)
    seen: list[float] = []

    @engine.on(Events.ITERATION_COMPLETED)
    def _() -> None:
        assert scale(net) == scale(target) == engine.state.metrics["noise_scale"]
        seen.append(scale(net))

    engine.run(batches(5))
    assert seen == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.2])


def test_a_target_is_held_on_the_batches_and_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = network()
    scale(net, 5.0)
    engine = Engine(lambda _, batch: None)
    options = {"effective_epsilon": 0.1, "every": 2, "observations": 64, "draws": 32}
    control = NoiseControl(net, seen=lambda engine: engine.state.batch["seen"], **options)
    handle = control.attach(engine)
    observations = torch.randn(64, 3)
    data = [{"seen": part} for part in observations.split(8)]
    engine.run(data, max_epochs=40)
    found = noisynet.behaviour(net, observations, draws=64).effective_epsilon
    assert found == pytest.approx(0.1, rel=0.5)
    assert engine.state.metrics["noise_scale"] == scale(net) < 5
    assert "noise_measured" in engine.state.metrics
    keep = Checkpoint({"control": control}, DiskSaver(str(tmp_path)))
    keep(engine)
    other = network()
    loaded = NoiseControl(other, effective_epsilon=0.1)
    Checkpoint.load_objects({"control": loaded}, torch.load(str(keep.last_checkpoint)))
    assert scale(other) == scale(net)
    now = scale(net)
    handle.remove()
    engine.run(data, max_epochs=80)
    assert scale(net) == now
    with pytest.raises(TypeError, match="NoiseControl: got int, expected ignite's Engine"):
        control.attach(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="has no noisy layer"):
        NoiseControl(nn.Linear(2, 2), effective_epsilon=0.1)


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (3, "int, expected observations"),
        (None, "NoneType, expected observations"),
        ((), r"\(\), expected observations"),
        ((torch.tensor(1.0), 2), r"a tensor of torch.float32 of shape \(\), expected obs"),
        (["a", "b"], "str, expected observations"),
        (
            {"seen": torch.randn(8, 3), "action": torch.ones(8)},
            "a dict of seen, action, on which the m",
        ),
        (
            [torch.ones(8, 3, dtype=torch.uint8)],
            r"a tensor of torch.uint8 of shape \(8, 3\), on which",
        ),
        ([torch.randn(8, 4)], r"a tensor of torch.float32 of shape \(8, 4\), on which the m"),
    ],
)
def test_batches_without_observations_are_told_what_to_pass(batch: Any, got: str) -> None:
    engine = Engine(lambda *_: None)
    engine.logger.setLevel("CRITICAL")  # it logs the error, too
    NoiseControl(network(), effective_epsilon=0.1, every=1).attach(engine)
    with pytest.raises(TypeError, match=f"^NoiseControl: got {got}.*; pass seen=, a function"):
        engine.run([batch], max_epochs=1)


def test_what_is_seen_has_as_many_rows_in_each_part() -> None:
    engine = Engine(lambda *_: None)
    engine.logger.setLevel("CRITICAL")
    parts = (torch.randn(8, 3), torch.randn(1, 8))
    NoiseControl(network(), effective_epsilon=0.1, seen=lambda _: parts).attach(engine)
    with pytest.raises(TypeError, match=r"got \(a tensor .*, a tensor .*\), expected observations"):
        engine.run([0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_another_device_than_the_network() -> None:
    net = network().cuda()
    engine = Engine(lambda *_: None)
    NoiseControl(net, effective_epsilon=0.1, every=1).attach(engine)
    engine.run(batches(3))
    assert "noise_measured" in engine.state.metrics
