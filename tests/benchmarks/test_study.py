"""The study's tables are those of its runs, and its page finds where to cut them."""

import importlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

SMALL = ("control", "chain", "deep-sea")
ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "study"

study: Any = importlib.import_module("benchmarks.study.run")
cartpole: Any = importlib.import_module("benchmarks.study.cartpole")
study_report: Any = importlib.import_module("benchmarks.study.report")


def test_the_table_is_that_of_the_runs() -> None:
    shared = [name for name, task in study.TASKS.items() if task.arms is None]
    rows = study_report.summary(study.read_runs(), list(study.TASKS), list(study.ARMS), shared)
    table = study_report.markdown(rows, list(study.TASKS))
    assert (RESULTS / "table.md").read_text() == table


def test_no_run_counts_twice_and_none_is_missing() -> None:
    counts = Counter((one["task"], one["arm"], one["seed"]) for one in study.read_runs())
    assert set(counts.values()) == {1}
    small = [name for name, task in study.TASKS.items() if task.preset in SMALL]
    assert list(study.missing(small, list(study.ARMS), 10)) == []
    minatar = [name for name in study.TASKS if name.startswith("MinAtar")]
    assert list(study.missing(minatar, list(study.RIVALS), 5)) == []


def test_the_page_finds_where_it_cuts_the_table() -> None:
    table = (RESULTS / "table.md").read_text()
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
