"""`noisynet train --actors N --ray ADDRESS` against what `ray start --head` starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from noisynet.cli import main

pytest.importorskip("ray", reason="Ray is an extra")

OPTIONS = [
    "--environments=4", "--warmup-steps=100", "--replay-capacity=400", "--batch-size=8",
    "--torso-hidden=[8]", "--head-hidden=8", "--steps=300", "--threads=1",
]  # fmt: skip
TOKEN = "0123456789abcdef" * 4


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """Start a head of two CPUs that asks for a token, as Ray's do where there is one."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            sys.executable, "-c", "from ray.scripts.scripts import main; main()",
            "start", "--head", "--block", f"--port={address.partition(':')[2]}", "--num-cpus=2",
            "--include-dashboard=false", "--disable-usage-stats",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
    )  # fmt: skip
    end = time.monotonic() + 200
    while not answers(address):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(120)


def answers(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def train(
    out: Path, address: str, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [
            sys.executable, "-m", "noisynet", "train", "cartpole", "--out", str(out),
            "--ray", address, *OPTIONS, *options,
        ],
        capture_output=True, text=True, timeout=500, check=False,
        env={**without, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token(head: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    without = train(out, head, "--actors=1")
    assert (without.returncode, without.stdout) == (2, "")
    assert without.stderr == (
        f"noisynet train: --ray: {head} asks for Ray's token, got none: RAY_AUTH_MODE=token in "
        "the environment sends it\n"
    )
    key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    few = train(out, head, "--actors=3", **key)
    assert (few.returncode, few.stdout) == (2, "")
    assert few.stderr == f"noisynet train: --ray: {head} has 2 CPUs, expected at least 3\n"
    assert not out.exists()
    done = train(out, head, "--actors=1", **key)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Done: 3" in done.stdout
    began = time.monotonic()
    other = train(tmp_path / "other", head, "--actors=1", **key | {"RAY_AUTH_TOKEN": TOKEN[::-1]})
    assert time.monotonic() - began < 60
    assert other.returncode == 2
    assert f"--ray: cannot join {head}: " in other.stderr.splitlines()[-1]


def test_nobody_at_the_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    began = time.monotonic()
    options = ["--actors=1", "--ray", address, "--out", str(tmp_path / "run")]
    assert main(["train", "cartpole", *options]) == 2
    assert time.monotonic() - began < 15
    errors = capsys.readouterr().err
    assert errors.startswith(f"noisynet train: --ray: no cluster at {address}: ")
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "run").exists()
