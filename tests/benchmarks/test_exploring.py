"""The comparison of ways to explore: its agents, and the table of its runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

from benchmarks.hosts import exploring as agents
from benchmarks.study import compare
from benchmarks.study import exploring as study

import noisynet
from noisynet.evaluation.scores import interquartile_mean

TD3 = "Pendulum, TD3"
CASES = [
    (next(name for name, task in agents.TASKS.items() if task.algorithm == algorithm), arm)
    for algorithm, arms in agents.ARMS.items()
    for arm in arms
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("task", "arm"), CASES)
def test_every_arm_is_built_with_one_way_to_explore(task: str, arm: str) -> None:
    settings = agents.TASKS[task]
    model, callbacks = agents.build(settings, agents.ARMS[settings.algorithm][arm], seed=0)
    noisy = arm.startswith(("learned", "adaptive"))
    layers = noisynet.noisy_layers(model.policy)
    assert bool(layers) == noisy
    if noisy:  # an actor and its target, or a policy and its value
        assert (len(layers) <= 2) == ("last layer" in arm)
    adapts = arm.startswith("adaptive")
    assert bool(callbacks) == adapts
    if noisy:
        assert not model.use_sde
        assert getattr(model, "action_noise", None) is None
        learned = [one.requires_grad for one in noisynet.sigma_parameters(model.policy)]
        assert set(learned) == {not adapts}


@pytest.mark.parametrize("name", agents.TASKS)
def test_mujoco_has_fewer_arms(name: str) -> None:
    task = agents.TASKS[name]
    is_mujoco = "mujoco" in str(gymnasium.spec(task.environment).entry_point)
    assert task.is_mujoco == is_mujoco
    assert set(study.PART.arms[name]) <= set(agents.ARMS[task.algorithm])
    assert (study.PART.arms[name] == tuple(agents.ARMS[task.algorithm])) != is_mujoco


def line(arm: str, seed: int, final: float) -> dict[str, Any]:
    figures = {"final": final, "area": final - 50.0, "curve": [final], "wall_seconds": 60.0}
    return {"task": TD3, "arm": arm, "seed": seed, "steps": 20_000, **figures}


def test_the_table_has_the_runs_that_there_are() -> None:
    runs = [line("learned", seed, final) for seed, final in enumerate((-150, -160, -170, -900))]
    rows = [one.split(" | ") for one in study.table([*runs, line("OU", 0, -200)]).splitlines()]
    assert [row[0] for row in rows if row[0].startswith("| ")] == [
        "| explores by", "| OU", "| learned"
    ]  # fmt: skip
    learned = next(row for row in rows if row[0] == "| learned")
    # The middle half of four, and an interval that the bad run widens.
    assert learned[1].startswith("−165 [−")
    assert learned[1].endswith("(n = 4)")
    assert learned[3].startswith("−215 [−")
    assert learned[5] == "1 [1, 1] (n = 4) |"
    assert next(row for row in rows if row[0] == "| OU")[1] == "n = 1"
    assert (learned[2], learned[4]) == ("–", "–")  # no run of the host's own way to explore
    more = study.table([*runs, *(line("Gaussian", seed, -150 - 10 * seed) for seed in range(3))])
    learned = next(row for row in more.splitlines() if row.startswith("| learned |"))
    assert " | 0 [0, 0] (n = 3) | " in learned
    assert "| explores by | final | minus Gaussian | area | minus Gaussian | minutes |" in more


@pytest.mark.slow
@pytest.mark.parametrize(("task", "arm"), CASES)
def test_every_arm_runs(task: str, arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(agents.TASKS, task, replace(agents.TASKS[task], steps=1300))
    found = study.run(task, arm, seed=0)
    assert math.isfinite(found["final"])
    assert len(found["curve"]) == 50


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["learned", "adaptive"])
def test_pendulum_is_learned_by_noise_alone(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(agents.TASKS, TD3, replace(agents.TASKS[TD3], steps=8000))
    # A random player gets about -1200, and one that swings up and holds about -150.
    assert study.run(TD3, arm, seed=0)["final"] > -400


def test_what_the_page_says_of_the_runs() -> None:
    records = study.PART.records()
    text = " ".join((Path(__file__).parents[2] / "docs" / "sb3.md").read_text().split())
    pendulum, memory = "Pendulum, PPO", "CartPole without velocities, RecurrentPPO"

    def values(task: str, arm: str, figure: str) -> list[float]:
        return [one[figure] for one in records if (one["task"], one["arm"]) == (task, arm)]

    def iqm(task: str, arm: str, figure: str) -> str:
        return compare.signed(interquartile_mean(values(task, arm, figure)), plus=False)

    def more(task: str, arm: str, other: str, figure: str) -> Any:
        return compare.paired(records, task, arm, other, figure)

    def is_told(task: str, arm: str, other: str, figure: str) -> bool:
        return more(task, arm, other, figure).sign != 0

    def by(task: str, arm: str, other: str, figure: str) -> str:
        found = more(task, arm, other, figure)
        low, high = sorted(abs(end) for end in found.interval)
        return f"{abs(found.difference):.0f} ({low:.0f} to {high:.0f})"

    played = {one["task"] for one in records}
    assert {
        len(values(task, arm, "final")) for task in played for arm in study.PART.arms[task]
    } == {5}
    assert not {task for task in played if agents.TASKS[task].is_mujoco or "Mountain" in task}
    every, last = "learned, all layers", "learned, last layer"
    for task, arm, figure in (
        *((pendulum, arm, "final") for arm in study.PART.arms[pendulum]),
        *((pendulum, arm, "area") for arm in (last, "adaptive, last layer", "Gaussian")),
        *((memory, arm, "area") for arm in ("neither", "entropy bonus", every, last)),
        (memory, f"{every}, per environment", "area"),
        *((TD3, arm, "area") for arm in ("learned", "learned, critics too")),
    ):
        assert iqm(task, arm, figure) in text
    assert is_told(pendulum, every, "Gaussian", "final")
    for arm in (last, "adaptive, last layer"):
        assert is_told(pendulum, arm, "Gaussian", "area")
        assert not is_told(pendulum, arm, "Gaussian", "final")
    for arm in ("neither", "entropy bonus"):
        assert is_told(memory, every, arm, "area")
        assert not is_told(memory, last, arm, "area")
    assert is_told(TD3, "learned", "learned, critics too", "area")
    on_policy = [task for task in study.PART.arms if every in study.PART.arms[task]]
    smaller: dict[str, set[str]] = {every: set(), last: set()}
    below_bonus: set[str] = set()
    for task in on_policy:
        host = study.PART.arms[task][0]
        areas = {arm: interquartile_mean(values(task, arm, "area")) for arm in (host, every, last)}
        assert areas[every] < areas[last]
        assert not is_told(task, last, host, "final")
        bonus = "Gaussian" if task == pendulum else "entropy bonus"
        if more(task, every, bonus, "area").sign < 0:
            below_bonus.add(task)
        for arm, behind in smaller.items():
            finals = [interquartile_mean(values(task, one, "final")) for one in (arm, host)]
            assert not is_told(task, arm, host, "final") or finals[0] < finals[1]
            if is_told(task, arm, host, "area"):
                assert areas[arm] < areas[host]
                behind.add(task)
    assert len(below_bonus) == 5
    cartpole, acrobot = ("CartPole, PPO", "CartPole, A2C"), ("Acrobot, PPO", "Acrobot, A2C")
    assert smaller == {
        every: {pendulum, memory, cartpole[1], acrobot[0]},
        last: {pendulum, acrobot[0]},
    }
    apart = {task for task in on_policy if is_told(task, every, last, "area")}
    assert apart == {pendulum, memory, cartpole[1]}
    lasts, plain = ([iqm(task, arm, "area") for task in cartpole] for arm in (last, "neither"))
    assert f"(area {lasts[0]} and {plain[0]} with PPO, {lasts[1]} and {plain[1]} with A2C)" in text
    assert "the area is {} and {},".format(*(iqm(task, every, "area") for task in cartpole)) in text
    arms = study.PART.arms[cartpole[1]]
    assert all(is_told(cartpole[1], every, arm, "area") for arm in arms if arm != every)
    areas = [iqm(acrobot[0], arm, "area") for arm in (last, every, "neither")]
    words = "(area {} in the output layers, {} in all layers, {} without)"
    assert words.format(*areas) in text
    lost = by(cartpole[0], every, "entropy bonus", "area")
    assert f"below that of the entropy bonus by {lost}" in text
    assert not any(is_told(TD3, arm, "Gaussian", "final") for arm in study.PART.arms[TD3])
    ends = sorted(interquartile_mean(values(TD3, arm, "final")) for arm in study.PART.arms[TD3])
    between = " and ".join(compare.signed(end, plus=False) for end in (ends[0], ends[-1]))
    assert f"even without any noise: between {between}" in text
    assert f"adaptive noise, by {by(TD3, 'adaptive', 'Gaussian', 'area')} compared" in text
    sac, own = "Pendulum, SAC", "squashed Gaussian"
    told = {arm for arm in study.PART.arms[sac] if is_told(sac, arm, own, "final")}
    assert told == {"gSDE"}
    assert f"ends lower by {by(sac, 'gSDE', own, 'final')}" in text
    assert (
        more(sac, "learned", own, "area").sign
        < 0
        < more(sac, "learned, last layer", own, "area").sign
    )
    found = {arm: by(sac, arm, own, "area").replace(" (", ", ").rstrip(")")
             for arm in ("learned", "adaptive", "learned, last layer")}  # fmt: skip
    assert f"(area lower by {found['learned']})" in text
    assert f"(by {found['adaptive']})" in text
    assert f"(area higher by {found['learned, last layer']})" in text
    sooner = by(sac, "learned, last layer", "learned", "area").replace(" (", ", ").rstrip(")")
    assert f"than with noise in all layers (area higher by {sooner})" in text
