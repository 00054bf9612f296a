"""What a node is asked: run here, against this process's own noisynet and copies of it."""

import importlib.machinery
import importlib.util
import shutil
import socket
from pathlib import Path

import pytest

import noisynet
from noisynet.cluster.nodes import node_check

VERSION = noisynet.__version__
PACKAGE = Path(noisynet.__file__).parent
HERE = f"({socket.gethostname()})"


def test_a_node_with_the_same_code_is_right_where_it_sees_the_folder(tmp_path: Path) -> None:
    assert node_check()() is None
    assert node_check(tmp_path, tmp_path)() is None
    assert node_check(tmp_path / "mark", tmp_path)() == (
        f"{HERE} does not see {tmp_path}, expected a folder that all nodes share"
    )


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (None, "", "has no noisynet"),
        ("__init__.py", '__version__ = "9.9"\n', f"has noisynet 9.9, expected {VERSION}"),
        ("more.py", "", f"has noisynet {VERSION} with other code in it"),
        ("notes.txt", "", None),
    ],
)
def test_a_node_with_other_code_is_named(
    file: str | None,
    text: str,
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = node_check()
    origin = None
    if file is not None:
        copy = tmp_path / "noisynet"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / file).write_text(text)
        origin = importlib.machinery.ModuleSpec("noisynet", None, origin=str(copy / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: origin)
    assert check() == (None if said is None else f"{HERE} {said}")
