"""The pip command that installs a missing extra of this installation of noisynet."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

_TRAIN = (
    "pydantic", "yaml", "numpy", "gymnasium", "safetensors", "rich", "scipy", "tensorboard",
)  # fmt: skip


def missing_for_training() -> str | None:
    """Return the first module of the extra `train` that is not installed; None if all are."""
    return next((module for module in _TRAIN if find_spec(module) is None), None)


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this installation of noisynet.

    In a clone that is `pip install '.[sb3]'`. A noisynet that was installed from a wheel, a folder
    or a repository is named by its origin, and one from a package index by its name alone.
    """
    quote = '"' if os.name == "nt" else "'"
    return f"pip install {quote}{_source(extra)}{quote}"


def _source(extra: str) -> str:
    """Return the requirement with which pip finds this noisynet, with an extra."""
    from importlib import metadata  # slow, and no command needs it until something is missing

    clone = Path(__file__).parents[2]
    if (clone / "pyproject.toml").exists():
        return f"{'.' if Path.cwd() == clone else clone}[{extra}]"
    try:
        text = metadata.distribution("noisynet").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        text = None
    if not text:
        return f"noisynet[{extra}]"
    origin = json.loads(text)
    url = origin["url"]
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"noisynet[{extra}] @ {url}"
