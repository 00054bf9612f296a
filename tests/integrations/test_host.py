"""A host that is missing, or of another version than the tested one, is named with the cure."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from noisynet.integrations.host import check_host


def test_a_missing_host_names_its_extra() -> None:
    expected = r"^noisynet\.integrations\.x needs no-such-host: pip install '.*\[x\]'$"
    with pytest.raises(ModuleNotFoundError, match=expected):
        check_host("noisynet.integrations.x", extra="x", tested={"no-such-host": "1.0"})


def test_another_version_of_the_host_is_named_beside_the_tested() -> None:
    installed = version("pytest")
    check_host("noisynet.integrations.x", extra="x", tested={"pytest": installed})
    with pytest.warns(UserWarning, match=rf"was tested with pytest 0\.1, and {installed} is"):
        check_host("noisynet.integrations.x", extra="x", tested={"pytest": "0.1"})
