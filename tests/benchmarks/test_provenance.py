import subprocess
from pathlib import Path

import pytest
from benchmarks import provenance


def test_a_result_that_was_written_since_does_not_make_the_code_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several parts write into the same file in turns: each names the commit that it ran."""
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    monkeypatch.setattr(provenance, "RESULTS", results)
    assert provenance.current_commit() == "unknown", "not a repository"
    code = tmp_path / "layer.py"
    code.write_text("1")
    (results / "one.json").write_text("1")
    for arguments in (["init"], ["add", "."], ["commit", "--message", "one"]):
        identity = ["-c", "user.name=one", "-c", "user.email=one@example.org"]
        subprocess.run(["git", *identity, *arguments], check=True, cwd=tmp_path)
    commit = provenance.current_commit()
    assert int(commit, 16) > 0

    (results / "one.json").write_text("2")
    assert provenance.current_commit() == commit
    code.write_text("2")
    assert provenance.current_commit() == f"{commit}-dirty"
