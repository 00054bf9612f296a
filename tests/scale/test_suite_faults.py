"""Suites that are killed in the middle come to the table of one that nobody disturbed.

Real processes throughout: a driver of its own, Ray, and workers. The undisturbed table is that of
the same trials in this process, one after the other.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is an extra")

from noisynet.runs import checkpoint
from noisynet.scale.runner import order_for
from noisynet.scale.suite import Plan, plan
from noisynet.scale.suite_scores import suite_scores, to_csv
from noisynet.scale.trial_run import RESULT, result_of, run_trial

SUITE = """
environments: [CartPole-v1, Chain-6]
variants:
  noise: {}
  epsilon: {exploration: epsilon, epsilon_steps: 200}
seeds: 3
overrides:
  {steps: 600, warmup_steps: 100, batch_size: 16, replay_capacity: 600, checkpoint_every: 100,
   log_every: 20, device: cpu}
evaluation: {episodes: 4, noise: [off, on]}
"""
PATIENCE = 1500.0
"""Seconds: only to end a test that hangs."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    found = planned(folder)
    results: dict[str, Any] = {}
    for trial in found.trials:
        order = order_for(trial, found.suite, folder / "out")
        assert run_trial(order) == {"state": "done"}
        results[trial.name] = result_of(order)
    trials = {trial.name: trial for trial in found.trials}
    return to_csv(suite_scores(trials, results)["games"])


def planned(folder: Path) -> Plan:
    (folder / "suite.yaml").write_text(SUITE)
    return plan(str(folder / "suite.yaml"), folder / "out")


class Driver:
    """A `noisynet suite` in a process of its own."""

    def __init__(self, folder: Path, *options: str, text: str = SUITE) -> None:
        self.out = folder / "out"
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
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := what():
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)
        raise AssertionError(self.log.read_text())

    def in_the_middle(self) -> list[Path]:
        """List the trials that run and have a checkpoint, once another is done."""
        if not list(self.out.glob(f"runs/*/{RESULT}")):
            return []
        return [
            run
            for run in self.out.glob("runs/*")
            if not (run / RESULT).exists() and checkpoint.newest(run / "checkpoints") is not None
        ]

    def at_work(self) -> Iterator[int]:
        """Name the living processes that train in the middle of a run."""
        for run in self.in_the_middle():
            found = re.match(r"process (\d+)", (run / "run.lock").read_text())
            if found is not None and lives(int(found[1])):
                yield int(found[1])

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def scores(self) -> str:
        return (self.out / "scores.csv").read_text()


def descendants(process: int) -> list[int]:
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
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def test_a_driver_that_is_killed(undisturbed: str, tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.wait_until(driver.in_the_middle)
    children = descendants(driver.process.pid)
    driver.process.send_signal(signal.SIGKILL)
    assert driver.end() == -signal.SIGKILL
    done = {run.parent.name: run.stat().st_mtime_ns for run in driver.out.glob(f"runs/*/{RESULT}")}
    assert 0 < len(done) < 12
    again = Driver(tmp_path)
    assert again.end() == 0, again.log.read_text()
    assert again.scores() == undisturbed
    # What was done was left alone, and nothing of the killed one stays behind.
    for name, written in done.items():
        assert (again.out / "runs" / name / RESULT).stat().st_mtime_ns == written
    end = time.monotonic() + 180
    while any(map(lives, children)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(map(lives, children))
    page = (again.out / "report.html").read_text()
    assert "Scores: mean returns of the evaluation" in page
    summary = json.loads((again.out / "summary.json").read_text())
    assert (summary["trials"], summary["done"], summary["failed"]) == (12, 12, {})


@pytest.mark.slow
def test_an_interrupt_saves_what_runs(undisturbed: str, tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.wait_until(driver.in_the_middle)
    driver.process.send_signal(signal.SIGINT)
    assert driver.end() == 130
    assert "The same command goes on" in driver.log.read_text()
    assert not (driver.out / "scores.csv").exists()
    again = Driver(tmp_path)
    assert again.end() == 0, again.log.read_text()
    assert again.scores() == undisturbed


@pytest.mark.slow
def test_workers_that_are_killed_and_a_trial_that_is_hopeless(
    undisturbed: str, tmp_path: Path
) -> None:
    hopeless = SUITE.replace("seeds:", "  hopeless: {learning_rate: 1.0e30}\nseeds:")
    driver = Driver(tmp_path, text=hopeless)
    for _ in range(2):
        victim = driver.wait_until(lambda: next(driver.at_work(), None))
        os.kill(victim, signal.SIGKILL)
        driver.wait_until(lambda pid=victim: not lives(pid))
    assert driver.end() == 1
    log = driver.log.read_text()
    assert "tried again from step" in log
    assert "its process died" in log
    summary = json.loads((driver.out / "summary.json").read_text())
    assert (summary["done"], len(summary["failed"])) == (12, 6)
    assert all("training stopped" in reason for reason in summary["failed"].values())
    assert driver.scores() == undisturbed


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


@pytest.mark.slow
def test_a_node_that_is_lost(undisturbed: str, tmp_path: Path) -> None:
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    try:
        address = nodes.stdout.readline().strip()
        driver = Driver(tmp_path, "--ray", address)
        driver.wait_until(lambda: len(driver.in_the_middle()) >= 2)
        nodes.stdin.write("remove\n")
        nodes.stdin.flush()
        assert nodes.stdout.readline() == "removed\n"
        assert driver.end() == 0, driver.log.read_text()
        log = driver.log.read_text()
        assert "3 nodes, 2 CPUs" in log
        assert "tried again from step" in log
        assert driver.scores() == undisturbed
    finally:
        nodes.stdin.close()
        nodes.stdout.close()
        nodes.wait(120)
