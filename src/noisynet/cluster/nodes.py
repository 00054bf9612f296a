"""Checks of a cluster's nodes: that each has this noisynet and sees a shared folder."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ScaleError

_CHECK_SECONDS = 180.0
"""How long a node may take to start a process and answer; loaded machines take long."""


def alive_nodes(ray: Any) -> dict[str, dict[str, Any]]:
    """Return Ray's entry for each node that is alive, {name for messages: entry}."""
    return {
        f"{node['NodeManagerAddress']}/{node['NodeID'][:6]}": node
        for node in ray.nodes()
        if node["Alive"]
    }


def check_nodes(ray: Any, shared: Path | None) -> None:
    """Raise ScaleError if a node would run another noisynet, or does not see the folder."""
    if shared is None:
        problems = _problems(ray, node_check())
    else:
        mark = shared.resolve() / f".seen-{uuid.uuid4().hex}"
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            raise ScaleError(f"{shared}: cannot be written: {error.strerror}") from error
        try:
            problems = _problems(ray, node_check(mark, shared))
        finally:
            mark.unlink(missing_ok=True)
    if problems:
        raise ScaleError(f"--ray: {'; '.join(problems)}")


def _problems(ray: Any, check: Callable[[], str | None]) -> list[str]:
    """Run the check once on each node, and list what is wrong."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(check)
    asked = {
        name: task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote()
        for name, node in alive_nodes(ray).items()
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_CHECK_SECONDS)
    problems: list[str] = []
    for name, reference in asked.items():
        try:
            problem = ray.get(reference, timeout=0)
        except ray.exceptions.RayError:  # a timeout is one too
            # A node that died just before still counted as alive; it is left out once it does not.
            problem = "does not answer" if name in alive_nodes(ray) else None
        if problem is not None:
            problems.append(f"node {name} {problem}")
    return problems


def node_check(mark: Path | None = None, shared: Path | None = None) -> Callable[[], str | None]:
    """Build the function that runs on a node, and returns what is wrong there, or None.

    It compares the node's noisynet with this process's. As a nested function, it is pickled by
    value, so a node without noisynet, or with another version, can run it too.
    """

    def fingerprint() -> tuple[str, str] | None:
        """Return version and digest of the noisynet on this node, without importing it."""
        import importlib.util
        import re
        import zlib
        from pathlib import Path

        found = importlib.util.find_spec("noisynet")
        if found is None or found.origin is None:
            return None
        start = Path(found.origin)
        version = re.search(r'^__version__ = "(.+)"', start.read_text("utf-8"), re.MULTILINE)
        digest = 0
        for file in sorted(start.parent.rglob("*.py")):
            name = str(file.relative_to(start.parent)).encode()
            digest = zlib.crc32(file.read_bytes(), zlib.crc32(name, digest))
        return version[1] if version else "unknown", f"{digest:08x}"

    ours = fingerprint()

    def check() -> str | None:
        import socket

        theirs, node = fingerprint(), f"({socket.gethostname()})"
        if theirs is None or ours is None:
            return f"{node} has no noisynet"
        if theirs[0] != ours[0]:
            return f"{node} has noisynet {theirs[0]}, expected {ours[0]}"
        if theirs != ours:
            return f"{node} has noisynet {theirs[0]} with other code in it"
        if mark is not None and not mark.exists():
            return f"{node} does not see {shared}, expected a folder that all nodes share"
        return None

    return check
