"""Pages about runs that lack something: any series missing, short, constant or huge."""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from noisynet.report.page import write_report

GAME = ("game/return", "game/mean_return")
FIGURES = (
    "loss", "epsilon", "snr/q.0", "sigma/q.0", "noise/effective_epsilon", "noise/scale",
    "noise/q_gap", "noise/q_spread", "dormant/q.0", "norm/q.0",
)  # fmt: skip
PRESETS = ("cartpole", "cartpole-epsilon", "cartpole-noisy-a2c", "Acrobot-v1")

values = st.one_of(st.sampled_from([0.0, 9.0, -1e300, 1e300, None]), st.floats(-500, 500))
lines = st.dictionaries(st.sampled_from((*GAME, *FIGURES)), values, max_size=8)
runs = st.tuples(
    st.sampled_from(PRESETS),
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(0, 9_000), lines), max_size=4),
)

number = count()


def page_of(write_run, tmp_path: Path, given_runs: list[tuple[str, int, list[Any]]]) -> str:
    """Write the runs and their page; give its text without scripts, after what is always so."""
    paths = []
    for preset, seed, steps in given_runs:
        ordered = sorted(steps, key=lambda pair: pair[0])
        after = "".join(json.dumps({"step": step, **line}) + "\n" for step, line in ordered)
        paths.append(write_run(f"run{next(number)}", [], preset=preset, seed=seed, after=after))
    page = tmp_path / "page.html"
    write_report(paths, page, episodes=0)
    text = page.read_text(encoding="utf-8")
    seen = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert "{{" not in seen
    assert not re.search(r"\bnan\b", seen, re.IGNORECASE)
    assert seen.count('class="card"') >= 1
    assert seen.count("<h2>What was run") == 1
    # A heading has something under it.
    told = seen.replace("</h2><h3>", "").replace('<div class="plot">', "a figure")
    assert not re.search(r"</h[23]>(?:<[^>]*>)*<h[23]>", told)
    assert len(re.findall(r'<div class="plot">', seen)) == len(re.findall(r"data-root-id", seen))
    return seen


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # 1e300 squared is no number
@settings(
    max_examples=5,
    phases=[Phase.generate],  # a page takes too long to look for the smallest that fails
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(given_runs=st.lists(runs, min_size=1, max_size=2))
def test_any_series_may_be_missing_or_short(
    write_run, tmp_path: Path, given_runs: list[tuple[str, int, list[Any]]]
) -> None:
    seen = page_of(write_run, tmp_path, given_runs)
    finished = any(
        line.get("game/mean_return") is not None for _, _, steps in given_runs for _, line in steps
    )
    assert finished or "no finished game yet" in seen
    assert not finished or 'class="plot"' in seen


@pytest.mark.parametrize("tag", [*GAME, *FIGURES])
def test_a_figure_alone_has_its_page(write_run, tmp_path: Path, tag: str) -> None:
    given_runs = [("cartpole", seed, [(100, {tag: 1.0})]) for seed in (0, 1)]
    seen = page_of(write_run, tmp_path, given_runs)
    # What is no curve of its own: single games are drawn beside their mean.
    assert ('class="plot"' in seen) == (tag != "game/return")


def test_a_card_without_a_finished_game(write_run, tmp_path: Path) -> None:
    seen = page_of(write_run, tmp_path, [("cartpole", 0, [])])
    assert '<div class="large">–</div><div>no finished game yet</div>' in seen
    assert "<h2>Comparison" not in seen
