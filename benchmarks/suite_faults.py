"""Disturb a suite in every way that its page names, and compare its table with a calm one's.

    python benchmarks/suite_faults.py --machine "…"       some minutes on two cores

Twelve short trials run twice: on a Ray of their own with nobody in the way, and on a cluster of two
nodes of one CPU where a worker is killed, then a node is taken away without grace, then the driver
is killed; the same command on what is left of the cluster brings it to its end. Writes both tables
and what was done under benchmarks/results/scale/suite_faults.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provenance import current_commit, machine_in_words
from suite_driver import Driver, Nodes, lives

RESULTS = Path(__file__).parent / "results" / "scale" / "suite_faults"
SUITE = """\
environments: [CartPole-v1, Chain-10]
variants:
  noise: {}
  epsilon: {exploration: epsilon, epsilon_end: 0.02, epsilon_steps: 5000}
seeds: 3
overrides: {steps: 10000, checkpoint_every: 1000, device: cpu}
evaluation: {episodes: 20, noise: [off, on]}
"""


def undisturbed(folder: Path) -> Driver:
    """Run the suite on a Ray of its own."""
    driver = Driver(folder, text=SUITE)
    if driver.end() != 0:
        raise SystemExit(driver.log.read_text())
    return driver


def disturbed(folder: Path, did: list[dict[str, Any]]) -> Driver:
    """Kill a worker, a node and the driver, and let the same command go on."""
    began = time.monotonic()

    def note(what: str, driver: Driver) -> None:
        did.append(
            {
                "what": what,
                "after_seconds": round(time.monotonic() - began, 1),
                "trials_done": len(driver.done()),
            }
        )

    with Nodes() as nodes:
        driver = Driver(folder, "--ray", nodes.address, text=SUITE)
        victim = driver.wait_until(lambda: next(driver.at_work(), None))
        os.kill(victim, signal.SIGKILL)
        note("kill -9 of a worker in the middle of a trial", driver)
        driver.wait_until(lambda: not lives(victim))
        before = len(driver.done())
        driver.wait_until(lambda: len(driver.done()) > before and len(driver.in_the_middle()) >= 2)
        nodes.remove_one()
        note("removal of a node while both nodes train", driver)
        before = len(driver.done())
        driver.wait_until(lambda: len(driver.done()) > before and driver.in_the_middle())
        driver.process.send_signal(signal.SIGKILL)
        driver.end()
        note("kill -9 of the driver", driver)
        driver = Driver(folder, "--ray", nodes.address, text=SUITE)
        if driver.end() != 0:
            raise SystemExit(driver.log.read_text())
        note("its end, after the same command was given again", driver)
    return driver


def retries(folder: Path) -> list[str]:
    """Give what the command said of trials that were tried again."""
    return [line for line in (folder / "log").read_text().splitlines() if "tried again" in line]


def table(record: dict[str, Any]) -> str:
    """Write what was done, and whether the tables are the same."""
    lines = ["| what was done | seconds after the start | trials done by then |", "|---|---|---|"]
    lines += [
        f"| {one['what']} | {one['after_seconds']:.0f} | {one['trials_done']} of 12 |"
        for one in record["did"]
    ]
    same = "is, byte for byte," if record["same_table"] else "is NOT"
    took = record["undisturbed_seconds"]
    lines += [
        "",
        f"The table of scores {same} that of the undisturbed suite, which took {took:.0f} s.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run both, compare and write."""
    parser = argparse.ArgumentParser(description="Does a disturbed suite end like a calm one?")
    parser.add_argument("--machine", default=machine_in_words(), help="in words")
    arguments = parser.parse_args()
    did: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        quiet, loud = Path(folder) / "undisturbed", Path(folder) / "disturbed"
        quiet.mkdir()
        loud.mkdir()
        began = time.monotonic()
        calm = undisturbed(quiet)
        took = time.monotonic() - began
        stormy = disturbed(loud, did)
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": current_commit(),
            "machine": arguments.machine,
            "undisturbed_seconds": round(took, 1),
            "did": did,
            "tried_again": retries(loud),
            "same_table": calm.scores() == stormy.scores(),
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "suite.yaml").write_text(SUITE)
        for name, driver in (("undisturbed", calm), ("disturbed", stormy)):
            shutil.copy(driver.out / "scores.csv", RESULTS / f"{name}.csv")
    (RESULTS / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "table.md").write_text(table(record))
    print(table(record))
    if not record["same_table"]:
        raise SystemExit("the tables differ")


if __name__ == "__main__":
    main()
