"""`noisynet suite` in a process that can be watched and killed, and a cluster that loses nodes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from noisynet.runs import checkpoint
from noisynet.suite.task import RESULT

PATIENCE = 1500.0
"""Seconds after which a command counts as hung."""


class Driver:
    """The command `noisynet suite` in a folder: its output goes to `log`, its trials to `out`."""

    def __init__(self, folder: Path, *options: str, text: str) -> None:
        """Write the suite and start the command."""
        self.out = folder / "out"
        self._steps = int(yaml.safe_load(text)["overrides"]["steps"])
        (folder / "suite.yaml").write_text(text)
        self.log = folder / "log"
        command = [sys.executable, "-m", "noisynet", "suite", str(folder / "suite.yaml")]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--out", str(self.out), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def wait_until(self, what: Callable[[], Any]) -> Any:
        """Call `what` until its result is true, and return that; the command must stay alive."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := what():
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)
        raise AssertionError(self.log.read_text())

    def done(self) -> list[str]:
        """Return the names of the trials that are done."""
        return sorted(run.parent.name for run in self.out.glob(f"runs/*/{RESULT}"))

    def in_the_middle(self) -> list[Path]:
        """Return the trials that train and have a checkpoint, once another trial is done."""
        if not self.done():
            return []
        steps = {run: checkpoint.newest_step(run / "checkpoints") for run in self._running()}
        return [run for run, step in steps.items() if step is not None and step < self._steps]

    def _running(self) -> list[Path]:
        return [run for run in self.out.glob("runs/*") if not (run / RESULT).exists()]

    def at_work(self) -> Iterator[int]:
        """Yield the living processes that are in the middle of training a run."""
        for run in self.in_the_middle():
            found = re.match(r"process (\d+)", (run / "run.lock").read_text())
            if found is not None and lives(int(found[1])):
                yield int(found[1])

    def end(self) -> int:
        """Wait for the command to end; return its exit status."""
        return self.process.wait(PATIENCE)

    def scores(self) -> str:
        """Return the table of scores."""
        return (self.out / "scores.csv").read_text()


NODES = """
import sys
from ray.cluster_utils import Cluster

quiet = {"include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""


class Nodes:
    """A cluster on this machine: a head without CPUs, and two nodes with one each."""

    def __init__(self) -> None:
        """Start the cluster and read its address."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self.address = self._from.readline().strip()

    def remove_one(self) -> None:
        """Remove one node, without grace."""
        self._to.write("remove\n")
        self._to.flush()
        assert self._from.readline() == "removed\n"

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self._to.close()
        self._from.close()
        self._process.wait(120)


def descendants(process: int) -> list[int]:
    """Return the descendants of a process."""
    found: list[int] = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and _parent(place) == process:
            found += [int(place.name), *descendants(int(place.name))]
    return found


def _parent(place: Path) -> int | None:
    try:
        return int((place / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def lives(process: int) -> bool:
    """Return whether a process is alive, and not a zombie."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
