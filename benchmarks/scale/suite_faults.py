"""Disturb a suite in every way that its page names, and compare its scores with undisturbed ones.

    python -m benchmarks.scale.suite_faults --machine "…"       some minutes on two cores

Twelve short trials run twice: undisturbed on a Ray of their own, and on a cluster of two nodes with
one CPU each, where a worker is killed, then a node is removed without grace, then the driver is
killed; the same command finishes the suite on the rest of the cluster. Writes what was done, and
both tables of scores, to results/scale/suite_faults.json and .md.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from ..provenance import RESULTS, machine_in_words, provenance, write_json
from ..tables import markdown_table
from .suite_driver import Driver, Nodes, lives

FILE = RESULTS / "scale" / "suite_faults.json"
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
    """Run the suite undisturbed, on its own Ray."""
    driver = Driver(folder, text=SUITE)
    if driver.end() != 0:
        raise SystemExit(driver.log.read_text())
    return driver


def disturbed(folder: Path, did: list[dict[str, Any]]) -> Driver:
    """Kill a worker, a node and the driver, and finish with the same command."""
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
        note("end of the suite, after the same command was given again", driver)
    return driver


def retries(folder: Path) -> list[str]:
    """Return the command's lines about trials that were tried again."""
    return [line for line in (folder / "log").read_text().splitlines() if "tried again" in line]


def table(record: dict[str, Any]) -> str:
    """Return what was done as a table, and whether the scores are the same."""
    rows = [
        [one["what"], f"{one['after_seconds']:.0f}", f"{one['trials_done']} of 12"]
        for one in record["did"]
    ]
    heads = ("event", "seconds after the start", "trials done by then")
    lines = markdown_table(heads, rows)
    same = "is, byte for byte," if record["same_table"] else "is NOT"
    took = record["undisturbed_seconds"]
    lines += [
        "",
        f"The table of scores {same} that of the undisturbed suite, which took {took:.0f} s.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run both, compare and write."""
    parser = argparse.ArgumentParser(
        description="Does a disturbed suite end like an undisturbed one?"
    )
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
            **provenance(arguments.machine),
            "undisturbed_seconds": round(took, 1),
            "did": did,
            "tried_again": retries(loud),
            "same_table": calm.scores() == stormy.scores(),
            "suite": SUITE,
            "scores": {
                name: driver.scores().splitlines()
                for name, driver in (("undisturbed", calm), ("disturbed", stormy))
            },
        }
    write_json(FILE, record)
    FILE.with_suffix(".md").write_text(table(record))
    print(table(record))
    if not record["same_table"]:
        raise SystemExit("the scores differ")


if __name__ == "__main__":
    main()
