"""What a result was measured with: the commit, and the machine in words."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch


def current_commit() -> str:
    """Ask git for the commit, marked where the tree differs from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip() or "unknown"


def machine_in_words(device: torch.device | None = None) -> str:
    """Say processor and cores, and the GPU where it is measured."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    words = f"{name}, {os.cpu_count()} cores"
    if device is not None and device.type == "cuda":
        words = f"{torch.cuda.get_device_name(device)}; {words}"
    return words
