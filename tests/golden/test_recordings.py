"""Recordings: which is that of a machine, and what becomes of the others."""

from __future__ import annotations

from .recordings import machine, recorded, with_recording

HERE = {"processor": "a", "flags": "1", "torch": "2"}
OTHER = {"processor": "b", "torch": "2"}
OTHERS = [{"machine": OTHER, "hashes": {"run": "old", "kept": "x"}}]


def test_a_recording_counts_where_all_that_it_names_is_the_same() -> None:
    assert recorded(OTHERS, "run", {**OTHER, "flags": "7"}) == "old"
    assert recorded(OTHERS, "run", {**OTHER, "torch": "3"}) is None
    assert recorded(OTHERS, "unknown", OTHER) is None


def test_a_recording_beside_others_leaves_them() -> None:
    both = with_recording(OTHERS, {"run": "new"}, HERE, beside=True)
    assert [recorded(both, "run", where) for where in (OTHER, HERE)] == ["old", "new"]
    again = with_recording(both, {"run": "newer"}, HERE, beside=True)
    assert recorded(again, "run", HERE) == "newer"
    assert len(again) == 2


def test_after_a_change_the_names_recorded_anew_leave_other_machines() -> None:
    changed = with_recording(OTHERS, {"run": "new"}, HERE, beside=False)
    assert recorded(changed, "run", OTHER) is None
    assert recorded(changed, "kept", OTHER) == "x"


def test_a_machine_is_the_same_twice() -> None:
    assert machine() == machine()
    assert machine().items() <= machine("numpy").items()
