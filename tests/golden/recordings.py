"""Recordings of what the code computes, bit for bit, by the kind of machine that made them.

Equal bits depend on the processor, its instructions and the versions of packages. A file of
recordings is a list of objects: `machine`, which says all of these, and `hashes` by name.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

Recording = dict[str, Any]


def machine(*packages: str) -> dict[str, str]:
    """Return what equal bits depend on besides the code."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    split = [line.partition(":") for line in reversed(lines)]
    values = {name.strip(): value.strip() for name, _, value in split}
    return {
        "processor": values.get("model name") or platform.processor() or platform.machine(),
        "model": " ".join(values.get(name, "") for name in ("cpu family", "model", "stepping")),
        "flags": hashlib.sha256(f"flags\t\t: {values.get('flags')}".encode()).hexdigest()[:16],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{name: version(name).partition("+")[0] for name in ("torch", *packages)},
    }


def recorded(recordings: list[Recording], name: str, here: Mapping[str, str]) -> Any:
    """Return the hashes of a name on a machine like this one; None if there are none."""
    for one in recordings:
        if name in one["hashes"] and one["machine"].items() <= here.items():
            return one["hashes"][name]
    return None


def with_recording(
    recordings: list[Recording], hashes: Mapping[str, Any], here: Mapping[str, str], *, beside: bool
) -> list[Recording]:
    """Return recordings with the hashes of this machine.

    Those of other machines stay only if they were made by the same code (`beside`): after a change
    of the numbers they are wrong, and the names that were made anew are taken out of them.
    """
    others: list[Recording] = []
    for one in recordings:
        is_here = one["machine"].items() <= here.items()
        out = hashes.keys() if is_here or not beside else ()
        kept = {name: value for name, value in one["hashes"].items() if name not in out}
        if kept:
            others.append({"machine": one["machine"], "hashes": kept})
    return [*others, {"machine": dict(here), "hashes": dict(hashes)}]


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: sums of several have another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
