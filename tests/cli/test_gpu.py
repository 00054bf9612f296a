"""On a GPU: every kind of agent trains, goes on where it stopped, and is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from noisynet.cli import main
from noisynet.runs import read_metrics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SHORT = ["--device", "cuda", "--log-every", "5", "--threads", "1"]
AGENTS = {
    "cartpole": ["--warmup-steps", "400"],
    "cartpole-rainbow": ["--warmup-steps", "400"],
    "cartpole-munchausen": ["--warmup-steps", "400"],
    "cartpole-btr": ["--warmup-steps", "400"],
    "cartpole-noisy-a2c": [],
    "pqn-cartpole": [],
    "pong-fast": ["--warmup-steps", "600", "--replay-capacity", "2000"],
    "pqn-pong": ["--minibatches", "8"],
}
WITH_GRAPHS = [name for name in AGENTS if name != "cartpole-noisy-a2c"]


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("cartpole-noisy-a2c", AGENTS["cartpole-noisy-a2c"]),
        # Asked for, a graph that cannot be captured is an error; "auto" would go on without one.
        *(
            (name, [*AGENTS[name], "--execution", execution])
            for name in WITH_GRAPHS
            for execution in ("plain", "graph")
        ),
        ("cartpole", [*AGENTS["cartpole"], "--redo-every", "20", "--execution", "graph"]),
        ("pqn-cartpole", ["--redo-every", "20", "--execution", "graph"]),
        ("pqn-cartpole", ["--noise-target", "0.05", "--execution", "graph"]),
        (
            "pqn-cartpole",
            ["--learning-draw", "acted", "--redraw", "update", "--execution", "graph"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_run_and_what_follows_it(
    preset: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    steps = "3000" if "pqn" in preset else "1500"
    assert main(["train", preset, *SHORT, *options, "--steps", steps, "--out", run, "--json"]) == 0
    assert main(["resume", run, "--steps", str(2 * int(steps))]) == 0
    losses = [line["loss"] for line in read_metrics(Path(run)) if "loss" in line]
    assert len(losses) > 2
    assert torch.tensor(losses).isfinite().all()
    capsys.readouterr()
    if "cartpole" in preset:
        assert main(["evaluate", run, "--episodes", "2", "--noise", "on", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["returns"]) == 2


@pytest.mark.parametrize("preset", ["cartpole-btr", "cartpole-noisy-a2c", "pqn-cartpole"])
def test_a_run_moves_to_a_gpu_and_back(preset: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    options = [*AGENTS[preset], "--threads", "1", "--device", "cpu", "--steps", "1500"]
    assert main(["train", preset, *options, "--out", run]) == 0
    for device, steps in (("cuda", "4000"), ("cpu", "6000")):
        assert main(["resume", run, "--device", device, "--steps", steps]) == 0
        assert (
            torch.tensor([line["loss"] for line in read_metrics(Path(run)) if "loss" in line])
            .isfinite()
            .all()
        )
