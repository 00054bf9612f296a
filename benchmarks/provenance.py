"""Where results are kept, and what each was measured with: commit, date and machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def current_commit() -> str:
    """Return git's name of the commit, marked `-dirty` where the tree differs from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip() or "unknown"


def machine_in_words(device: torch.device | None = None) -> str:
    """Name the processor and its cores, and the GPU where `device` is one."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    words = f"{name}, {os.cpu_count()} cores"
    if device is not None and device.type == "cuda":
        words = f"{torch.cuda.get_device_name(device)}; {words}"
    return words


def provenance(machine: str, commit: str | None = None) -> dict[str, Any]:
    """Return what every result begins with; the commit is the current one unless given."""
    return {
        "commit": commit or current_commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
    }


def write_json(path: Path, result: Any) -> None:
    """Write a result as JSON that a diff can show, making the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
