"""What the adapters share: a host that is missing or of another version, and the page of names."""

from __future__ import annotations

import ast
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from noisynet.integrations.host import check_host

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_host_names_its_extra() -> None:
    expected = r"^noisynet\.integrations\.x needs no-such-host: pip install '.*\[x\]'$"
    with pytest.raises(ModuleNotFoundError, match=expected):
        check_host("noisynet.integrations.x", extra="x", tested={"no-such-host": "1.0"})


def test_another_version_of_the_host_is_named_beside_the_tested() -> None:
    installed = version("pytest")
    check_host("noisynet.integrations.x", extra="x", tested={"pytest": installed})
    with pytest.warns(UserWarning, match=rf"was tested with pytest 0\.1, and {installed} is"):
        check_host("noisynet.integrations.x", extra="x", tested={"pytest": "0.1"})


def test_every_name_of_an_adapter_stands_on_the_page_of_names() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    sections = dict(
        re.findall(r"currentmodule:: (noisynet\S*)\n(.*?)(?=\.\. current|\Z)", page, re.S)
    )
    adapters = ROOT / "src" / "noisynet" / "integrations"
    found = 0
    for file in (*adapters.glob("*.py"), *adapters.glob("*/__init__.py")):
        names = re.search(r"^__all__ = (\[.*?\])", file.read_text(), re.M | re.S)
        if names is not None:
            module = file.parent.name if file.stem == "__init__" else file.stem
            promised = {one for one in ast.literal_eval(names[1]) if not one.isupper()}
            section = sections[f"noisynet.integrations.{module}"]
            assert promised == set(re.findall(r"auto(?:class|function):: (\w+)", section)), module
            found += 1
    assert found == 5
