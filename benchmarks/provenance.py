"""The folder of the results, and their provenance: commit, date and machine."""

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
    """Return git's name of the commit, marked `-dirty` where the tree differs from it.

    Changes in the folder of results do not count, as they do not affect what is measured.
    """

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, cwd=RESULTS.parent
        )

    commit = ask("describe", "--always").stdout.strip()
    if not commit:
        return "unknown"
    changed = ask("diff", "--quiet", "HEAD", "--", ":/", f":(exclude){RESULTS.name}").returncode
    return f"{commit}-dirty" if changed else commit


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
