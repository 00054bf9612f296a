"""What the project promises as a whole: what it imports, its versions, its pages."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import noisynet

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "noisynet"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES_WITH_PYTHON = [
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
    if "```python" in path.read_text()
]

# Import names of everything that the extras bring.
OPTIONAL = {
    "ale_py",
    "bokeh",
    "cv2",
    "gymnasium",
    "hypothesis",
    "ignite",
    "imageio",
    "imageio_ffmpeg",
    "matplotlib",
    "minatar",
    "mlflow",
    "moviepy",
    "optuna",
    "PIL",
    "pydantic",
    "pydantic_core",
    "pygame",
    "pytest",
    "ray",
    "rich",
    "safetensors",
    "sb3_contrib",
    "scipy",
    "selenium",
    "stable_baselines3",
    "tensorboard",
    "tensordict",
    "tianshou",
    "torchrl",
    "tyro",
    "wandb",
    "yaml",
}

BLOCK_THEN_IMPORT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Blocked())
import noisynet
assert not {blocked!r} & {{name.partition(".")[0] for name in sys.modules}}
for name in noisynet.__all__:
    getattr(noisynet, name)

import torch
net = noisynet.noisify(torch.nn.Sequential(torch.nn.Linear(3, 2)))
noisynet.hold(net, rows=4)
print(tuple(net(torch.ones(4, 3)).shape), sorted(noisynet.snr(net)))
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def imported_packages(path: Path) -> Iterator[tuple[str, int]]:
    """Give (top-level name, line) of each absolute import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module.partition(".")[0], node.lineno


def test_the_package_needs_torch_alone():
    done = run_python(BLOCK_THEN_IMPORT.format(blocked=OPTIONAL))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(4, 2) ['0']\n"


def test_the_block_would_catch_an_import():
    code = BLOCK_THEN_IMPORT.format(blocked=OPTIONAL).replace("import noisynet", "import scipy")
    done = run_python(code)
    assert done.returncode != 0
    assert "blocked: scipy" in done.stderr


@pytest.mark.parametrize("room", ["layers", "diagnostics", "control", "plasticity"])
def test_the_inner_rooms_import_torch_alone(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    allowed = sys.stdlib_module_names | {"noisynet", "torch"}
    foreign = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for name, line in imported_packages(path)
        # Triton comes with torch where there is a GPU for it.
        if name not in (allowed | {"triton"} if path.name == "triton.py" else allowed)
    ]
    assert foreign == []


def test_torch_is_the_only_hard_dependency():
    names = [re.split(r"[^\w.-]", line)[0] for line in PYPROJECT["project"]["dependencies"]]
    assert names == ["torch"]


def test_the_oldest_torch_is_the_one_that_is_tested():
    (torch,) = PYPROJECT["project"]["dependencies"]
    oldest = torch.removeprefix("torch>=")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert f"torch=={oldest}.0 " in workflow
    assert f"torch {oldest} " in (ROOT / "docs" / "pytorch.md").read_text()


def test_versions_agree():
    """What is built takes its version from the package."""
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"] == PACKAGE / "__init__.py"
    version = noisynet.__version__
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == version
    assert re.search(rf"^## .*\b{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_constraints_are_exact_and_name_no_place():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    pinned = {canonical(line.partition("==")[0]) for line in lines}
    wanted = {
        canonical(re.split(r"[^\w.-]", requirement)[0])
        for extra in ("train", "atari", "dev", "docs")
        for requirement in PYPROJECT["project"]["optional-dependencies"][extra]
    }
    assert wanted - pinned == {"noisynet"}
    assert {"torch", "hatchling", "editables"} <= pinned


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_public_name_exists_and_has_a_docstring():
    assert sorted(noisynet.__all__) == list(noisynet.__all__)
    assert [name for name in noisynet.__all__ if not getattr(noisynet, name).__doc__] == []


@pytest.mark.parametrize("page", PAGES_WITH_PYTHON)
def test_python_on_the_pages_runs(page, tmp_path, monkeypatch):
    """The blocks of a page run one after the other; what they claim they assert themselves."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) == text.count("```python") > 0
    namespace: dict[str, object] = {"__name__": page}
    for block in blocks:
        # Blank lines in front make a traceback's line numbers those of the page.
        code = "\n" * (text.count("\n", 0, block.start(1))) + block[1]
        exec(compile(code, str(ROOT / page), "exec"), namespace)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_between_files_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", (ROOT / page).read_text())
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_commands_on_the_pages_are_commands_that_exist():
    from noisynet.cli.commands import COMMANDS

    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    told = set(re.findall(r"`noisynet ([a-z]+)", "".join(page.read_text() for page in pages)))
    assert told == set(COMMANDS)
