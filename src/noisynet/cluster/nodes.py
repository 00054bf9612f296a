"""The nodes of a cluster: which noisynet each would run, and whether it sees a folder."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ScaleError

_PROBE_SECONDS = 180.0
"""How long a node may take to start a process and answer; loaded machines take long."""

Answer = tuple[str, str | None, str | None, bool]
"""A node's host, version and digest of the noisynet there, and whether it sees the mark."""


def alive_nodes(ray: Any) -> dict[str, dict[str, Any]]:
    """Return what Ray knows of each node that is alive: {name for a message: its entry}."""
    return {
        f"{node['NodeManagerAddress']}/{node['NodeID'][:6]}": node
        for node in ray.nodes()
        if node["Alive"]
    }


def check_nodes(ray: Any, shared: Path | None) -> None:
    """Raise ScaleError where a node would run another noisynet, or does not see the folder."""
    mark = None if shared is None else shared.resolve() / f".seen-{uuid.uuid4().hex}"
    if mark is not None:
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            raise ScaleError(f"{shared}: cannot be written: {error.strerror}") from error
    _, version, digest, _ = node_probe()(None)
    try:
        answers = _ask_everywhere(ray, mark)
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)
    problems: list[str] = []
    for name, answer in answers.items():
        if answer is None:
            problems.append(f"node {name} does not answer")
            continue
        host, its_version, its_digest, sees = answer
        node = f"node {name} ({host})"
        if its_version is None:
            problems.append(f"{node} has no noisynet")
        elif its_version != version:
            problems.append(f"{node} has noisynet {its_version}, expected {version}")
        elif its_digest != digest:
            problems.append(f"{node} has noisynet {its_version} with other code in it")
        elif not sees:
            problems.append(f"{node} does not see {shared}, expected a folder that all nodes share")
    if problems:
        raise ScaleError(f"--ray: {'; '.join(problems)}")


def _ask_everywhere(ray: Any, mark: Path | None) -> dict[str, Answer | None]:
    """Run the probe once on each node: {node: what it answered, None where it does not}."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(node_probe())
    asked = {
        name: task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(mark)
        for name, node in alive_nodes(ray).items()
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_PROBE_SECONDS)
    answers: dict[str, Answer | None] = {}
    for name, reference in asked.items():
        try:
            answers[name] = ray.get(reference, timeout=0)
        except ray.exceptions.RayError:  # a timeout is one too
            answers[name] = None
    # A node that has just died counts as alive for a while. Once it does not, it is left out.
    alive = alive_nodes(ray)
    return {name: answer for name, answer in answers.items() if answer or name in alive}


def node_probe() -> Callable[[Path | None], Answer]:
    """Make the function that runs on a node.

    Made here, it travels by value: a node without noisynet, or with another, can run it too.
    """

    def probe(mark: Path | None) -> Answer:
        import importlib.util
        import re
        import socket
        import zlib
        from pathlib import Path

        host, sees = socket.gethostname(), mark is None or mark.exists()
        found = importlib.util.find_spec("noisynet")
        if found is None or found.origin is None:
            return host, None, None, sees
        start = Path(found.origin)
        version = re.search(r'^__version__ = "(.+)"', start.read_text("utf-8"), re.MULTILINE)
        digest = 0
        for file in sorted(start.parent.rglob("*.py")):
            name = str(file.relative_to(start.parent)).encode()
            digest = zlib.crc32(file.read_bytes(), zlib.crc32(name, digest))
        return host, None if version is None else version[1], f"{digest:08x}", sees

    return probe
