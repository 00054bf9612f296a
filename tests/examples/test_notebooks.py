"""Every notebook runs from its first cell to its last, in a process and a folder of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))
SAID = {
    "agent": [r"by the mean weights: \[1, 1, 1, 1, 1, 1\]", r"mean return of five games: 0\.\d\d"],
    "doctor": [r"^fail +optimizer:", r"^fail +acting:", r"^fail +draws in the loss:"],
    "layers": [r"right by the mean weights: \d\d\.\d%", r"layer 2: 1\.\d\d when it was new"],
}
# As a kernel runs them: all cells in __main__.
RUN = """
import json, sys
from pathlib import Path
for cell in json.loads(Path(sys.argv[1]).read_text("utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), globals())
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, path],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    for line in SAID[path.stem]:
        assert re.search(line, done.stdout, re.MULTILINE), line


def test_notebooks_keep_no_output_and_link_to_what_exists() -> None:
    assert {path.stem for path in NOTEBOOKS} == SAID.keys()
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        assert all(not cell.get("outputs") for cell in cells), path.name
        text = "".join(line for cell in cells for line in cell["source"])
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            assert (path.parent / target).exists(), target
