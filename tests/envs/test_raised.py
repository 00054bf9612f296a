"""Errors of a user's own code are told with file and line: theirs, not this package's."""

import json
from pathlib import Path

import pytest

from noisynet.envs import ChainEnvironments
from noisynet.envs.raised import raised

CODE = """
import json


def inner():
    raise KeyError("speed")


def outer():
    inner()


def through_the_library():
    json.loads("{")


def called_back(function):
    function()
"""


@pytest.fixture
def games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Code of a user, in a file of the current folder."""
    file = tmp_path / "games.py"
    file.write_text(CODE)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(CODE, str(file), "exec"), names)
    return names


def line_of(code: str) -> int:
    return next(number for number, line in enumerate(CODE.splitlines(), 1) if code in line)


def said(call: object, *arguments: object) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind
        call(*arguments)  # type: ignore[operator]
    return raised(caught.value)


def test_the_innermost_frame_is_named(games: dict[str, object]) -> None:
    place = f"games.py:{line_of('raise KeyError')}"
    assert said(games["outer"]) == f"KeyError: 'speed' ({place})"


def test_an_error_inside_a_library_is_told_where_the_user_called_it(
    games: dict[str, object],
) -> None:
    told = said(games["through_the_library"])
    assert told.startswith("JSONDecodeError: ")
    assert told.endswith(f" (games.py:{line_of('json.loads')})")


def test_an_error_of_this_package_is_told_where_the_user_called_it(
    games: dict[str, object],
) -> None:
    environments = ChainEnvironments(4, 2, seed=0)
    told = said(games["called_back"], lambda: environments.step([9, 9]))
    # The lambda of this test is the innermost frame that is not the package's.
    assert told.endswith(f"({__file__}:{_line_of_lambda()})")


def _line_of_lambda() -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if "lambda: environments" in line)


def test_a_file_elsewhere_is_named_whole(
    games: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert f"({tmp_path / 'games.py'}:" in said(games["inner"])


def test_where_no_code_of_theirs_ran_there_is_no_place() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the frames are what matters
        json.loads("{")
    error = caught.value
    assert error.__traceback__ is not None
    # Without this test's frame, those of Python's own files are left.
    error.__traceback__ = error.__traceback__.tb_next
    assert raised(error).endswith("(char 1)")
    assert raised(SystemExit(7)) == "SystemExit: 7"
