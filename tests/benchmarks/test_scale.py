"""What is kept of runs and suites on Ray is consistent."""

import csv
import json

import pytest

pytest.importorskip("ray", reason="Ray is an extra")

from benchmarks.scale import samplers, suite_faults


def test_the_disturbed_suite_has_the_scores_of_the_undisturbed_one() -> None:
    record = json.loads(suite_faults.FILE.read_text())
    undisturbed, disturbed = (record["scores"][name] for name in ("undisturbed", "disturbed"))
    assert record["same_table"] is True
    assert undisturbed == disturbed
    assert suite_faults.FILE.with_suffix(".md").read_text() == suite_faults.table(record)
    assert record["suite"] == suite_faults.SUITE
    # Two tasks; noise with its mean weights and with noise on, and ε-greedy; three seeds each.
    assert [row["runs"] for row in csv.DictReader(undisturbed)] == ["3"] * 6
    what = " ".join(one["what"] for one in record["did"])
    assert "worker" in what
    assert "node" in what
    assert "driver" in what
    assert len(record["tried_again"]) >= 2


def test_the_table_of_samplers_is_that_of_its_figures() -> None:
    record = json.loads(samplers.FILE.read_text())
    assert samplers.FILE.with_suffix(".md").read_text() == samplers.table(record["results"])
    for rows in record["results"].values():
        assert {"one process", "in-process", "ray, 1", "ray, 2"} <= set(rows)
