"""The command that installs what is missing beside this noisynet, wherever it came from."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path


def cure(extra: str) -> str:
    """Return the command that installs an extra of this very noisynet.

    `pip install '.[sb3]'` in a clone; what was installed from a wheel, a folder or a repository is
    named by where it came from, and what came from a package index by its name alone.
    """
    quote = '"' if os.name == "nt" else "'"
    return f"pip install {quote}{_source(extra)}{quote}"


def _source(extra: str) -> str:
    """Return what pip calls this noisynet with an extra."""
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
