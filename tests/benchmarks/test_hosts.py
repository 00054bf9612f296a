"""The tables of other libraries' agents are those of the kept results."""

import itertools
import json
import statistics
from typing import Any

import pytest
from benchmarks.hosts import peer_suites as suites
from benchmarks.hosts import run, tables


@pytest.mark.parametrize("host", run.HOSTS)
def test_a_page_shows_what_was_measured(host: str) -> None:
    kept = run.FOLDER / f"{host}.json"
    assert kept.with_suffix(".md").read_text() == tables.tables(json.loads(kept.read_text()))


def test_the_page_shows_what_other_horizons_did_to_tianshou() -> None:
    pytest.importorskip("tianshou", reason="needs noisynet[tianshou]")
    from benchmarks.hosts import tianshou_horizons as horizons

    kept = horizons.KEPT
    assert kept.with_suffix(".md").read_text() == horizons.tables(json.loads(kept.read_text()))


def test_the_page_says_what_tianshou_s_agents_reached_with_and_without_noise() -> None:
    runs = json.loads((run.FOLDER / "tianshou_horizons.json").read_text())["cartpole"]
    page = " ".join((run.RESULTS.parents[1] / "docs" / "tianshou.md").read_text().split())
    best = max(one["mean_return"] for one in runs)
    assert f"no run of either algorithm got beyond {best:.0f} in 40,000 steps" in page
    means = {
        key: statistics.fmean(one["mean_return"] for one in group)
        for key, group in itertools.groupby(
            runs, lambda one: (one["agent"], one["algorithm"], one["horizon"])
        )
    }
    pairs = [key[1:] for key in means if key[0] == "host"]
    higher = [key for key in pairs if means["noisy", *key] > means["host", *key]]
    assert (len(pairs), len(higher)) == (4, 3)
    assert "In three of the four pairs the mean is higher with noise" in page


def test_a_result_is_kept_beside_the_others(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    kept = json.loads((run.RESULTS / "hosts" / "sb3.json").read_text())
    for algorithm in reversed(kept["learning"]):
        run.keep("sb3", "learning", algorithm, kept["learning"][algorithm])
    for algorithm in kept["overhead"]:
        run.keep("sb3", "overhead", algorithm, kept["overhead"][algorithm])
    assert json.loads((tmp_path / "sb3.json").read_text()) == kept
    written = (tmp_path / "sb3.md").read_text()
    assert written == (run.RESULTS / "hosts" / "sb3.md").read_text()


def test_the_page_on_peers_shows_what_their_suites_did() -> None:
    kept = json.loads(suites.KEPT.read_text())
    assert kept
    assert list(kept) == [name for name in suites.SUITES if name in kept]
    assert suites.KEPT.with_suffix(".md").read_text() == suites.table(kept)
    for one in kept.values():
        failed = [name for tests in one["failures"].values() for name in tests]
        assert len(failed) == one["counts"]["failed"]
        assert suites.UNEXPLAINED not in one["failures"]
