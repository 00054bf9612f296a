"""A run notes the commit of the code that trains it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from noisynet.runs import provenance

ROOT = Path(__file__).resolve().parents[2]
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@needs_git
def test_the_commit_is_that_of_the_code(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert provenance._commit(package) is None  # no repository
    git(tmp_path, "init")
    assert provenance._commit(package) is None  # somebody else's repository
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert provenance._commit(package) == commit
    (package / "__init__.py").write_text("changed = True")
    assert provenance._commit(package) == f"{commit}-dirty"


@needs_git
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_what_a_run_is_made_with_names_it() -> None:
    head = git(ROOT, "rev-parse", "--short=12", "HEAD")
    assert provenance.provenance()["commit"].removesuffix("-dirty") == head


def test_versions_are_those_of_the_packages_unless_one_knows_better() -> None:
    found = provenance.provenance(torch="2.0+own")
    assert found["torch"] == "2.0+own"
    assert {"python", "processor", "noisynet", "numpy", "gymnasium"} <= found.keys()
    assert list(provenance.provenance()) == list(found)
