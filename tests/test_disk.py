"""A file is replaced whole or left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from noisynet.disk import replacing, write_file


def test_a_file_is_replaced_once_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "page.html"
    for content in ("one", "two"):
        with replacing(file) as unfinished:
            unfinished.write_text(content)
            assert not file.exists() or file.read_text() == "one"
        assert file.read_text() == content
    assert list(file.parent.iterdir()) == [file]


def test_after_an_error_a_file_is_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("before")

    def write() -> None:
        with replacing(file) as unfinished:
            unfinished.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_file_takes_no_others_place(tmp_path: Path) -> None:
    write_file(tmp_path / "new", b"content")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "new", b"other")
    assert (tmp_path / "new").read_bytes() == b"content"
