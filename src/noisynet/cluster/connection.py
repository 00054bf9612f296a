"""Connect to Ray: one started here for the moment, or a cluster that runs already."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ..training.session import SAME_SECONDS
from .errors import ScaleError

_ANSWER_SECONDS = 5.0
"""How long to wait for a connection, and then for the other side to answer as Ray does."""
_WHICH_CLUSTER = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_PROBE_SECONDS = 180.0
"""How long a node may take to start a process and answer; loaded machines take long."""


@dataclass(frozen=True)
class Cluster:
    """Say what was connected to."""

    address: str
    nodes: int
    cpus: float
    """CPUs of all nodes together."""
    largest: float
    """CPUs of the node that has most: what one task can ask for."""


@dataclass(frozen=True)
class _Node:
    """What a node answered: its host, and the noisynet that its processes would import."""

    host: str
    version: str | None
    digest: str | None
    sees: bool


@contextmanager
def connect(
    address: str | None, *, cpus: int | None, shared: Path | None = None
) -> Iterator[Cluster]:
    """Connect to Ray, and disconnect at the end; a Ray that was started here ends with it.

    address: `HOST:PORT` of a cluster's head, or None for a Ray of this machine alone, on the cores
    that this process may use. cpus: how many the work takes in all; None: any number will do.
    shared: a folder that processes on all nodes must find under this very path.

    Raises ScaleError with one line where Ray is not installed, nobody answers (within 15 s), CPUs
    are too few, or a node runs another noisynet or does not see `shared`.
    """
    if address is not None:
        _check_answers(address)
    ray = _ray(address)
    if ray.is_initialized():
        raise ScaleError("--ray: this process is connected to Ray already")
    if address is None:
        _start(ray, cpus)
    else:
        _join(ray, address)
    try:
        if address is not None:
            _check_nodes(ray, shared)
        cluster = _found(ray, address)
        if cpus is not None and cpus > cluster.cpus:
            raise ScaleError(
                f"--ray: {cluster.address} has {cluster.cpus:g} CPUs, expected at least {cpus}"
            )
        yield cluster
    finally:
        ray.shutdown()


def _ray(address: str | None) -> Any:
    # Ray's own usage reports, its banner and its log lines are not for the users of this.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ten lines on standard output, in the middle of a table or of JSON; who asked says it in one.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while execu")
    if address is not None:
        # A second each. That somebody is there was asked before.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")
    try:
        import ray
    except ImportError as error:
        raise ScaleError(f"needs {error.name}: pip install 'noisynet[ray]'") from None
    return ray


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}


def _start(ray: Any, cpus: int | None) -> None:
    """Start a Ray of this machine alone; it dies with this process."""
    have = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cpus is not None and cpus > (have or 1):
        raise ScaleError(f"this machine has {have} CPUs, expected at least {cpus}")
    problem: Exception | None = None
    for _ in range(2):  # a loaded machine may take longer than Ray waits
        try:
            with _interrupt_after():
                ray.init(address="local", num_cpus=have, include_dashboard=False, **_QUIET)
        except Exception as error:  # noqa: BLE001 - Ray raises bare Exceptions here
            problem = error
            ray.shutdown()
        except BaseException:
            # An interrupt: what Ray has started by then ends with this process.
            ray.shutdown()
            raise
        else:
            return
    raise ScaleError(f"Ray could not be started here: {_first_line(problem)}")


@contextmanager
def _interrupt_after() -> Iterator[None]:
    """Keep Ctrl-C until the end: while Ray starts it may get lost. A second one is not kept.

    What follows at once is the first one still.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: float | None = None

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        first = now if first is None else first
        if now - first > SAME_SECONDS:
            raise KeyboardInterrupt

    former = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
        if first is not None:
            raise KeyboardInterrupt


def _check_answers(address: str) -> None:
    """Make sure that there is a cluster at the address: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ScaleError(
            f"--ray: got {address!r}, expected HOST:PORT of a cluster's head, as `ray start` "
            "prints it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise ScaleError(
            f"--ray: no cluster at {address}: {error.strerror or error}; `ray start --head` "
            "starts one"
        ) from None
    _check_is_ray(address)


def _join(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, **_QUIET)
    except Exception as error:
        ray.shutdown()
        raise ScaleError(f"--ray: cannot join {address}: {_first_line(error)}") from error


def _check_is_ray(address: str) -> None:
    """Make sure that it is Ray's head that answers, and one that this process may ask.

    With TLS only Ray itself knows how to ask.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "false", ""):
        return
    try:
        import grpc
    except ImportError:  # it comes with Ray, which says by itself what is missing
        return
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary(_WHICH_CLUSTER)
        try:
            ask(b"", timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            told = getattr(error, "code", lambda: None)()
            if told != grpc.StatusCode.UNAUTHENTICATED:
                raise ScaleError(f"--ray: what answers at {address} is no Ray cluster") from None
            if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
                # Ray sends its token to no address that was given, unless told to.
                raise ScaleError(
                    f"--ray: {address} asks for Ray's token, got none: RAY_AUTH_MODE=token in the "
                    "environment sends it"
                ) from None


def _found(ray: Any, address: str | None) -> Cluster:
    each = [node["Resources"].get("CPU", 0.0) for node in _alive(ray)]
    return Cluster(address or "this machine", len(each), sum(each), max(each, default=0.0))


def _alive(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _check_nodes(ray: Any, shared: Path | None) -> None:
    """Ask a process on each node which noisynet it would run, and whether it sees the folder."""
    probe = _probe()
    mark = None if shared is None else shared / f".seen-{uuid.uuid4().hex}"
    ours = probe(None)
    if mark is not None:
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            raise ScaleError(f"{shared}: cannot be written: {error.strerror}") from error
    try:
        answers = _ask_everywhere(ray, probe, None if mark is None else str(mark.resolve()))
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)
    problems: list[str] = []
    for name, answer in answers.items():
        if answer is None:
            problems.append(f"node {name} does not answer")
            continue
        node = _Node(*answer)
        where = f"node {name} ({node.host})"
        if node.version is None:
            problems.append(f"{where} has no noisynet")
        elif node.version != ours[1]:
            problems.append(f"{where} has noisynet {node.version}, expected {ours[1]}")
        elif node.digest != ours[2]:
            problems.append(f"{where} has noisynet {node.version} with other code in it")
        elif not node.sees:
            problems.append(
                f"{where} does not see {shared}, expected a folder that all nodes share"
            )
    if problems:
        raise ScaleError(f"--ray: {'; '.join(problems)}")


def _ask_everywhere(ray: Any, probe: Any, mark: str | None) -> dict[str, Any]:
    """Run the probe once on each node: {node: what it answered, None where it does not}.

    A node that has just died still counts as alive for a while. Once it does not, it is left out.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(probe)
    asked = {
        _name(node): remote.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(mark)
        for node in _alive(ray)
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_PROBE_SECONDS)
    answers: dict[str, Any] = {}
    for name, reference in asked.items():
        try:
            answers[name] = ray.get(reference, timeout=0)
        except ray.exceptions.RayError:  # a timeout is one too
            answers[name] = None
    alive = {_name(node) for node in _alive(ray)}
    return {name: answer for name, answer in answers.items() if answer or name in alive}


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']}/{node['NodeID'][:6]}"


def fingerprint() -> tuple[str | None, str | None]:
    """Give the version of the noisynet that this process would import, and a digest of its code."""
    _, version, digest, _ = _probe()(None)
    return version, digest


def _probe() -> Callable[[str | None], tuple[str, str | None, str | None, bool]]:
    """Make the function that runs on a node.

    Made here, it travels by value: a node without noisynet, or with another, can run it too.
    """

    def probe(mark: str | None) -> tuple[str, str | None, str | None, bool]:
        import importlib.util
        import re
        import socket
        import zlib
        from pathlib import Path

        sees = mark is None or Path(mark).exists()
        found = importlib.util.find_spec("noisynet")
        if found is None or found.origin is None:
            return socket.gethostname(), None, None, sees
        root = Path(found.origin).parent
        text = Path(found.origin).read_text("utf-8")
        version = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)
        digest = 0
        for file in sorted(root.rglob("*.py")):
            name = str(file.relative_to(root)).encode()
            digest = zlib.crc32(file.read_bytes(), zlib.crc32(name, digest))
        named = None if version is None else version[1]
        return socket.gethostname(), named, f"{digest:08x}", sees

    return probe


def _first_line(error: BaseException | None) -> str:
    """Give the first line of a message that says something, with what kind of error it is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
