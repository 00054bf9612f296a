"""The benchmark of training loops: its floor, its ratios and its table."""

import importlib
import json
from typing import Any

import numpy as np
import pytest
from benchmarks.training import contenders, floor, sb3
from benchmarks.training import run as training
from stable_baselines3.common.env_util import make_vec_env
from torch.utils.flop_counter import FlopCounterMode

from noisynet.runs import config

from .one_step import OneStep

# Multiply-adds for one observation, layer by layer: outputs × inputs of each.
NATURE = (32 * 20 * 20 * 4 * 8 * 8, 64 * 9 * 9 * 32 * 4 * 4, 64 * 7 * 7 * 64 * 3 * 3, 512 * 3136)
PATCHES = (32 * 12 * 12 * 4 * 7 * 7, 64 * 3 * 3 * 32 * 4 * 4, 256 * 576)


def passes(*layers: int) -> tuple[int, int]:
    """Of a pass forward, and of one backward: two products a layer, but one of the first."""
    return sum(layers), 2 * sum(layers) - layers[0]


@pytest.mark.parametrize("preset", ["dqn", "noisy-dqn"])
def test_an_update_of_plain_dqn_runs_two_networks_forward_and_one_backward(preset: str) -> None:
    forward, backward = passes(*NATURE, floor.ACTIONS * 512)
    found = floor.update_multiply_adds(config.load(preset, {"device": "cpu"}))
    assert found == 32 * (2 * forward + backward)


@pytest.mark.parametrize("preset", ["pqn-pong", "pqn-pong-epsilon"])
def test_an_update_of_pqn_runs_one_network_forward_and_backward(preset: str) -> None:
    forward, backward = passes(*PATCHES, floor.ACTIONS * 256)
    found = floor.update_multiply_adds(config.load(preset, {"device": "cpu"}))
    # 64 steps of 32 environments, in 32 minibatches.
    assert found == 64 * (forward + backward)


@pytest.mark.parametrize("agent", floor.AGENTS)
def test_the_products_that_are_timed_alone_are_those_of_the_floor(agent: str) -> None:
    preset, fields = floor.AGENTS[agent]
    chosen = config.load(preset, {"device": "cpu", "precision": "float32", **fields})
    update, _ = floor.update_of(chosen)
    update()
    products = floor.products_of(update)
    with FlopCounterMode(display=False) as counted:
        products()
    assert counted.get_total_flops() == 2 * floor.update_multiply_adds(chosen)


@pytest.mark.parametrize("agent", floor.AGENTS)
def test_a_floor_is_the_products_of_an_update_at_the_speed_that_was_measured(agent: str) -> None:
    # Which of these times is the shorter is not tested: other work on the machine can reverse it.
    found = floor.floor("float32", 1, agent, seconds=0.2)
    preset, fields = floor.AGENTS[agent]
    chosen = config.load(preset, {"device": "cpu", "precision": "float32", "threads": 1, **fields})
    gmacs = floor.update_multiply_adds(chosen) / 1e9
    assert found["floor_ms"] == pytest.approx(1e3 * gmacs / found["gmacs_per_second"])
    assert found["share"] == pytest.approx(found["floor_ms"] / found["update_ms"])
    assert min(found["products_ms"], found["update_ms"], found["gmacs_per_second"]) > 0


def two_games() -> Any:
    return make_vec_env(OneStep, 2, seed=0, env_kwargs={"score": 20.0})


def test_ppo_is_counted_by_whole_iterations() -> None:
    contender = sb3.StablePPO(1, games=two_games)
    contender.train_until(lambda: contender.steps >= 1)
    # 128 steps of both are one minibatch of 256, learned in 4 epochs.
    assert (contender.steps, contender.updates, contender.batch) == (256, 4, 256)
    contender.train_until(lambda: True)
    assert contender.updates == 4
    forward, backward = passes(*NATURE, 6 * 512, 512)  # policy and value
    assert contender.multiply_adds() == 256 * (forward + backward)


def test_ppo_has_the_schedules_of_its_zoo() -> None:
    model = sb3.ppo(two_games())
    for schedule, first in ((model.lr_schedule, 2.5e-4), (model.clip_range, 0.1)):
        assert [schedule(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([first, first / 2, 0])
    assert (model.ent_coef, model.vf_coef) == (0.01, 0.5)


def results() -> dict[str, Any]:
    def rounds(*steps: float) -> list[dict[str, float]]:
        return [{"steps": one, "updates": one / 4, "samples": 8 * one} for one in steps]

    return {
        "noisynet, 1 environment": {
            "rounds": rounds(200, 400, 300), "peak_mb": 700, "parts": {"learning": 0.75},
            "precision": "bfloat16", "multiply_adds": 10**9,
        },
        "SB3, 1 environment": {
            "rounds": rounds(50, 50, 100), "peak_mb": 900, "multiply_adds": 10**9,
        },
    }  # fmt: skip


def test_ratios_are_taken_round_by_round() -> None:
    assert training.ratios(results(), "noisynet, 1 environment", "SB3, 1 environment") == [4, 8, 3]


def result(**others: Any) -> dict[str, Any]:
    measured = {
        "agent": "PQN", "precision": "float32", "threads": 2, "batch": 32,
        "gmacs_per_second": 100.0, "update_ms": 20.0, "floor_ms": 10.0, "share": 0.5,
    }  # fmt: skip
    half = measured | {"precision": "bfloat16", "gmacs_per_second": 300.0}
    return {"results": results(), "floor": [half, measured], "left_out": {}, **others}


def test_the_table_shows_medians_shares_and_targets() -> None:
    table = training.markdown(result())
    # 75 updates of 10⁹ multiply-adds a second, of 300 × 10⁹.
    row = "| noisynet, 1 environment | bfloat16 | 300 | 75.0 | 2400 | 25% | 700 | 4.00 | 4 |"
    assert row in table
    assert "| SB3, 1 environment | float32 | 50 | 12.5 | 400 | 12% | 900 | 1.00 |  |" in table
    assert "learning 75.0%" in table
    assert "eight environments" not in table
    assert table.rstrip().endswith("take 10.0 ms: 50%.")


def test_the_table_says_who_was_left_out() -> None:
    ours = {"noisynet, 1 environment": results()["noisynet, 1 environment"]}
    table = training.markdown(
        result(results=ours, left_out={"SB3, 1 environment": "needs stable_baselines3"})
    )
    assert "Left out: SB3, 1 environment: needs stable_baselines3." in table
    assert "| 300 | 75.0 | 2400 | 25% | 700 |  | 4 |" in table  # nothing to compare it with


def test_a_library_that_is_not_installed_is_named() -> None:
    entry = contenders.Entry("rollouts", contenders.CONTENDERS["noisynet, pqn-pong"].make)
    assert entry.missing() is None
    lacking = contenders.Entry("rollouts", entry.make, "json", "no_such_library")
    assert lacking.missing() == "needs no_such_library"


def test_every_comparison_has_its_reference_and_its_targets() -> None:
    for work, (reference, targets) in training.COMPARISONS.items():
        for name in (reference, *targets):
            assert contenders.CONTENDERS[name].work == work


@pytest.mark.parametrize(("module", "file"), [("run", "cpu"), ("growth", "growth")])
def test_the_kept_tables_are_those_of_the_figures(module: str, file: str) -> None:
    script: Any = importlib.import_module(f"benchmarks.training.{module}")
    kept = script.FOLDER / f"{file}.json"
    assert kept.with_suffix(".md").read_text() == script.markdown(json.loads(kept.read_text()))


def test_the_page_has_the_figures_of_the_run_that_is_kept() -> None:
    folder = training.FOLDER
    found = json.loads((folder / "cpu.json").read_text())
    assert (folder / "cpu.md").read_text() == training.markdown(found)
    page = (folder.parents[2] / "docs" / "performance.md").read_text()
    text = " ".join(page.split())
    results = found["results"]

    def ratio(name: str, reference: str) -> float:
        pairs = zip(results[name]["rounds"], results[reference]["rounds"], strict=True)
        return float(np.median([one["steps"] / other["steps"] for one, other in pairs]))

    ours = [
        ratio("noisynet, 1 environment", "SB3, 1 environment"),
        ratio("noisynet, 8 environments", "SB3, 8 environments"),
        ratio("noisynet, the book's work", "the book's loop"),
    ]
    assert "the ratios are {:.2f}, {:.2f} and {:.2f} with noise".format(*ours) in text
    others = [
        ratio(f"{one}, 8 environments", "SB3, 8 environments") for one in ("TorchRL", "Tianshou")
    ]
    assert "TorchRL's DQN makes {:.2f} and Tianshou's {:.2f} times".format(*others) in text
