"""The command that installs an extra works for a clone, a wheel, a repository and an index."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from noisynet import extras
from noisynet.extras import install_command

CLONE = Path(__file__).parents[1]


def test_a_clone_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "__file__", str(CLONE / "src" / "noisynet" / "extras.py"))
    monkeypatch.chdir(CLONE)
    assert install_command("sb3") == "pip install '.[sb3]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("sb3") == f"pip install '{CLONE}[sb3]'"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "noisynet[sb3]"),
        (
            {"url": "file:///tmp/noisynet-0.1.0-py3-none-any.whl", "archive_info": {}},
            "noisynet[sb3] @ file:///tmp/noisynet-0.1.0-py3-none-any.whl",
        ),
        (
            {"url": "https://a.example/n.git", "vcs_info": {"vcs": "git", "commit_id": "1a2b"}},
            "noisynet[sb3] @ git+https://a.example/n.git@1a2b",
        ),
    ],
)
def test_what_was_installed_is_named_by_where_it_came_from(
    origin: object, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "a" / "noisynet" / "extras.py"))
    text = None if origin is None else json.dumps(origin)
    monkeypatch.setattr(
        metadata, "distribution", lambda _: SimpleNamespace(read_text=lambda _: text)
    )
    assert install_command("sb3") == f"pip install '{expected}'"
