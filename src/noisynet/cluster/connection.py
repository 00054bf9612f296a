"""Connect to Ray: one started here for the moment, or a cluster that runs already."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..assemble.resolve import local_cpus
from ..extras import cure
from ..runs.errors import first_line
from ..training.interrupts import on_interrupt
from .errors import ScaleError
from .nodes import alive_nodes, check_nodes

_ANSWER_SECONDS = 5.0
"""How long to wait for a connection, and then for the other side to answer as Ray does."""
_CHOSEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""How a user says what protects Ray."""
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}


@dataclass(frozen=True)
class Cluster:
    """What was connected to."""

    address: str
    nodes: int
    cpus: float
    """CPUs of all nodes together."""
    largest: float
    """CPUs of the node that has most: what one task can ask for."""


@contextmanager
def connect(
    address: str | None, *, cpus: int | None, shared: Path | None = None
) -> Iterator[Cluster]:
    """Connect to Ray, and disconnect at the end; a Ray that was started here ends with it.

    address: `HOST:PORT` of a cluster's head, or None for a Ray of this machine alone, on the cores
    that this process may use, which obeys no other one. cpus: how many the work takes in all; None:
    any number will do. shared: a folder that processes on all nodes must find under this very path.

    Raises ScaleError with one line where Ray is not installed, nobody answers (within 15 s), CPUs
    are too few, or a node runs another noisynet or does not see `shared`.
    """
    if address is not None:
        _check_answers(address)
    ray = _ray(address)
    if ray.is_initialized():
        raise ScaleError("--ray: this process is connected to Ray already")
    made_token = False
    try:
        if address is None:
            made_token = _make_token()
            _start(ray, cpus)
        else:
            _join(ray, address)
            check_nodes(ray, shared)
        each = [node["Resources"].get("CPU", 0.0) for node in alive_nodes(ray).values()]
        cluster = Cluster(
            address or "this machine", len(each), cpus=sum(each), largest=max(each, default=0.0)
        )
        if cpus is not None and cpus > cluster.cpus:
            raise ScaleError(
                f"--ray: {cluster.address} has {cluster.cpus:g} CPUs, expected at least {cpus}"
            )
        yield cluster
    finally:
        ray.shutdown()
        if made_token:
            _forget_token()


def _ray(address: str | None) -> Any:
    # Ray's own usage reports, its banner and its log lines are not for the users of this.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ten lines on standard output, in the middle of a table or of JSON; the caller prints its own.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while execu")
    if address is not None:
        # A second each. That somebody is there was asked before.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")
    try:
        import ray
    except ImportError as error:
        raise ScaleError(f"needs {error.name}: {cure('ray')}") from None
    return ray


def _make_token() -> bool:
    """Make a secret for a Ray of this machine, which refuses whoever does not send it.

    Its ports are open to every network that the machine is in. Ray would keep a secret in the home
    folder, in a file that all users of the machine can read, and the same one for every Ray. Where
    the user has chosen how Ray is protected, nothing is done; return whether something was.
    """
    if any(name in os.environ for name in _CHOSEN):
        return False
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    _read_token_anew()
    return True


def _forget_token() -> None:
    """Undo `_make_token`, so that the secret is sent to no other Ray."""
    for name in _CHOSEN:
        os.environ.pop(name, None)
    _read_token_anew()


def _read_token_anew() -> None:
    """Let Ray forget what it read of the environment."""
    # It has no public function for that. A version without these reads it at every start.
    with suppress(ImportError, AttributeError):
        inside = importlib.import_module("ray._raylet")
        inside.Config.initialize("")
        inside.AuthenticationTokenLoader.instance().reset_cache()


def _start(ray: Any, cpus: int | None) -> None:
    """Start a Ray of this machine alone; it dies with this process."""
    have = local_cpus()
    if cpus is not None and cpus > have:
        raise ScaleError(f"this machine has {have} CPUs, expected at least {cpus}")
    for attempt in (1, 2):  # a loaded machine may take longer than Ray waits
        try:
            with _interrupt_afterwards():
                ray.init(address="local", num_cpus=have, include_dashboard=False, **_QUIET)
            break
        except Exception as error:
            if attempt == 2:
                raise ScaleError(f"Ray could not be started here: {first_line(error)}") from error
            ray.shutdown()


@contextmanager
def _interrupt_afterwards() -> Iterator[None]:
    """Keep Ctrl-C until the end: while Ray starts it may get lost. A second one is not kept."""
    kept: list[bool] = []
    try:
        with on_interrupt(lambda: kept.append(True), [signal.SIGINT]):
            yield
    finally:
        if kept:
            raise KeyboardInterrupt


def _join(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, **_QUIET)
    except Exception as error:
        raise ScaleError(f"--ray: cannot join {address}: {first_line(error)}") from error


def _check_answers(address: str) -> None:
    """Raise ScaleError where no cluster is at the address: Ray itself would try for minutes."""
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
    # With TLS only Ray itself knows how to ask.
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("0", "false", ""):
        _check_is_ray(address)


def _check_is_ray(address: str) -> None:
    """Raise ScaleError where it is not Ray's head that answers, or it refuses this process."""
    try:
        import grpc
    except ImportError:  # it comes with Ray, which says by itself what is missing
        return
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            code = getattr(error, "code", lambda: None)()
            if code != grpc.StatusCode.UNAUTHENTICATED:
                raise ScaleError(f"--ray: what answers at {address} is no Ray cluster") from None
            if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
                # Ray sends its token to no address that was given, unless told to.
                raise ScaleError(
                    f"--ray: {address} asks for Ray's token, got none: RAY_AUTH_MODE=token in the "
                    "environment sends it"
                ) from None
