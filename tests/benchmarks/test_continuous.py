"""The comparison in continuous control: what is run, resumed and told."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

import noisynet

continuous: Any = importlib.import_module("benchmarks.hosts.continuous")
CASES = [
    (next(name for name, task in continuous.TASKS.items() if task.algorithm == algorithm), arm)
    for algorithm, arms in continuous.ARMS.items()
    for arm in arms
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("task", "arm"), CASES)
def test_every_arm_is_built_with_one_way_to_explore(task: str, arm: str) -> None:
    settings = continuous.TASKS[task]
    model, callbacks = continuous.build(settings, continuous.ARMS[settings.algorithm][arm], seed=0)
    noisy = arm.startswith(("learned", "adaptive"))
    assert bool(noisynet.noisy_layers(model.policy)) == noisy
    assert bool(callbacks) == (arm == "adaptive")
    if noisy:
        assert not model.use_sde
        assert getattr(model, "action_noise", None) is None
        learned = [one.requires_grad for one in noisynet.sigma_parameters(model.policy)]
        assert set(learned) == {arm != "adaptive"}


def line(arm: str, seed: int, final: float) -> dict[str, Any]:
    return {
        "task": "pendulum-td3", "arm": arm, "seed": seed, "steps": 20_000, "final": final,
        "area": None if seed else -900.0, "curve": [None, final], "seconds": 60.0,
    }  # fmt: skip


def test_what_is_missing_is_run_and_the_table_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [line("learned", seed, final) for seed, final in enumerate((-150, -160, -170, -900))]
    file = tmp_path / "continuous.jsonl"
    file.write_text("".join(f"{json.dumps(one)}\n" for one in [*runs, line("OU", 0, -200)]))
    monkeypatch.setattr(continuous, "FILE", file)
    left = list(continuous.missing("pendulum-td3", 2))
    assert len(left) == 2 * len(continuous.ARMS["td3"]) - 3
    assert left[0] == ("pendulum-td3", "no noise", 0)
    rows = [one.split(" | ") for one in continuous.table(continuous.read()).splitlines()]
    learned = next(row for row in rows if row[0] == "| learned")
    # The middle half of four, and an interval that the bad run widens.
    assert learned[1] == "4"
    assert learned[2].startswith("-165 [-")
    assert learned[3].startswith("-900")
    other = next(row for row in rows if row[0] == "| OU")
    assert other[2] == "-200"


def test_a_curve_has_the_games_of_each_part() -> None:
    curve = continuous.Curve()
    curve.games = [(10, 1.0), (20, 3.0), (999, 7.0)]
    points = curve.points(1000)
    assert points[0] == 2.0
    assert points[-1] == 7.0
    assert points[1:-1] == [None] * (continuous.POINTS - 2)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "arm"), CASES)
def test_every_arm_runs(task: str, arm: str) -> None:
    found = continuous.run(task, arm, seed=0, steps=1300)
    assert math.isfinite(found["final"])
    assert found["area"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["learned", "adaptive"])
def test_pendulum_is_learned_by_noise_alone(arm: str) -> None:
    # A random player gets about -1200, and one that swings up and holds about -150.
    assert continuous.run("pendulum-td3", arm, seed=0, steps=8000)["final"] > -400
