"""The benchmark of the layers: what it measures is what it says, and it catches what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from benchmarks.layers import contenders, peers, report, timing
from torch import nn
from torch.nn import functional

import noisynet

ROOT = Path(__file__).resolve().parents[2]
RUN = (sys.executable, "-m", "benchmarks.layers.run")
CPU = torch.device("cpu")
INPUTS, OUTPUTS = 6, 5


PEERS = sorted(peers.REIMPLEMENTED)
CONTENDERS = {contender.name: contender for contender in contenders.contenders()[0]}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1706_10295)


def peer(name: str) -> nn.Module:
    return peers.REIMPLEMENTED[name][1](INPUTS, OUTPUTS)


def upright(matrix: torch.Tensor) -> torch.Tensor:
    """A weight as (outputs, inputs), whichever way it is stored."""
    return matrix if matrix.shape == (OUTPUTS, INPUTS) else matrix.T


def test_the_benchmark_has_the_contenders_it_must_have() -> None:
    assert next(iter(CONTENDERS)) == "linear"
    assert {"book-factorised", "book-independent", "kaixhin", "cleanrl"} <= CONTENDERS.keys()
    assert set(peers.INSTALLED) == {"torchrl", "tianshou", "pfrl"}
    for noise in ("factorised", "independent"):
        for state in ("", "-resample", "-rows", "-rows-resample", "-rows-held"):
            assert f"noisynet-{noise}{state}" in CONTENDERS


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_computes_the_equation_with_its_noise(name: str) -> None:
    layer = peer(name)
    input = torch.randn(3, INPUTS)
    layer.redraw()
    output = layer(input)
    weight_noise, bias_noise = (noise.clone() for noise in layer.noise())
    weight = upright(layer.weight) + upright(layer.weight_sigma) * upright(weight_noise)
    expected = functional.linear(input, weight, layer.bias + layer.bias_sigma * bias_noise)
    torch.testing.assert_close(output, expected)
    gradient = torch.randn_like(output)
    output.backward(gradient)
    torch.testing.assert_close(upright(layer.weight.grad), gradient.T @ input)
    torch.testing.assert_close(layer.weight_sigma.grad, layer.weight.grad * weight_noise)
    torch.testing.assert_close(layer.bias_sigma.grad, gradient.sum(0) * bias_noise)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_draws_the_kind_of_noise_that_it_says(name: str) -> None:
    layer = peer(name)
    draws = []
    for _ in range(2000):
        layer.redraw()
        with torch.no_grad():
            layer(torch.zeros(1, INPUTS))
        draws.append(tuple(noise.clone() for noise in layer.noise()))
    weight_noise = torch.stack([weight for weight, _ in draws])
    independent = name in ("cleanrl", "book-independent")
    ranks = torch.linalg.matrix_rank(weight_noise[:50])
    assert set(ranks.tolist()) == {min(INPUTS, OUTPUTS) if independent else 1}
    assert len({tuple(bias.tolist()) for _, bias in draws}) == len(draws)
    # dqn_zoo cuts its normals off at ±2: E|ε| = √(2/π) (1 − e⁻²) / erf(√2).
    cut = (1 - torch.exp(torch.tensor(-2.0))) / torch.erf(torch.tensor(2.0).sqrt())
    mean_square = 2 / torch.pi * (cut.item() ** 2 if name == "dqn-zoo" else 1)
    expected = 1.0 if independent else mean_square
    # 2000 draws of 11 values at least; a square's variance is below 2.
    bound = 5 * (2 / (2000 * (INPUTS + OUTPUTS) / 2)) ** 0.5
    assert abs(weight_noise.square().mean().item() - expected) < bound


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_draws_and_learns_as_it_says(name: str) -> None:
    assert contenders.fault_of(CONTENDERS[name], CPU) is None


def test_a_contender_that_does_not_redraw_is_caught() -> None:
    still = replace(CONTENDERS["kaixhin"], redraw=contenders.no_redraw)
    assert contenders.fault_of(still, CPU) == ("its noise did not change from forward to forward")
    plain = replace(CONTENDERS["linear"], sharing="shared")
    assert "did not change" in (contenders.fault_of(plain, CPU) or "")


def test_a_contender_with_the_wrong_rows_is_caught() -> None:
    shared = replace(CONTENDERS["noisynet-factorised"], sharing="per row")
    assert contenders.fault_of(shared, CPU) == "its noise is not per row"
    rows = replace(CONTENDERS["noisynet-factorised-rows"], sharing="shared")
    assert contenders.fault_of(rows, CPU) == "its noise is not shared"


def test_a_contender_whose_sigma_does_not_learn_is_caught() -> None:
    class Stuck(noisynet.NoisyLinear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                noise = super().forward(input) - functional.linear(input, self.weight, self.bias)
            return functional.linear(input, self.weight, self.bias) + noise

    stuck = replace(CONTENDERS["noisynet-factorised"], make=Stuck)
    assert contenders.fault_of(stuck, CPU) == "weight_sigma got no gradient"


def test_only_picks_names_and_refuses_unknown_ones() -> None:
    picked, _ = contenders.contenders(["noisynet-i*-held", "kaixhin"])
    assert [contender.name for contender in picked] == [
        "linear",
        "noisynet-independent-rows-held",
        "kaixhin",
    ]
    with pytest.raises(ValueError, match="got 'nobody', expected one of linear,"):
        contenders.contenders(["nobody"])


def test_every_call_redraws_and_starts_without_gradients() -> None:
    layer = nn.Linear(3, 2)
    redraws = []
    cell = timing.Cell(3, 2, 4, backward=True)
    call = timing.make_call(layer, partial(redraws.append, None), cell, CPU, torch.float32)
    call()
    once = layer.weight.grad.clone()
    call()
    assert len(redraws) == 2
    assert torch.equal(layer.weight.grad, once)


def test_calls_take_turns_and_every_round_has_them_all() -> None:
    order: list[str] = []
    settings = timing.Timing(rounds=12, seconds=60.0, slice_seconds=1e-9, seed=3)
    calls = {name: partial(order.append, name) for name in "abc"}
    seconds = timing.alternate(calls, settings, CPU, gradients=False)
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abc", 12)
    # Each turn is two calls: the first is not timed.
    turns = order[-72::2]
    assert turns == order[-71::2]
    rounds = [tuple(turns[start : start + 3]) for start in range(0, 36, 3)]
    assert {frozenset(names) for names in rounds} == {frozenset("abc")}
    assert len(set(rounds)) > 1


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    spread = timing.Spread.of([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (spread.low, spread.median, spread.high) == (2.0, 3.0, 4.0)


def test_the_peak_is_what_stands_at_once() -> None:
    def call() -> None:
        first = torch.empty(1000)
        second = torch.empty(3000)
        del first, second
        torch.empty(2000)

    timing.start_profiler()
    assert timing.peak_bytes(call, CPU, gradients=False) == 4 * 4000


def test_what_rests_counts_a_held_draw() -> None:
    layer = noisynet.NoisyLinear(3, 2)
    assert timing.rest_bytes(layer) == 4 * 2 * (6 + 2)
    noisynet.hold(layer, rows=7)
    assert timing.rest_bytes(layer) == 4 * (2 * (6 + 2) + 7 * 5)
    assert timing.rest_bytes(peers.Kaixhin(3, 2)) == 4 * 3 * (6 + 2)


def row(name: str, batch: int, ratio: float, *, mode: str, is_peer: bool = False) -> dict:
    return {
        "name": name,
        "inputs": 3136,
        "outputs": 512,
        "mode": mode,
        "batch": batch,
        "ratio": {"median": ratio},
        "is_peer": is_peer,
    }


def test_targets_are_judged_by_the_rows() -> None:
    both = "forward+backward"
    rows = [
        row("noisynet-factorised", 32, 1.5, mode=both),
        row("noisynet-factorised", 256, 1.2, mode=both),
        row("kaixhin", 32, 3.0, mode=both, is_peer=True),
        row("tianshou", 32, 2.0, mode=both, is_peer=True),
        row("tianshou", 256, 1.0, mode=both, is_peer=True),
        row("noisynet-factorised", 1, 9.0, mode=both),
    ]
    redraws = [{"rows": 8, "seconds": {"median": 1.0}}, {"rows": None, "seconds": {"median": 5e-5}}]
    judged = {
        entry["target"]: (entry["measured"], entry["met"])
        for entry in report.targets(rows, redraws)
    }
    assert judged["factorised, shared draw, forward+backward, batch 32"] == (1.5, True)
    assert judged["factorised, shared draw, forward+backward, batch 256"] == (1.2, False)
    assert judged["factorised, fresh draw, forward alone, batch 1"] == (None, None)
    assert judged[report.NO_PEER_FASTER.format(32)] == (0.75, True)
    assert judged[report.NO_PEER_FASTER.format(256)] == (1.2, False)
    assert judged[report.NO_PEER_FASTER.format(2048)] == (None, None)
    assert judged[report.REDRAW_TARGET] == (pytest.approx(50.0), True)


def test_tables_are_aligned_and_say_what_is_missing() -> None:
    table = report.Table("T", ["a", "b"], [["long name", "1"], ["x", "22"]], "* note")
    assert report.plain_text(table) == "T\na           b\nlong name   1\nx          22\n* note\n"
    assert report.markdown(table) == (
        "**T**\n\n| a | b |\n| --- | --: |\n| long name | 1 |\n| x | 22 |\n\n\\* note\n"
    )


def test_the_script_writes_what_it_measured(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(*RUN, "--quick", "--threads", "1", "--commit", "1a2b3c4"),
            *("--machine", "a test", "--out", str(tmp_path / "out" / "cpu.json")),
            *("--markdown", str(tmp_path / "tables.md")),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "cpu.json").read_text())
    assert (result["commit"], result["machine"], result["threads"]) == ("1a2b3c4", "a test", 1)
    assert (result["device"], result["dtype"]) == ("cpu", "float32")
    cells = {
        ("forward", 1),
        ("forward", 8),
        ("forward", 32),
        ("forward+backward", 32),
        ("forward+backward", 256),
        ("forward+backward", 2048),
    }
    for name in CONTENDERS:
        own = [entry for entry in result["rows"] if entry["name"] == name]
        assert {(entry["mode"], entry["batch"]) for entry in own} == cells
        for entry in own:
            assert 0 < entry["seconds"]["low"] <= entry["seconds"]["median"]
            assert 0 < entry["ratio"]["low"] <= entry["ratio"]["median"] <= entry["ratio"]["high"]
            assert entry["peak_bytes"] > 0
            assert entry["rounds"] == 2
            if name == "linear":
                assert set(entry["ratio"].values()) == {1.0}
    # Everybody present was measured; only packages that are not installed were left out.
    assert {entry["name"] for entry in result["skipped"]} <= set(peers.INSTALLED)
    assert {entry["rows"] for entry in result["redraws"]} == {None, 8}
    assert len(result["targets"]) == 11
    assert "Kaixhin/Rainbow *" in done.stdout
    assert "* re-implemented from its published description" in done.stdout
    assert (tmp_path / "tables.md").read_text().startswith("**Targets**")


def test_bad_options_end_with_one_line() -> None:
    done = subprocess.run(
        [*RUN, "--quick", "--only", "nobody"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "--only: got 'nobody', expected one of linear" in done.stderr.splitlines()[-1]
