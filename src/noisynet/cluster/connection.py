"""Connections to Ray: to one that is started on this machine, or to a running cluster."""

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
from ..extras import install_command
from ..runs.errors import first_line
from ..training.interrupts import on_interrupt
from .errors import ScaleError
from .nodes import alive_nodes, check_nodes

_ANSWER_SECONDS = 5.0
"""How long to wait for a connection, and then for an answer from Ray."""
_CHOSEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Environment variables with which a user chooses how Ray is protected."""
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}


@dataclass(frozen=True)
class Cluster:
    """The Ray, on one machine or several, to which this process is connected."""

    address: str
    nodes: int
    cpus: float
    """CPUs of all nodes together."""
    largest: float
    """CPUs of the largest node: the most that one task can request."""
    gpus: float
    """GPUs of the node that has the most of them."""


@contextmanager
def connect(
    address: str | None, *, cpus: int | None, shared: Path | None = None
) -> Iterator[Cluster]:
    """Connect to Ray, and disconnect at the end; a Ray that was started here ends with it.

    Args:
        address: `HOST:PORT` of a cluster's head, or None to start Ray on this machine alone, on the
            cores that this process may use, closed to other processes.
        cpus: number of CPUs that the work needs in all; None if any number will do.
        shared: a folder that processes on all nodes must find under this same path.

    Raises:
        ScaleError: Ray is not installed, this process is connected already, no cluster answers
            (within 15 s), there are too few CPUs, or a node runs another noisynet or does not see
            `shared`.
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
        nodes = [node["Resources"] for node in alive_nodes(ray).values()]
        each = [node.get("CPU", 0.0) for node in nodes]
        cluster = Cluster(
            address or "this machine",
            len(nodes),
            cpus=sum(each),
            largest=max(each, default=0.0),
            gpus=max((node.get("GPU", 0.0) for node in nodes), default=0.0),
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
    # Without this, Ray sends usage reports, and prints a notice about them.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ten lines on standard output, in the middle of a table or of JSON; callers print their own.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while execu")
    if address is not None:
        # Each takes a second, and `_check_answers` has already found somebody there.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")
    try:
        import ray
    except ImportError as error:
        raise ScaleError(f"needs {error.name}: {install_command('ray')}") from None
    return ray


def _make_token() -> bool:
    """Make a secret for a Ray of this machine, which refuses whoever does not send it.

    Ray's ports are open to every network of the machine. By itself, Ray would keep a secret in the
    home folder, in a file that all users of the machine can read, and use it every time. If the
    user has chosen how Ray is protected, do nothing. Return whether a secret was made.
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
    """Make Ray read its token from the environment again."""
    # Ray has no public function for this. A version without these reads it at every start.
    with suppress(ImportError, AttributeError):
        inside = importlib.import_module("ray._raylet")
        inside.Config.initialize("")
        inside.AuthenticationTokenLoader.instance().reset_cache()


def _start(ray: Any, cpus: int | None) -> None:
    """Start Ray on this machine alone; it ends with this process."""
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
    """Delay a Ctrl-C to the end, since a starting Ray may lose it; a second one is not delayed."""
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
    """Raise ScaleError if no cluster is at the address; Ray itself would try for minutes."""
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
    # With TLS, only Ray itself knows how to ask.
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("0", "false", ""):
        _check_is_ray(address)


def _check_is_ray(address: str) -> None:
    """Raise ScaleError unless a head of Ray answers, and accepts this process."""
    try:
        import grpc
    except ImportError:  # it comes with Ray, which reports what is missing
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
                # Ray does not send its token to an explicit address unless told to.
                raise ScaleError(
                    f"--ray: {address} asks for Ray's token, got none: RAY_AUTH_MODE=token in the "
                    "environment sends it"
                ) from None
