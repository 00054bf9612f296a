"""Every example runs as a user would run it, and says what it is meant to show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def said_by(run_example: Callable[..., Any]) -> Callable[..., list[str]]:
    def run(name: str, *options: str) -> list[str]:
        done = run_example(name, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_an_agent_learns_one_s_own_environment(
    said_by: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert said_by("own_environment.py")[-1] == "signs 0, 1, 2 are named [0, 1, 2]"
    assert (tmp_path / "runs" / "match" / "config.yaml").exists()
    assert len((EXAMPLES / "own_environment.py").read_text().splitlines()) <= 40


def mean_return(line: str) -> float:
    return float(line.rpartition(" ")[2])


def test_an_agent_is_built_by_hand(said_by: Callable[..., list[str]], tmp_path: Path) -> None:
    *_, last = said_by("by_hand.py", "--steps", "1600")
    steps, updates = (int(number) for number in re.findall(r"(\d+) (?:steps|updates)", last))
    # Steps come eight at a time, and an update each four after the warm-up.
    assert 1600 <= steps < 1608
    assert updates == (steps - 1000) // 4
    assert 8 < mean_return(last) < 100
    source = (EXAMPLES / "by_hand.py").read_text()
    assert len(source.splitlines()) <= 40
    assert "config" not in source.partition('"""\n\n')[2]
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_an_agent_that_was_built_by_hand_learns(said_by: Callable[..., list[str]]) -> None:
    first, *_, last = said_by("by_hand.py")
    assert mean_return(first) < 60
    assert mean_return(last) >= 400


def test_no_example_is_long() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 150, path.name


def test_noise_explores_where_values_are_close(
    said_by: Callable[..., list[str]], tmp_path: Path
) -> None:
    said = said_by("close_values.py", "--steps", "3000")
    start = said.index("gap of Q   noise   ε-greedy") + 1
    rows = [[float(part) for part in line.split()] for line in said[start : start + 8]]
    gaps, noise, greedy = zip(*rows, strict=True)
    assert list(gaps) == sorted(gaps)
    # Much where the gap is small, little where it is wide; ε-greedy is blind to it.
    assert noise[0] > 2 * noise[-1]
    assert max(greedy) < 1.5 * min(greedy)
    assert (tmp_path / "close_values.png").read_bytes().startswith(b"\x89PNG")


def test_a_transformer_remembers_by_noise_alone(
    said_by: Callable[..., list[str]], tmp_path: Path
) -> None:
    *_, named, exported = said_by("noisy_transformer.py", "--updates", "250")
    # Guessing names one of four.
    assert float(named.removeprefix("mean weights: ").partition(" ")[0]) >= 0.9
    assert exported == "the exported graph computes the same: True"
    assert not any(tmp_path.iterdir())


def test_a_plain_loop_learns_by_noise_alone(
    said_by: Callable[..., list[str]], tmp_path: Path
) -> None:
    *_, ratios, played = said_by("plain_loop.py", "--steps", "8000")
    assert ratios.startswith("SNR: {'2': ")
    # A uniformly random player gets about 22, and one that always does the same about 10.
    assert float(played.removeprefix("mean weights: ").removesuffix(" of 500")) >= 100
    assert not any(tmp_path.iterdir())


def test_a_recurrent_policy_remembers_under_the_draws_that_acted(
    said_by: Callable[..., list[str]], tmp_path: Path
) -> None:
    *updates, ratio, means = said_by("recurrent_policy.py", "--updates", "30")
    # Half of the signals are guessed.
    assert float(updates[-1].rpartition(" ")[2]) >= 0.9
    assert float(means.rpartition(" ")[2]) >= 0.9
    assert ratio.startswith("the first ratio differed from 1 by ")
    assert float(ratio.split()[7]) < 1e-5
    assert not any(tmp_path.iterdir())


def test_the_page_of_the_plain_loop(run_page: Callable[[str], dict[str, Any]]) -> None:
    names = run_page("plain.md")
    failed = [one.name for one in names["before"] if one.status == "fail"]
    assert failed == ["draws in the loss", "redraw between updates"]
    assert names["after"]["warm-up"].status == "warn"
    # What the page explains stands in the file that it shows.
    shown = (EXAMPLES / "plain_loop.py").read_text()
    for call in ("noisify", "attach", "using", "draw", "mean_weights", "snr"):
        assert f"noisynet.{call}(" in shown
