"""Short seeded runs of every kind, reduced to hashes: what a change of the house must not move.

    python -m tests.golden.traces             writes traces.json anew, for a change that is meant
    python -m tests.golden.traces --beside    adds this kind of machine to it

A trace holds the hash of every array of the last checkpoint (parameters, moments, generators, held
draws), the hash of all metrics but the times and the figures of units, which are younger than the
traces, and the first line of figures as numbers.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from noisynet.cli import main

from .recordings import machine, with_recording

FILE = Path(__file__).with_name("traces.json")

_ALL = "--seed 3 --device cpu --threads 1 --precision float32 --log-every 10"
_REPLAY = "--steps 1000 --warmup-steps 300 --replay-capacity 600 --checkpoint-every 450"
_ROLLOUTS = "--steps 1500 --checkpoint-every 600"
_FRAMES = (
    "--torso data-efficient --head-hidden 32 --environments 4 --steps 480 --warmup-steps 120 "
    "--replay-capacity 300 --batch-size 16 --checkpoint-every 200"
)
_LEFT_OUT = ("time/", "dormant/", "norm/")
_SAMPLERS = "--actors 2 --backend in-process"

KINDS = {
    "vectors": f"cartpole {_REPLAY}",
    "vectors, one step, ε-greedy": f"cartpole-epsilon {_REPLAY}",
    "vectors, noise and ε, a draw a game": (
        f"cartpole {_REPLAY} --exploration both --redraw episode --noise-in all --choice-draw false"
    ),
    "vectors, independent noise": f"cartpole {_REPLAY} --noise-kind independent --redraw step",
    "vectors, from buffers that stay": f"cartpole {_REPLAY} --execution graph",
    "vectors, environments on a thread": f"cartpole {_REPLAY} --overlap true",
    "prioritised, distributional, dueling": f"cartpole-rainbow {_REPLAY}",
    "prioritised": f"cartpole {_REPLAY} --prioritised true --double false",
    "small images": f"MinAtar/Breakout-v1 {_REPLAY} --steps 700",
    "frames": f"ALE/Pong-v5 {_FRAMES}",
    "standardised frames": f"ALE/Pong-v5 {_FRAMES} --standardise-frames true --prioritised true",
    "a2c": f"cartpole-noisy-a2c {_ROLLOUTS}",
    "a2c, entropy bonus": f"cartpole-a2c {_ROLLOUTS}",
    "a2c, LSTM": f"cartpole-noisy-a2c {_ROLLOUTS} --lstm-size 16 --noise-in all",
    "a2c, frames": (
        "noisy-a2c --torso data-efficient --head-hidden 32 --environments 4 --steps 240 "
        "--checkpoint-every 100 --log-every 4"
    ),
    "samplers": f"cartpole {_REPLAY} {_SAMPLERS}",
    "samplers, shards, prioritised": (f"cartpole-rainbow {_REPLAY} {_SAMPLERS} --replay-shards 2"),
    "samplers, a2c": f"cartpole-noisy-a2c {_ROLLOUTS} {_SAMPLERS} --log-every 5",
}


def _arguments(kind: str) -> list[str]:
    preset, *options = KINDS[kind].split()
    return [preset, *_ALL.split(), *options]  # of an option that stands twice, the last counts


def trace(kind: str, folder: Path) -> dict[str, Any]:
    """Train a run of this kind in a new folder, and return its trace."""
    status = main(["train", *_arguments(kind), "--out", str(folder)])
    assert status == 0, f"{kind}: exit status {status}"
    (checkpoint,) = (folder / "checkpoints").glob("step_*")
    arrays = load_file(checkpoint / "arrays.safetensors")
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    metrics = [
        {name: value for name, value in json.loads(line).items() if not name.startswith(_LEFT_OUT)}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    told = "\n".join(json.dumps(record, sort_keys=True) for record in metrics)
    return {
        "first_figures": next(record for record in metrics if "loss" in record),
        "hashes": {
            "step": int(checkpoint.name.removeprefix("step_")),
            "arrays": digest.hexdigest(),
            "metrics": hashlib.sha256(told.encode()).hexdigest(),
        },
    }


def _record(*, beside: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        traces = {
            kind: trace(kind, Path(folder) / str(number)) for number, kind in enumerate(KINDS)
        }
    hashes = {kind: one["hashes"] for kind, one in traces.items()}
    former = json.loads(FILE.read_text())
    if not beside:
        former["first_figures"] = {kind: one["first_figures"] for kind, one in traces.items()}
    former["recordings"] = with_recording(former["recordings"], hashes, machine(), beside=beside)
    FILE.write_text(json.dumps(former, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    _record(beside="--beside" in sys.argv)
