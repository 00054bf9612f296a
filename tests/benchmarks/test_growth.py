"""The benchmarks of growth and of training on a GPU measure what they say."""

from itertools import pairwise

import pytest
from benchmarks.gpu import paths as gpu_paths
from benchmarks.gpu import training as gpu_training
from benchmarks.training import growth


def test_costs_take_turns_and_medians_are_returned() -> None:
    calls: list[str] = []
    costs = {name: lambda name=name: calls.append(name) for name in ("one", "other")}
    found = growth.take_turns(costs, seconds=0.0)
    assert set(found) == {"one", "other"}
    assert all(milliseconds > 0 for milliseconds in found.values())
    assert calls[4:] == ["one", "other"] * (len(calls) // 2 - 2)
    assert len(calls) >= 10  # two rounds of practice, three that count


def test_a_run_s_length_is_cut_into_parts_from_when_the_replay_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {
        **growth.LENGTH, "replay_capacity": 600, "warmup_steps": 100, "log_every": 2,
        "steps": 4_000,
    }  # fmt: skip
    monkeypatch.setattr(growth, "LENGTH", small)
    found = growth.measure_length(threads=1, seconds=240.0)
    parts = found["parts"]
    assert len(parts) == growth.PARTS
    assert parts[0]["from_step"] >= 600
    assert all(before["to_step"] == after["from_step"] for before, after in pairwise(parts))
    assert parts[-1]["to_step"] <= 4_000 + small["environments"]
    assert all(part["steps_per_second"] > 0 and part["own_mb"] > 10 for part in parts)


def test_a_filled_replay_can_be_sampled_up_to_its_capacity() -> None:
    replay = growth.filled_replay(400, None)
    assert len(replay) == 400
    assert replay.can_sample(3)


def test_tables_hold_what_was_measured() -> None:
    told = {"commit": "abc", "date": "2026-01-01", "machine": "a machine"}
    parts = {
        "length": {
            "parts": [{"from_step": 20_000, "steps_per_second": 812.5}],
            "last_by_first_third": 0.987,
            "own_mb_grown": 1.25,
            **told,
        },
        "batch": {"rows": [{"batch": 32, "update_ms": 12.3456}], **told},
    }
    table = growth.markdown({"parts": parts})
    assert "| 20,000 | 812.5 |" in table
    assert "relative to the first: 0.987." in table
    assert "| 32 | 12.346 |" in table
    row = {"path": "plain", "steps_per_second": 1234.5, "parts": {"acting": 0.25}}
    failed = {"graph": "RuntimeError: no"}
    parts = {"training": {"rows": [row], "failed": failed, **told}}
    table = gpu_training.markdown({"parts": parts})
    assert "| plain | 1,234 | acting 25% |" in table
    assert "graph failed: RuntimeError: no" in table


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("pong: plain, replay on the host", marks=pytest.mark.slow),
        "pong: graph, replay on the device",
        "pqn-pong: graph",
    ],
)
def test_a_path_is_trained_along_and_taken_apart(name: str) -> None:
    pytest.importorskip("ale_py", reason="Atari is an extra")
    told = gpu_paths.run_path(name, "cpu", 1, 0.5, brief=True)
    assert "failed" not in told, told
    # One update for 4 steps; figures come at whole updates.
    updates = told["steps_per_second"] / 4
    parts = {"environment", "acting", "learning", "storing", "sampling"}
    if name.startswith("pqn"):
        # 4 epochs of 2 minibatches for 8 steps of 4 environments, in rollouts.
        parts -= {"storing", "sampling"}
    assert told["updates_per_second"] == pytest.approx(updates, rel=0.25)
    assert parts <= set(told["parts"])
    assert all(share > 0 for part, share in told["parts"].items() if part in parts)


def test_a_path_that_fails_says_why() -> None:
    told = gpu_paths.run_path("pong: plain, replay on the host", "cuda:99", 1, 0.5, brief=True)
    assert "cuda:99" in told["failed"]
