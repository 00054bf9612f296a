"""Every example runs as a user would run it, and says what it is meant to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_agent_learns_one_s_own_environment(tmp_path: Path) -> None:
    said = run("own_environment.py", tmp_path).splitlines()
    assert said[-1] == "signs 0, 1, 2 are named [0, 1, 2]"
    assert (tmp_path / "runs" / "match" / "config.yaml").exists()
    assert len((EXAMPLES / "own_environment.py").read_text().splitlines()) <= 40


def test_no_example_is_long() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 150, path.name


def test_noise_explores_where_values_are_close(tmp_path: Path) -> None:
    said = run("close_values.py", tmp_path, "--steps", "3000").splitlines()
    start = said.index("gap of Q   noise   ε-greedy") + 1
    rows = [[float(part) for part in line.split()] for line in said[start : start + 8]]
    gaps, noise, greedy = zip(*rows, strict=True)
    assert list(gaps) == sorted(gaps)
    # Much where the gap is small, little where it is wide; ε-greedy is blind to it.
    assert noise[0] > 2 * noise[-1]
    assert max(greedy) < 1.5 * min(greedy)
    assert (tmp_path / "close_values.png").read_bytes().startswith(b"\x89PNG")
