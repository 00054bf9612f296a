"""A file is replaced whole or left as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from noisynet.disk import open_regular, read_file, replace_file, replacing, write_file


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


def test_a_link_that_waits_in_the_folder_is_not_written_through(tmp_path: Path) -> None:
    theirs, folder = tmp_path / "thesis.txt", tmp_path / "received"
    theirs.write_text("years of work")
    folder.mkdir()
    for name in (".unfinished-page.html", "page.html"):
        (folder / name).symlink_to(theirs)
    replace_file(folder / "page.html", b"page")
    assert theirs.read_text() == "years of work"
    assert not (folder / "page.html").is_symlink()
    assert (folder / "page.html").read_bytes() == b"page"
    with replacing(folder / "page.html") as one, replacing(folder / "page.html") as other:
        assert one.name != other.name
    with pytest.raises(OSError, match="it is a link"):
        open_regular(folder / ".unfinished-page.html", os.O_RDWR)
    assert read_file(folder / ".unfinished-page.html") == b"years of work"


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="it is no regular file"):
            read_file(place)
