"""The page of equations names functions that exist, and quotes lines that stand in them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "noisynet"
PAGE = (ROOT / "docs" / "equations.md").read_text()
NAMED = re.compile(r"`([\w.]+)`\s+in\s+`([\w/]+\.py)`")
QUOTED = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def source_of(name: str, file: str) -> str:
    """The source of a function or method; raises LookupError where there is none."""
    path = PACKAGE / file
    if not path.is_file():
        raise LookupError(f"no file {file}")
    text = path.read_text()
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        inside = {
            child.name: child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.FunctionDef | ast.ClassDef)
        }
        if part not in inside:
            raise LookupError(f"no {name} in {file}")
        node = inside[part]
    source = ast.get_source_segment(text, node)
    assert source is not None
    return source


def quotations() -> list[tuple[str, str, str]]:
    """Each quoted line with the function that is named last before it."""
    found = []
    for block in QUOTED.finditer(PAGE):
        name, file = NAMED.findall(PAGE[: block.start()])[-1]
        found += [(name, file, line.strip()) for line in block[1].splitlines() if line.strip()]
    return found


@pytest.mark.parametrize(("name", "file"), sorted(set(NAMED.findall(PAGE))))
def test_what_the_equations_name_exists(name: str, file: str) -> None:
    assert source_of(name, file)


@pytest.mark.parametrize(("name", "file", "line"), quotations())
def test_what_the_equations_quote_stands_there(name: str, file: str, line: str) -> None:
    assert line in [code.strip() for code in source_of(name, file).splitlines()]


def test_every_equation_of_the_section_is_there() -> None:
    headings = re.findall(r"^\*\*(\(.*?\))\*\*", PAGE, re.MULTILINE)
    numbers = [int(number) for heading in headings for number in re.findall(r"\d+", heading)]
    assert numbers == list(range(8, 17))
    assert len(quotations()) >= len(numbers)


def test_the_check_would_notice() -> None:
    with pytest.raises(LookupError, match="no noisy_linear in"):
        source_of("noisy_linear", "layers/noise.py")
    with pytest.raises(LookupError, match="no file"):
        source_of("noisy_linear", "layers/nowhere.py")
    assert "weight_noise" not in source_of("signed_sqrt", "layers/noise.py")
