"""The Python in the README and on the pages runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(page: Path) -> str:
    """Join a page's Python blocks: later ones use the names of earlier ones."""
    return "\n".join(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )


@pytest.mark.parametrize(
    "page", [page for page in PAGES if snippets(page)], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(snippets(page), str(page), "exec"), names)
    assert "net" in names


def test_commands_on_the_pages_are_commands_that_exist() -> None:
    from noisynet.cli import main

    with pytest.raises(SystemExit):
        main(["--help"])
    told = set(re.findall(r"`noisynet (\w+)", "".join(page.read_text() for page in PAGES)))
    assert {"train", "resume", "evaluate", "presets"} <= told
    assert told <= {"train", "resume", "evaluate", "presets"}
