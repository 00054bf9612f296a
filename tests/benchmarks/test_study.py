"""The study's tables are those of its runs, and its page finds where to cut them."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.pong import seeds
from benchmarks.study import cartpole, compare, control, evidence, part, target_held
from benchmarks.study import report as study_report
from benchmarks.study import run as study

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "study"


def test_the_table_is_that_of_the_runs() -> None:
    assert (RESULTS / "runs.md").read_text() == study.table(study.read_runs())


def test_the_page_says_by_how_little_a_small_sigma0_is_ahead_in_area() -> None:
    rows = study_report.summary(
        study.read_runs(), list(study.TASKS), list(study.ARMS), study.SHARED
    )
    area = {row["arm"]: row["area_interval"] for row in rows if row["task"] == study_report.SHARED}
    noise = area["noise σ0 0.4"][0]
    schedules = max(high for arm, (_, high) in area.items() if arm.startswith("epsilon"))
    assert noise > schedules
    page = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert f"the lower end of its interval is {noise:.3f}" in page
    assert f"the upper end of the best schedule's interval is {schedules:.3f}" in page
    assert all(area[f"noise{arm}"][0] < schedules for arm in ("", " σ0 0.25"))


def test_the_pages_say_how_sensitive_noise_and_epsilon_are() -> None:
    rows = study_report.summary(
        study.read_runs(), list(study.TASKS), list(study.ARMS), study.SHARED
    )
    pooled = {row["arm"]: row for row in rows if row["task"] == study_report.SHARED}
    of_noise = {arm: pooled[arm]["area"] for arm in control.SIGMAS}
    of_epsilon = [row["area"] for arm, row in pooled.items() if arm.startswith("epsilon")]
    assert len(of_epsilon) == 3
    best = max(of_noise, key=of_noise.__getitem__)
    assert best == "noise σ0 0.4"
    worst = "noise σ0 1"
    assert min(of_noise, key=of_noise.__getitem__) == worst
    assert min(pooled, key=lambda arm: pooled[arm]["final"]) == worst
    readme, page = (
        " ".join((ROOT / name).read_text().split()) for name in ("README.md", "docs/study.md")
    )
    assert f"from {of_noise[best]:.3f} (0.4) down to {of_noise[worst]:.3f} (1)" in readme
    spread = max(of_epsilon), min(of_epsilon)
    assert "three schedules of ε from {:.3f} to {:.3f}".format(*spread) in readme
    assert "three schedules have areas from {1:.3f} to {0:.3f}".format(*spread) in page
    small = [of_noise[f"noise{arm}"] for arm in ("", " σ0 0.1", " σ0 0.25", " σ0 0.4")]
    assert f"areas from {min(small):.3f} to {max(small):.3f}" in page
    assert f"loses: {of_noise['noise σ0 0.75']:.3f} at 0.75, and {of_noise[worst]:.3f} at 1" in page
    assert f"the worst in final return ({pooled[worst]['final']:.3f})" in page
    runs = study.read_runs()
    found = sum(one["final"] > 0.5 for one in runs
                if (one["task"], one["arm"]) == ("DeepSea-8", worst))  # fmt: skip
    assert found == 6
    for text in (readme, page):
        assert f"{len(runs):,} runs" in text


def test_what_the_pages_say_of_single_tasks() -> None:
    runs = study.read_runs()
    for task in study.SHARED:
        for figure in ("final", "area"):
            more = compare.paired(runs, task, "all layers", "last layers", figure)
            assert more.sign <= 0, (task, figure)  # nowhere clearly better
    acrobot = compare.paired(runs, "Acrobot", "noise", "epsilon", "area")
    low, high = (-end for end in acrobot.interval)
    page = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert f"in area is −{-acrobot.difference:.0f} (−{low:.0f} to −{high:.0f})" in page


def test_no_run_counts_twice_and_none_is_missing() -> None:
    counts = Counter((one["task"], one["arm"], one["seed"]) for one in study.read_runs())
    assert set(counts.values()) == {1}
    assert not study.PART.missing()


def test_a_curve_has_the_last_ten_games_at_each_step() -> None:
    curve = study.curve_of([(10, 1.0), (20, 3.0), *[(500, 5.0)] * 10, (999, 15.0)], 1000)
    assert len(curve) == study.POINTS
    assert (curve[0], curve[1], curve[48], curve[49], curve[-1]) == (1.0, 2.0, 2.0, 5.0, 6.0)
    assert study.curve_of([(900, 4.0)], 1000) == [4.0] * study.POINTS
    with pytest.raises(ValueError, match="no training game ended within 1,000 steps"):
        study.curve_of([], 1000)


def test_the_page_finds_where_it_cuts_the_table() -> None:
    table = (RESULTS / "runs.md").read_text()
    cuts = re.findall(r':(?:start-after|end-before): "(.*)"', (ROOT / "docs/study.md").read_text())
    assert len(cuts) == 3
    for cut in cuts:
        assert table.count(cut) == 1


def test_the_table_of_cartpole_s_presets_is_that_of_the_runs() -> None:
    table = cartpole.table(cartpole.read_results())
    assert cartpole.FILE.with_suffix(".md").read_text() == table


def test_the_picture_of_the_arms_shows_the_tasks_that_all_of_them_play(tmp_path: Path) -> None:
    of_one_seed = {"arm": "noise", "final_interval": None, "area_interval": None}
    row = {"task": study_report.SHARED, "final": 0.9, "area": 0.7, **of_one_seed}
    of_more = {"arm": "epsilon", "final_interval": (0.8, 1.0), "area_interval": (0.6, 0.8)}
    study_report.plot_arms([{**row, "task": "CartPole"}], tmp_path / "none.png")
    study_report.plot_arms([row, {**row, **of_more}], tmp_path / "two.png")
    assert [file.name for file in tmp_path.iterdir()] == ["two.png"]
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")


def control_runs(areas: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {
            "task": "CartPole",
            "arm": arm,
            "seed": seed,
            "area": area,
            "effective_epsilon": [0.9, *[0.06] * 9] if arm == control.TARGET else None,
        }
        for arm, of_seeds in areas.items()
        for seed, area in enumerate(of_seeds)
    ]


def test_a_target_is_compared_with_the_best_sigma0_seed_by_seed() -> None:
    areas = {arm: [1.0, 1.0, 1.0] for arm in control.ARMS}
    areas["noise"] = [10.0, 20.0, 30.0]
    areas[control.TARGET] = [11.0, 22.0, 33.0, 99.0]  # a seed that the others lack does not count
    runs = control_runs(areas)
    found = control.compared(runs, "CartPole")
    assert (found["best"], found["seeds"]) == ("0.5", 3)
    assert found["difference"] == 2.0
    # Differences 1, 2, 3: Student's t of two degrees of freedom at 95 % is 4.303.
    assert abs(found["interval"][0] - (2.0 - 4.302652729696142 / 3**0.5)) < 1e-9
    assert abs(found["held"] - 0.06) < 1e-12
    assert control.compared(runs, "Acrobot") is None
    assert "| CartPole | 3 | 22.00 | 0.5: 20.00 | +2.00 " in control.table(runs)


def test_the_study_s_runs_count_where_an_arm_is_theirs() -> None:
    assert list(control.SIGMAS.values()) == ["0.5", "0.1", "0.25", "0.4", "0.75", "1"]
    counts = Counter((one["task"], one["arm"], one["seed"]) for one in control.PART.records())
    assert set(counts.values()) == {1}
    assert not control.PART.missing()
    kept = part.read_lines(control.FILE)
    assert {one["arm"] for one in kept} == {control.TARGET}


def test_every_run_of_the_control_study_has_a_valid_config() -> None:
    for task in control.SHARED:
        for arm in control.ARMS:
            chosen = study.config.load(*study.settings_of(study.TASKS[task], arm, 1, control.ARMS))
            assert chosen.training.seed == 1


def test_what_was_measured_is_cut_into_ten_equal_parts_of_the_run() -> None:
    steps = np.arange(1_000, 21_001, 100)
    parts = target_held.means(steps, np.where(steps <= 3_000, 0.5, 0.05))
    assert parts == pytest.approx([0.5, *[0.05] * 9])


def test_the_table_of_held_targets_is_that_of_its_runs() -> None:
    records = target_held.PART.records()
    assert target_held.FILE.with_suffix(".md").read_text() == target_held.table(records)
    assert not target_held.PART.missing()
    for one in records:
        assert len(one["parts"]) == 10
        within = sum(
            abs(part / target_held.WANTED - 1) <= target_held.WITHIN for part in one["parts"]
        )
        assert within >= 9


@pytest.mark.parametrize(
    ("main", "options"),
    [
        (evidence.main, ["--jobs"]),
        (lambda: part.run_part(target_held.PART, None), ["--jobs"]),
        (seeds.main, ["pqn-pong", "--machine", "two cores", "--at-once"]),
    ],
)
@pytest.mark.parametrize("wrong", ["0", "-1", "two"])
def test_a_number_of_processes_that_there_cannot_be_is_one_line(
    main: Any,
    options: list[str],
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *options, wrong])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    expected = f"argument {options[-1]}: got '{wrong}', expected a whole number from 1 to "
    assert line.startswith(f"benchmark: error: {expected}")


def test_every_training_under_a_target_has_a_valid_config() -> None:
    for preset, settings in target_held.RUNS.values():
        chosen = study.config.load(
            preset, {**settings, "noise_target": target_held.WANTED, "seed": 3}
        )
        assert chosen.exploration.noise_target == target_held.WANTED


def test_the_page_says_where_a_target_is_ahead_and_where_behind() -> None:
    found = [control.compared(control.PART.records(), task) for task in control.SHARED]
    ahead = [one["task"] for one in found if one["interval"][0] > 0]
    behind = [one["task"] for one in found if one["interval"][1] < 0]
    page = " ".join((ROOT / "docs" / "control.md").read_text().split())
    assert f"is ahead of the best $\\sigma_0$ on {' and '.join(ahead)}, behind it on " in page
    assert f"behind it on {' and '.join(behind)}, and not told from it" in page


def test_a_run_that_ends_no_game_has_the_return_of_the_games_after_it() -> None:
    task = study.Task("control", "CartPole-v1", 8, games=2)  # one step of each environment
    found = study.measure("CartPole", task, "noise", 0, study.ARMS)
    assert found["area"] == pytest.approx(found["final"])
    assert len(found["curve"]) == study.POINTS
