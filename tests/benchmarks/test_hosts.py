"""The tables of other frameworks' agents are those of the measured files."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

host_tables: Any = importlib.import_module("host_tables")


@pytest.mark.parametrize("host", ["sb3", "tianshou", "torchrl", "rllib"])
def test_a_page_shows_what_was_measured(host: str, tmp_path: Path) -> None:
    results = BENCHMARKS / "results" / "hosts"
    for path in results.glob(f"{host}-*.json"):
        shutil.copy(path, tmp_path)
    host_tables.write_tables(tmp_path, host)
    assert (tmp_path / f"{host}.md").read_text() == (results / f"{host}.md").read_text()
