"""What is kept of runs and suites on Ray holds together."""

import csv
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is an extra")

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "scale"

scale: Any = importlib.import_module("scale")
suite_faults: Any = importlib.import_module("suite_faults")


def test_the_disturbed_suite_has_the_table_of_the_calm_one() -> None:
    kept = RESULTS / "suite_faults"
    record = json.loads((kept / "record.json").read_text())
    calm, stormy = ((kept / f"{name}.csv").read_text() for name in ("undisturbed", "disturbed"))
    assert record["same_table"] is True
    assert calm == stormy
    assert (kept / "table.md").read_text() == suite_faults.table(record)
    assert (kept / "suite.yaml").read_text() == suite_faults.SUITE
    # Two tasks; noise with its mean weights and with noise on, and its rival; three seeds each.
    assert [row["runs"] for row in csv.DictReader(calm.splitlines())] == ["3"] * 6
    what = " ".join(one["what"] for one in record["did"])
    assert "worker" in what
    assert "node" in what
    assert "driver" in what
    assert len(record["tried_again"]) >= 2


def test_the_table_of_samplers_is_that_of_its_figures() -> None:
    record = json.loads((RESULTS / "scale.json").read_text())
    assert (RESULTS / "table.md").read_text() == scale.table(record["results"])
    for rows in record["results"].values():
        assert {"one process", "in-process", "ray, 1", "ray, 2"} <= set(rows)
