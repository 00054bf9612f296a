"""The page as a file: whole, alone, honest about what it leaves out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from noisynet.assemble import build_agent, start
from noisynet.cli import main
from noisynet.evaluation.scores import atari57_games
from noisynet.report import plots
from noisynet.report.layer_sigmas import layer_sigmas
from noisynet.report.page import PAGE_BYTES, write_report
from noisynet.runs import Run, config
from noisynet.runs.checkpoint import Checkpoint
from noisynet.runs.errors import RunError
from noisynet.runs.evaluations import keep_evaluation


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_a_page_about_two_runs(trained: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    notes = write_report(trained, page, episodes=2)
    text = text_of(page)
    assert len(text.encode()) < PAGE_BYTES
    for part in (
        "Comparison",
        "Loss",
        "Noise",
        "Units",
        "Evaluation",
        "The agent at play",
        "What was",
    ):
        assert f"<h2>{part}" in text
    assert "probability of improvement" in text
    assert text.count("<video") == 2
    assert text.count(r"\u03c3 of q.") == 2  # as Bokeh writes its titles
    assert "off: mean weights" in text
    assert any("too few seeds" in note for note in notes)
    assert all(note in text for note in notes if "'" not in note)


def test_the_page_fetches_nothing(trained: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_report(trained[:1], page, episodes=0)
    tags = re.findall(r"<(?:script|link|img|video|iframe)\b[^>]*>", text_of(page))
    sources = [found for tag in tags for found in re.findall(r'(?:src|href)="([^"]*)"', tag)]
    assert sources
    assert all(source.startswith("data:") for source in sources)
    policy = re.search(
        r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text_of(page)
    )
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    assert "http" not in policy[1]
    assert "unsafe-eval" not in policy[1]


def test_the_headline_comes_first_then_a_picture_then_notes(
    trained: list[Path], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    write_report(trained, page, episodes=0)
    text = text_of(page)
    order = ["<h1>", 'class="cards"', 'class="plot"', 'class="notes"', "<h2>Comparison", "<h2>Loss"]
    places = [text.index(part, text.index("<body>")) for part in order]
    assert places == sorted(places)


def test_what_a_caller_opens_the_page_with_stands_before_the_figures(
    trained: list[Path], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    write_report(trained[:1], page, episodes=0, opening="<h2>Scores of a suite</h2>")
    text = text_of(page)
    assert re.findall(r"<h2>(.*?)</h2>", text)[0] == "Scores of a suite"
    assert text.index("Scores of a suite") < text.index('class="plot"')
    # What is at the top are totals: scores in training would be beside those of the suite.
    assert "of all runs together" in text


def test_a_single_run_has_its_page_in_its_folder(
    trained: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[1], run)
    assert main(["report", str(run), "--episodes", "0"]) == 0
    said = capsys.readouterr().out
    assert f"Report: {run / 'report.html'}" in said
    assert "no game was played" in said
    assert "no rival" not in said
    text = text_of(run / "report.html")
    assert "<h2>Comparison" not in text
    assert "probability of improvement" not in text
    assert "RMS(μ) / RMS(σ)" not in text_of(run / "report.html")


def test_what_is_wrong_is_said_on_the_page(write_run, trained: list[Path], tmp_path: Path) -> None:
    empty = write_run("empty", [])
    hurt = write_run("hurt<b>", [1.0, 2.0], seed=1, after="half a li\n")
    other = write_run("other", [3.0] * 50, preset="Acrobot-v1")
    (tmp_path / "no-run").mkdir()
    page = tmp_path / "page.html"
    notes = write_report([empty, hurt, other, tmp_path / "no-run"], page, episodes=1)
    said = "\n".join(notes)
    for part in (
        "empty finished no game yet",
        "hurt<b>: 1 damaged line of metrics.jsonl skipped",
        "left out: ",
        "not a run",
        "no checkpoint",
        "too few seeds",
        "no reference scores",
    ):
        assert part in said, part
    text = text_of(page)
    assert "hurt&lt;b&gt;" in text
    assert "hurt<b>" not in text


def test_returns_by_noise_are_shown_where_a_run_was_played_both_ways(
    trained: list[Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    page = tmp_path / "page.html"
    keep_evaluation(run, {"step": 900, "noise": "off", "returns": [9.0, 10.0]})
    write_report([run], page, episodes=0)
    assert "<h2>Returns by noise" not in text_of(page)
    keep_evaluation(run, {"step": 900, "noise": "on", "returns": [30.0, 32.0]})
    keep_evaluation(run, {"step": 900, "noise": "mean:8", "returns": [40.0, 42.0]})
    write_report([run], page, episodes=0)
    text = text_of(page)
    assert "<h2>Returns by noise" in text
    for part in ("run: returns at step 900", "mean weights", "a draw at every step",
                 "mean of Q over 8 draws"):  # fmt: skip
        assert part in text, part


def test_nothing_to_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        write_report([tmp_path / "missing"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_folder_is_no_page_and_nothing_is_played_for_it(
    trained: list[Path], tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(RunError, match=f"{tmp_path}: got a folder, expected the name of a page"):
        write_report(trained, tmp_path, episodes=1, tell=said.append)
    assert said == []


def test_a_page_replaces_no_file_of_a_run(
    write_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run("run", [1.0])
    before = (run / "config.yaml").read_bytes()
    assert main(["report", str(run), "--episodes", "0", "--out", str(run / "config.yaml")]) == 2
    assert "expected a name that ends with .html" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == before


def test_initial_sigma_are_the_run_s_own(trained: list[Path]) -> None:
    chosen = config.from_yaml((trained[0] / "config.yaml").read_text().split("\n", 1)[1], "config")
    agent = build_agent(chosen, (4,), 2)
    first = agent.network.state_dict()["head.q.0.weight_sigma"]
    layers, problems = layer_sigmas(trained[0])
    assert problems == []
    layer = next(one for one in layers if one.name == "q.0")
    assert layer.start is not None
    assert layer.start.sum() == layer.end.sum() == pytest.approx(1)
    place = int(layer.start.argmax())
    assert layer.start[place] == 1  # the paper's initial σ are all alike
    assert layer.edges[place] <= float(first[0, 0]) <= layer.edges[place + 1]
    # Training has moved them.
    assert layer.end[place] < 1


ROOM = 149_000
"""A little less than what a page keeps for the games that are played for it."""


@pytest.fixture
def many(write_run) -> list[Path]:
    """Two variants with two seeds each."""
    returns = np.random.default_rng(0).normal(20, 5, 300).tolist()
    return [
        write_run(f"{preset}-{seed}", returns, preset=preset, seed=seed)
        for preset in ("cartpole", "cartpole-epsilon")
        for seed in range(2)
    ]


def test_what_fills_the_page_is_shown_in_less_detail(
    many: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page.html"
    assert not any("single runs" in note for note in write_report(many, out, episodes=0))
    full = out.stat().st_size
    monkeypatch.setattr("noisynet.report.page.PAGE_BYTES", full + ROOM)
    notes = write_report(many, out, episodes=0)
    assert out.stat().st_size < full
    assert any(note.endswith("means without single runs") for note in notes)
    without = out.stat().st_size
    monkeypatch.setattr("noisynet.report.page.PAGE_BYTES", without + ROOM)
    notes = write_report(many, out, episodes=0)
    assert out.stat().st_size < without
    assert any(note.endswith("without single runs, and 80 points of a mean") for note in notes)


def test_a_page_that_cannot_fit_is_refused_before_anything_is_played(
    many: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noisynet.report.page.PAGE_BYTES", 500_000)
    told: list[str] = []
    with pytest.raises(RunError, match="report fewer games or runs"):
        write_report(many, tmp_path / "page.html", episodes=1, tell=told.append)
    assert told == ["Reading 4 runs …"]
    assert not (tmp_path / "page.html").exists()


def test_films_get_what_figures_leave(
    trained: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page.html"
    write_report(trained, out, episodes=0)
    # Room for figures and for what is played, and for a film of 15 kB.
    most = out.stat().st_size + 170_000
    monkeypatch.setattr("noisynet.report.page.PAGE_BYTES", most)
    notes = write_report(trained, out, episodes=1)
    assert any("no film" in note for note in notes)
    assert "<h2>Evaluation" in text_of(out)
    assert "<video" not in text_of(out)
    assert out.stat().st_size < most


def test_initial_sigma_of_a_run_whose_minibatches_need_its_environments(tmp_path: Path) -> None:
    fields = {"minibatches": 16, "environments": 16, "rollout_steps": 2, "steps": 64, "epochs": 1}
    run = start(
        config.load("pqn-cartpole", {**fields, "device": "cpu", "threads": 1}), tmp_path / "run"
    )
    layers, notes = layer_sigmas(run.folder)
    assert notes == []
    assert layers
    assert all(layer.start is not None for layer in layers)


@pytest.mark.slow
def test_all_atari_games_fit_in_one_page(write_run, tmp_path: Path) -> None:
    returns = np.random.default_rng(0).normal(20, 5, 300).tolist()
    paths = [
        write_run(f"{preset}-{game}-{seed}", returns, preset=preset, seed=seed,
                  environment=f"ALE/{game.title().replace('_', '')}-v5", solved_return=None)
        for preset in ("pong", "pong-epsilon")
        for game in atari57_games()
        for seed in range(5)
    ]  # fmt: skip
    out = tmp_path / "page.html"
    notes = write_report(paths, out, episodes=1)
    assert out.stat().st_size < PAGE_BYTES
    assert any("without single runs" in note for note in notes)


PEAK = """
import pathlib, sys
from noisynet.report.page import write_report
write_report([pathlib.Path(one) for one in sys.argv[2:]], pathlib.Path(sys.argv[1]), episodes=0)
(line,) = [one for one in open("/proc/self/status") if one.startswith("VmHWM")]
print(line.split()[1])
"""


def peak_kilobytes(paths: list[Path], out: Path) -> int:
    """Give the most memory that a process of its own takes for a report.

    Not by getrusage: a process begins with the peak of the one that started it.
    """
    command = [sys.executable, "-c", PEAK, str(out), *map(str, paths)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_two_hundred_runs_at_once(write_run, tmp_path: Path) -> None:
    returns = np.random.default_rng(0).normal(20, 5, 2000).tolist()
    paths = [
        write_run(f"{preset}-{number}", returns, seed=number, preset=preset)
        for preset in ("cartpole", "cartpole-epsilon")
        for number in range(100)
    ]
    page = tmp_path / "page.html"
    began = time.process_time()
    write_report(paths, page, episodes=0)
    assert time.process_time() - began < 60
    assert page.stat().st_size < PAGE_BYTES
    grown = peak_kilobytes(paths, page) - peak_kilobytes(paths[:4], page)
    assert grown < 200_000, f"{grown} KB more for 200 runs than for 4"


FIGURES = {
    "loss": 0.5, "epsilon": 0.1, "snr/value.0": 3.0, "sigma/value.0": 0.1,
    "noise/effective_epsilon": 0.2, "noise/q_gap": 1.0, "noise/q_spread": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    "steps",
    [[[]], [[100]], [[], []], [[100], [100]], [[100], [200]], [[100, 200], [300]], [[], [100]]],
    ids=repr,
)
def test_runs_too_short_for_a_figure_have_their_page(
    write_run, tmp_path: Path, steps: list[list[int]]
) -> None:
    """Nothing, one point, one run, and runs without a step in common."""
    runs = []
    for seed, each in enumerate(steps):
        lines = [
            {"step": step, **FIGURES, "game/return": 9.0, "game/mean_return": 9.0} for step in each
        ]
        after = "".join(json.dumps(line) + "\n" for line in lines)
        runs.append(write_run(f"run{seed}", [], after=after, seed=seed))
    page = tmp_path / "report.html"
    notes = "\n".join(write_report(runs, page, episodes=0))
    assert ("no learning curve" in notes) == (not any(steps))
    assert ("no SNR" in notes) == (not any(steps))
    assert text_of(page).count("What was run") == 1
    assert main(["compare", *map(str, runs)]) == 0
    assert main(["runs", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("left_out", "title"),
    [
        ("epsilon", "effective ε"),
        ("noise/effective_epsilon", "ε of ε-greedy"),
        ("loss", "effective ε and ε of ε-greedy"),
    ],
)
def test_the_figure_of_exploration_is_named_after_what_is_in_it(
    write_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: str, title: str
) -> None:
    figures = {name: value for name, value in FIGURES.items() if name != left_out}
    after = "".join(json.dumps({"step": step, **figures}) + "\n" for step in (100, 200))
    titles = []
    draw = plots.by_variant
    monkeypatch.setattr(
        plots, "by_variant", lambda title, *a: titles.append(title) or draw(title, *a)
    )
    write_report([write_run("run", [], after=after)], tmp_path / "page.html", episodes=0)
    assert f"CartPole-v1: {title}" in titles


def test_what_is_not_finite_in_a_checkpoint_is_left_out(
    trained: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Run.trained

    def hurt(run: Run) -> Checkpoint:
        found = whole(run)
        found.arrays["online.head.q.0.weight_sigma"].fill(np.nan)
        return found

    monkeypatch.setattr(Run, "trained", hurt)
    layers, notes = layer_sigmas(trained[0])
    assert [layer.name for layer in layers] == ["q.2"]
    assert notes == ["σ of q.0: not finite"]
