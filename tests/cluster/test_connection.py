"""Connecting to Ray: what is wrong is said plainly, and soon."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import noisynet
from noisynet.cluster.connection import connect
from noisynet.cluster.errors import ScaleError
from noisynet.extras import install_command


def refused(address: str | None, cpus: int | None = None) -> str:
    with pytest.raises(ScaleError) as caught, connect(address, cpus=cpus):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def silent() -> Iterator[str]:
    """Listen, take connections and say nothing."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for one in taken:
        one.close()


def test_nobody_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    said = refused(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 15
    assert f"--ray: no cluster at 127.0.0.1:{port}: Connection refused" in said


def test_somebody_else_at_the_address(silent: str) -> None:
    pytest.importorskip("grpc", reason="it comes with Ray")
    said = refused(silent)
    assert f"what answers at {silent} is no Ray cluster" in said


@pytest.mark.parametrize("address", ["here", "host:", ":6379", "host:port", "ray://head:10001"])
def test_no_address_at_all(address: str) -> None:
    assert f"got {address!r}, expected HOST:PORT" in refused(address)


def test_too_few_cpus_here() -> None:
    pytest.importorskip("ray", reason="Ray is an extra")
    assert "expected at least 100000" in refused(None, cpus=100_000)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert f"needs ray: {install_command('ray')}" in refused(None)


@pytest.mark.slow
def test_a_node_with_another_noisynet_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra")
    other = tmp_path / "other"
    package = Path(noisynet.__file__).parent
    shutil.copytree(package, other / "noisynet", ignore=shutil.ignore_patterns("__pycache__"))
    start = other / "noisynet" / "__init__.py"
    start.write_text(start.read_text().replace(noisynet.__version__, "9.9.9"))
    # In a process of its own: Ray's cluster lives and dies with it.
    done = subprocess.run(
        [sys.executable, "-c", OTHER_VERSION, str(other), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert "has noisynet 9.9.9, expected " + noisynet.__version__ in done.stdout, done.stderr
    assert done.stdout.count("has noisynet") == 1


OTHER_VERSION = """
import os, sys
from pathlib import Path
from ray.cluster_utils import Cluster
from noisynet.cluster.connection import connect
from noisynet.cluster.errors import ScaleError

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
os.environ["PYTHONPATH"] = sys.argv[1]
cluster.add_node(num_cpus=1)
del os.environ["PYTHONPATH"]
try:
    with connect(cluster.address, cpus=2, shared=Path(sys.argv[2])):
        print("connected")
except ScaleError as error:
    print(error)
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_node_that_has_just_been_lost_does_not_count(tmp_path: Path) -> None:
    """For some seconds Ray still says that it is alive."""
    pytest.importorskip("ray", reason="Ray is an extra")
    done = subprocess.run(
        [sys.executable, "-c", JUST_LOST, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    # Ray says on its own, between the lines, that the node is dead.
    assert done.stdout.startswith("still counted: True\n"), done.stderr
    assert done.stdout.endswith("\nconnected: 2 nodes, 1 CPUs\n"), done.stderr


JUST_LOST = """
import sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from noisynet.cluster.connection import connect

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
lost, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
lost.kill_raylet(check_alive=False)
ray.init(address=cluster.address, log_to_driver=False)
print("still counted:", sum(node["Alive"] for node in ray.nodes()) == 3)
ray.shutdown()
with connect(cluster.address, cpus=1, shared=Path(sys.argv[1])) as found:
    print(f"connected: {found.nodes} nodes, {found.cpus:g} CPUs")
cluster.shutdown()
"""


def test_a_worker_that_dies_leaves_standard_output_alone() -> None:
    """Ray's ten lines about it would stand in the middle of a table, or of JSON."""
    pytest.importorskip("ray", reason="Ray is an extra")
    done = subprocess.run(
        [sys.executable, "-c", DYING], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout) == (0, "WorkerCrashedError\n"), done.stderr


DYING = """
import os, time
from noisynet.cluster.connection import connect

with connect(None, cpus=1):
    import ray

    @ray.remote(max_retries=0)
    def die():
        os._exit(7)

    try:
        ray.get(die.remote())
    except ray.exceptions.RayError as error:
        print(type(error).__name__)
    time.sleep(2)
"""


def test_a_ray_of_this_machine_answers_only_whoever_has_its_token(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra")
    ours = {name: value for name, value in os.environ.items() if "RAY_AUTH" not in name}

    def asked(**chosen: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", ASKING],
            env={**ours, "HOME": str(tmp_path), **chosen},
            capture_output=True,
            text=True,
            timeout=550,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    refused, answered = "UNAUTHENTICATED", "answered"
    each = [f"nothing {refused}", f"another {refused}", f"its own {answered}", "a worker's 7"]
    assert asked() == [*each, "left: []", *each, "left: []", "tokens: 2"]
    # No file that others can read holds it.
    assert not (tmp_path / ".ray").exists()
    each = [f"nothing {answered}", f"another {answered}", f"its own {answered}", "a worker's 7"]
    left = ["left: ['RAY_AUTH_MODE']"]
    assert asked(RAY_AUTH_MODE="disabled") == [*each, *left, *each, *left, "tokens: 1"]


ASKING = """
import os
import grpc
from noisynet.cluster.connection import connect

tokens = set()
for _ in range(2):
    with connect(None, cpus=1) as found:
        import ray

        address = ray.get_runtime_context().gcs_address
        tokens.add(os.environ.get("RAY_AUTH_TOKEN", ""))
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
            for name, token in {
                "nothing": None, "another": "0" * 64, "its own": os.environ.get("RAY_AUTH_TOKEN"),
            }.items():
                sent = [] if token is None else [("authorization", f"Bearer {token}")]
                try:
                    ask(b"", timeout=30, metadata=sent)
                    print(name, "answered")
                except grpc.RpcError as error:
                    print(name, error.code().name)
        print("a worker's", ray.get(ray.remote(lambda: 7).remote()))
    print("left:", [name for name in os.environ if "RAY_AUTH" in name])
print("tokens:", len(tokens))
"""
