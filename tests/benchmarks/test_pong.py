"""What is kept of Pong's runs, and how the units of their CNNs are counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.pong import keep, sb3_ppo, seeds, units
from benchmarks.training import sb3 as training_sb3
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from noisynet.runs import config

from .one_step import OneStep

FOLDERS = ("", "fast", "actors", "btr-small")


def test_a_dead_cnn_has_no_unit_alive_and_one_value_for_all() -> None:
    agent = units.agent_of(config.load("pong", {"head_hidden": 16}))
    seen = torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8)
    figures = units.units(agent, seen)
    assert 0.2 < figures["alive"] < 0.8
    assert figures["feature_deviation"] > 0
    assert figures["q_deviation"] > 1e-3
    last = [one for one in agent.online.torso.convolutions if isinstance(one, nn.Conv2d)][-1]
    with torch.no_grad():
        last.bias -= 100.0
    dead = units.units(agent, seen)
    assert (dead["alive"], dead["feature_deviation"], dead["q_deviation"]) == (0, 0, 0)


def test_the_page_of_earlier_runs_has_the_shares_that_were_measured() -> None:
    kept = json.loads(units.FILE.read_text())
    page = (units.FILE.parent / "earlier" / "README.md").read_text()
    for epsilon in ("1e-8", "1.5e-4"):
        for seed in (1, 2, 3):
            figures = kept[f"starts/adam-epsilon-{epsilon}-seed{seed}"]
            row = next(one for one in page.splitlines() if one.startswith(f"| {seed} | {epsilon} "))
            assert f"| {figures['updates']:,} " in row
            assert f"| {100 * figures['alive']:.0f} % |" in row
            assert ("dead" in row) == (figures["q_deviation"] < 1e-4)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_summary_is_that_of_the_runs_beside_it(folder: str) -> None:
    path = keep.FOLDER / folder
    kept = json.loads((path / "summary.json").read_text())["runs"]
    assert [keep.summarise(run) for run in keep.read_kept(path)] == kept


def test_the_picture_can_be_drawn_again(tmp_path: Path) -> None:
    keep.plot(keep.read_kept(keep.FOLDER / "fast"), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluations_name_runs_that_are_kept() -> None:
    for folder in FOLDERS:
        path = keep.FOLDER / folder
        for line in (path / "evaluations.jsonl").read_text().splitlines():
            one = json.loads(line)
            assert (path / f"{one['run']}.yaml").exists()
            assert one["mean"] == pytest.approx(sum(one["returns"]) / one["episodes"])


def test_the_dead_network_s_losses_are_those_of_its_run() -> None:
    earlier = keep.FOLDER / "earlier"
    lines = [json.loads(line) for line in (earlier / "runs.jsonl").read_text().splitlines()]
    (dead,) = [line for line in lines if line["run"].startswith("dead-network/")]
    records = [
        json.loads(line) for line in (earlier / f"{dead['run']}.jsonl").read_text().splitlines()
    ]
    games = [[one["step"], one["game/return"]] for one in records if "game/return" in one]
    assert dead["games"] == games
    assert json.loads(units.FILE.read_text())["dead-network"]["alive"] == 0


def test_the_page_of_the_revived_network_has_what_its_runs_lost() -> None:
    earlier = keep.FOLDER / "earlier"
    runs = [json.loads(line) for line in (earlier / "runs.jsonl").read_text().splitlines()]
    page = (earlier / "README.md").read_text()
    for run in runs:
        folder, _, name = run["run"].partition("/")
        if folder != "revived":
            continue
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        *_, stopped, _, loss, _ = (cell.strip() for cell in row.split("|"))
        assert float(loss) == pytest.approx(run["losses"][-1][2], abs=0.001)
        assert 0 <= int(stopped.replace(",", "")) - run["losses"][-1][0] < 2500
    (cured,) = [run for run in runs if run["run"].endswith("1000-adam-epsilon")]
    assert max(share for step, share in cured["dormant"] if step >= 44_000) <= 0.12
    assert next(step for step, score in cured["games"] if score > 0) == 175_210
    last = [score for step, score in cured["games"] if step >= 175_210]
    assert (len(last), sum(score > 0 for score in last)) == (12, 7)
    assert sum(last) / len(last) == pytest.approx(4.2, abs=0.05)
    (left,) = [run for run in runs if run["run"] == "revived/adam-epsilon"]
    assert all(share == 1 for step, share in left["dormant"] if step > 30_628)


def run_of(seed: int, minutes: float, *, solved: bool = True, games: int = 30) -> dict[str, Any]:
    return {
        "seed": seed,
        "solved": solved,
        "steps": 1000 * seed,
        "minutes": minutes,
        "games": [[10 * one, one, one - 21.0] for one in range(games)],
        "evaluations": {"sampled": {"mean": 20.0 + seed}},
    }


def test_a_seed_that_was_stopped_is_later_than_all_that_were_solved() -> None:
    runs = [run_of(1, 9.0, solved=False), run_of(2, 5.0), run_of(3, 3.0)]
    summary = seeds.summarise(runs)
    assert (summary["solved"], summary["median_minutes"]) == (2, 5.0)
    assert summary["worst_minutes"] is None
    assert summary["minutes"] == {1: 9.0, 2: 5.0, 3: 3.0}
    assert summary["sampled"]["means"] == [21.0, 22.0, 23.0]
    assert seeds.summarise(runs[:2])["median_minutes"] is None


def test_runs_of_others_are_summarised_and_drawn_beside_ours(tmp_path: Path) -> None:
    seeds.add("pqn-pong", run_of(1, 3.0), tmp_path)
    seeds.add("sb3-ppo", run_of(1, 60.0, solved=False), tmp_path)
    seeds.add("sb3-ppo", run_of(2, 60.0, solved=False, games=0), tmp_path)
    assert [run["seed"] for run in seeds.read("sb3-ppo", tmp_path)] == [1, 2]
    seeds.write_summary(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {name: one["solved"] for name, one in summary.items()} == {"pqn-pong": 1, "sb3-ppo": 0}
    for name in ("curves.png", "steps.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_runs_beside_each_other_are_compared_by_steps_alone() -> None:
    beside = [run_of(seed, 9.0) | {"at_once": 2} for seed in (1, 2)]
    summary = seeds.summarise(beside)
    assert (summary["minutes"], summary["median_minutes"]) == ({1: None, 2: None}, None)
    assert summary["steps"] == {1: 1000, 2: 2000}
    beside.append(run_of(3, 9.0, solved=False))
    others = [run_of(1, 5.0), run_of(2, 5.0) | {"steps": 900}, run_of(3, 5.0)]
    # Differences 0 and 1100; Student's t of one degree of freedom is 12.706.
    found = seeds.difference(beside, others)
    assert (found["seeds"], found["solved by both"], found["mean"]) == (3, 2, 550)
    assert found["later"] == 2  # and that which was not solved at all
    assert found["interval"] == pytest.approx((550 - 12.7062 * 550, 550 + 12.7062 * 550), rel=1e-5)


def clock_of(score: float, minutes: float) -> Any:
    model = training_sb3.ppo(make_vec_env(OneStep, 4, seed=0, env_kwargs={"score": score}))
    clock = sb3_ppo.Clock(minutes)
    model.learn(400, callback=clock)
    return clock


def test_the_clock_stops_when_a_hundred_games_return_18() -> None:
    clock = clock_of(18.0, minutes=60)
    assert clock.solved
    assert [step for step, _, _ in clock.games] == [4 * (one // 4 + 1) for one in range(100)]
    assert {score for _, _, score in clock.games} == {18.0}


def test_the_clock_stops_a_seed_that_is_late() -> None:
    late = clock_of(18.0, minutes=0)
    assert (late.solved, len(late.games)) == (False, 4)


def test_the_clock_goes_on_while_games_return_less() -> None:
    worse = clock_of(17.9, minutes=60)
    assert (worse.solved, len(worse.games)) == (False, 512)  # one whole rollout


def test_the_seeds_by_the_clock_are_summarised_as_the_pages_say() -> None:
    runs = seeds.read("pqn-pong")
    summary = json.loads((seeds.FOLDER / "summary.json").read_text())["pqn-pong"]
    assert json.loads(json.dumps(seeds.summarise(runs))) == summary
    root = Path(__file__).parents[2]
    readme = " ".join((root / "README.md").read_text().split())
    page = " ".join((root / "docs" / "performance.md").read_text().split())
    fastest, median, worst = (
        min(summary["minutes"].values()),
        summary["median_minutes"],
        summary["worst_minutes"],
    )
    assert f"in {fastest:.1f} to {worst:.1f} minutes; the median is {median:.1f} minutes" in readme
    assert f"The median is {median:.2f} minutes" in page
    for run in runs:
        assert f"| {run['seed']} | {run['steps']:,} | {run['minutes']:.2f} | " in page


def test_the_twins_are_compared_as_the_pages_say() -> None:
    noise, epsilon = (seeds.read(name) for name in seeds.TWINS)
    summary = json.loads((seeds.FOLDER / "summary.json").read_text())
    found = summary["steps, ε-greedy less noise"]
    assert json.loads(json.dumps(seeds.difference(epsilon, noise))) == found
    assert json.loads(json.dumps(seeds.summarise(epsilon))) == summary["pqn-pong-epsilon"]
    thousands = [f"{round(one, -3):,.0f}".replace("-", "−") for one in found["interval"]]
    assert (found["seeds"], found["later"], found["solved by both"]) == (10, 9, 9)
    root = Path(__file__).parents[2]
    medians = [round(summary[name]["median_steps"], -3) for name in seeds.TWINS]
    for page in ("README.md", "docs/performance.md", "docs/does-it-pay.md"):
        text = " ".join((root / page).read_text().split())
        assert f"{round(found['mean'], -3):,} steps more" in text
        assert f"{thousands[0]} to {thousands[1]}" in text
    apart = np.subtract(*([one["steps"] for one in runs] for runs in (epsilon, noise)))
    text = " ".join((root / "docs" / "does-it-pay.md").read_text().split())
    assert f"by {round(float(np.median(apart)), -3):,.0f} steps in the median" in text
    ends = [summary[name]["noise_off"]["mean"] for name in seeds.TWINS]
    assert "return {1:.1f} (19.8 to 20.0), those with noise {0:.1f}".format(*ends) in text
    text = " ".join((root / "README.md").read_text().split())
    assert "then returned {1:.1f}, those with noise {0:.1f}.".format(*ends) in text
    text = " ".join((root / "docs" / "performance.md").read_text().split())
    assert f"medians are {medians[0]:,} and {medians[1]:,} steps" in text
    for name in seeds.TWINS:
        played = summary[name]["noise_off"]
        low, high = played["interval"]
        assert f"{played['mean']:.1f} in new games ({low:.1f} to {high:.1f})" in text or (
            f"noise {played['mean']:.1f} ({low:.1f} to {high:.1f})" in text
        )
    for one, other in zip(noise, epsilon, strict=True):
        took = f"{other['steps']:,}" if other["solved"] else f"not solved at {other['steps']:,}"
        assert f"| {one['seed']} | {one['steps']:,} | {took} | " in text


def test_what_the_page_says_of_ppo() -> None:
    text = " ".join((seeds.FOLDER.parents[3] / "docs" / "performance.md").read_text().split())
    (run,) = seeds.read("sb3-ppo", seeds.FOLDER)
    played = f"{run['minutes']:.0f} minutes and {round(run['steps'], -3):,}"
    assert f"stopped after {played} steps" in text
    assert run["seed"] == 120
    assert not run["solved"]
    assert f"20 new games −{-run['evaluations']['sampled']['mean']:.1f}" in text
