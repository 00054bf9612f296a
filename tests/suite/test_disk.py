"""A suite whose disk is full: trials say so, what is done stays, and with room it goes on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is an extra")

SUITE = """
environments: [Chain-6]
seeds: 6
overrides:
  {steps: 300, warmup_steps: 100, batch_size: 16, replay_capacity: 600, checkpoint_every: 100,
   log_every: 20, torso_hidden: [8], head_hidden: 8, device: cpu}
evaluation: {episodes: 2}
retries: 1
"""

# In a name space of its own, where a disk of any size can be had.
IN_SPACE = """
set -e
mount -t tmpfs -o size=300k tmpfs "$2/out"
suite() { "$1" -m noisynet suite "$2/suite.yaml" --out "$2/out" > "$2/$3.log" 2>&1; }
suite "$1" "$2" full && exit 9
cp -r "$2/out" "$2/full"
mount -o remount,size=30m "$2/out"
suite "$1" "$2" room
cp -r "$2/out" "$2/room"
"""


def may_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_a_suite_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "suite.yaml").write_text(SUITE)
    if not may_mount(tmp_path / "out"):
        pytest.skip("no disk of one's own can be had here")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", IN_SPACE, "sh", sys.executable, str(tmp_path)],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    full = (tmp_path / "full.log").read_text()
    assert done.returncode == 0, (done.stderr, full)
    finished = {one.parent.name: one.read_text() for one in results(tmp_path / "full")}
    assert 0 < len(finished) < 6
    failed = {f"chain-6-noise-seed{seed}" for seed in range(6)} - set(finished)
    said = [line for line in full.splitlines() if ": failed: " in line]
    assert {line.partition(":")[0] for line in said} == failed
    assert all("No space left on device" in line for line in said)
    assert "Traceback" not in full
    # With room the same command goes on, and leaves alone what was done.
    room = (tmp_path / "room.log").read_text()
    for name, result in finished.items():
        assert (tmp_path / "room" / "runs" / name / "evaluation.json").read_text() == result
        assert f"{name}: " not in room
    summary = json.loads((tmp_path / "room" / "summary.json").read_text())
    assert (summary["done"], summary["failed"]) == (6, {})


def results(folder: Path) -> list[Path]:
    return sorted(folder.glob("runs/*/evaluation.json"))
