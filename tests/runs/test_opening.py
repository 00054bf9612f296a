"""Opening a run: what it gives, and one line for each way in which a folder can be damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisynet.runs import MetricsWriter, NewerFormat, RunError, RunFolder, checkpoint, open_run
from noisynet.runs import config as run_config
from noisynet.runs.checkpoint import DamagedCheckpoint

CHOSEN = run_config.load("cartpole", {"steps": 300})
STATE = {
    "elapsed": 1.5,
    "metrics_bytes": 0,
    "agent": {"updates": 3},
    "loop": {"step": 7, "games": 1, "returns": [7.0]},
    "config": CHOSEN.by_section(),
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A run of one line of metrics and one checkpoint."""
    path = tmp_path / "run"
    with RunFolder.create(path, CHOSEN.to_yaml()) as folder:
        with MetricsWriter(path) as metrics:
            metrics.write(7, {"loss": 0.5})
        checkpoint.write(folder.checkpoints, 7, {"a": np.arange(3)}, STATE)
    return path


def test_an_open_run_gives_config_metrics_and_checkpoint(made: Path) -> None:
    run = open_run(str(made))
    assert run.path == made
    assert run.config == CHOSEN
    assert list(run.metrics()) == [{"step": 7, "loss": 0.5}]
    found = run.newest_checkpoint()
    assert found is not None
    assert (found.step, found.arrays["a"].tolist()) == (7, [0, 1, 2])
    assert run.trained().state == STATE


def test_a_run_can_be_read_while_it_is_written(made: Path) -> None:
    with RunFolder.open(made).lock():
        run = open_run(made)
        assert not run.folder.locked
        assert run.trained().step == 7
        with pytest.raises(RunError, match="in use by process"):
            run.folder.lock()
    with run.folder.lock():
        assert run.folder.locked


def test_a_run_without_a_checkpoint_is_one_line_where_one_is_needed(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CHOSEN.to_yaml()).close()
    run = open_run(tmp_path / "run")
    assert run.newest_checkpoint() is None
    with pytest.raises(RunError, match=r"run: no checkpoint yet$"):
        run.trained()


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content)


DAMAGES: list[tuple[Callable[[Path], object], type[RunError], str]] = [
    (lambda run: (run / "config.yaml").unlink(), RunError, "run: not a run: it holds no config"),
    (_write("config.yaml", b"format: 1\na: ["), RunError, "config.yaml: damaged: line 2: "),
    (_write("config.yaml", b"format: 1\npreset: a\n"), RunError, "config.yaml: --environment: "),
    (_write("config.yaml", b"format: 2\n"), NewerFormat, "config.yaml: format 2 .* newer noisynet"),
    (_write("config.yaml", b"steps: 3\n"), RunError, "config.yaml: not a run's config: "),
]


@pytest.mark.parametrize(("damage", "kind", "message"), DAMAGES)
def test_each_damage_of_a_folder_is_one_line(
    made: Path, damage: Callable[[Path], object], kind: type[RunError], message: str
) -> None:
    damage(made)
    with pytest.raises(kind, match=message) as caught:
        open_run(made)
    assert str(caught.value).startswith(str(made))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"missing: no such folder$"):
        open_run(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"this is a file$"):
        open_run(tmp_path / "file")


def test_a_damaged_checkpoint_does_not_keep_a_run_from_being_opened(made: Path) -> None:
    newest = checkpoint.newest(made / "checkpoints")
    assert newest is not None
    (newest / "state.json").write_text("{")
    run = open_run(made)
    for read in (run.newest_checkpoint, run.trained):
        with pytest.raises(DamagedCheckpoint, match="damaged: not JSON"):
            read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elapsed": "x"}, r"state\.elapsed: got 'x', expected a valid number"),
        ({"elapsed": float("inf")}, r"state\.elapsed: got inf, expected a finite number"),
        ({"metrics_bytes": -1}, r"state\.metrics_bytes: got -1, expected greater than"),
        ({"metrics_bytes": True}, r"state\.metrics_bytes: got True, expected a valid integer"),
        ({"agent": []}, r"state\.agent: got \[\], expected a valid dictionary$"),
        ({"agent": {}}, r"state\.agent\.updates is missing"),
        ({"loop": {"step": 7, "games": 1}}, r"state\.loop\.returns is missing"),
        ({"loop": "x" * 10_000}, r"state\.loop: got 'xx[x.]*'?…?, expected a valid dictionary"),
        ({"replay": 5}, r"state\.replay: got 5, expected a valid dictionary"),
    ],
)
def test_a_checkpoint_that_lacks_what_a_run_needs_is_one_line(
    made: Path, change: dict[str, Any], message: str
) -> None:
    checkpoint.write(made / "checkpoints", 7, {}, {**STATE, **change})
    with pytest.raises(DamagedCheckpoint, match=message) as caught:
        open_run(made).trained()
    assert len(str(caught.value).removeprefix(str(made))) < 250


def _edit(run: Path, **fields: Any) -> None:
    text = CHOSEN.replaced(**fields).to_yaml()
    (run / "config.yaml").write_text(f"format: 1\n{text}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"noise_kind": "independent"},
            "noise_kind was 'factorised', is 'independent': set it back",
        ),
        ({"optimizer": "rmsprop"}, "optimizer was 'adam', is 'rmsprop'"),
        ({"prioritised": True}, "prioritised was False, is True"),
        (
            {"replay_capacity": 777, "steps": 9},
            r"step 7: replay_capacity was \d+, is 777: set it back",
        ),
        ({"update_every": 9, "environments": 3}, "environments was 8, is 3; update_every was "),
    ],
)
def test_a_config_changed_where_it_may_not_be_is_refused(
    made: Path, fields: dict[str, Any], message: str
) -> None:
    _edit(made, **fields)
    with pytest.raises(RunError, match=rf"config\.yaml: does not fit .*{message}"):
        open_run(made).trained()


STRETCHED = (
    "the schedule of final_learning_rate ends at the last step: from now on it is that of a run of "
    "900 steps, not of 300 as before"
)


def test_a_config_changed_where_it_may_be_is_noted(made: Path) -> None:
    # rmsprop_centred does nothing beside Adam, and may as well be anything.
    _edit(made, steps=900, learning_rate=0.5, rmsprop_centred=False)
    run = open_run(made)
    assert run.notes(run.trained()) == [
        f"since the checkpoint: learning_rate was {CHOSEN.learning.learning_rate}, is 0.5",
        "since the checkpoint: steps was 300, is 900",
        STRETCHED,
    ]


def _former(run: Path, **gone: float | None) -> None:
    """Write the checkpoint as former versions did, whose updates could become fewer."""
    schedule = {"thinned_from": None, "recent_returns": []}
    learning = STATE["config"]["learning"] | gone
    state = {
        **STATE,
        "loop": STATE["loop"] | {"schedule": schedule},
        "config": STATE["config"] | {"learning": learning},
    }
    checkpoint.write(run / "checkpoints", 7, {}, state)


def test_a_run_of_before_fields_had_gone_is_read(made: Path) -> None:
    _former(made, final_update_every=None, final_update_return=None)
    text = CHOSEN.to_yaml()
    gone = "learning:\n  final_update_every: null\n  final_update_return: null\n"
    assert text.count("learning:\n") == 1
    (made / "config.yaml").write_text("format: 1\n" + text.replace("learning:\n", gone))
    run = open_run(made)
    assert run.config == CHOSEN
    assert run.notes(run.trained()) == []


def test_a_run_whose_updates_became_fewer_does_not_go_on_without_a_word(made: Path) -> None:
    # As after removing from config.yaml what is told to be gone.
    _former(made, final_update_every=32, final_update_return=17.0)
    said = r"every was 32, is gone; final_update_return was 17\.0, is gone"
    with pytest.raises(RunError, match=f"does not fit .*: final_update_{said}"):
        open_run(made).trained()


def test_a_checkpoint_of_before_it_held_its_config_is_read(made: Path) -> None:
    older = {key: value for key, value in STATE.items() if key != "config"}
    checkpoint.write(made / "checkpoints", 7, {}, older)
    _edit(made, noise_kind="independent")
    run = open_run(made)
    assert run.notes(run.trained()) == []
