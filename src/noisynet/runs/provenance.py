"""What a run is made with: the versions, processor and commit that its results may depend on."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path


def provenance(**versions: str) -> dict[str, str]:
    """Return the versions of packages, the processor and, from a repository, the commit.

    `versions` replace those from the packages' metadata, such as torch's version with its build.
    """
    found = {"python": platform.python_version(), "processor": _processor()}
    for name in ("noisynet", "torch", "numpy", "gymnasium", "ale-py", "minatar"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found |= versions
    commit = _commit(Path(__file__).parent)
    if commit is not None:
        found["commit"] = commit
    return found


def changed_since(made_with: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return a line that names the versions changed since a run was made, or nothing."""
    changed = [
        f"{name} {made_with[name]} (now {version})"
        for name, version in now.items()
        if name not in ("commit", "processor") and made_with.get(name, version) != version
    ]
    return [f"the run was made with {', '.join(changed)}"] if changed else []


def _commit(folder: Path) -> str | None:
    """Return the commit that this code comes from, with `-dirty` if it was changed since.

    None if no repository tracks the code, as in an installed package: a repository around its
    environment belongs to another project.
    """
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*question: str) -> str | None:
        # Without optional locks, so that a starting run does not block a commit.
        command = [git, "--no-optional-locks", "-C", str(folder), *question]
        try:
            done = subprocess.run(  # noqa: S603 - nothing in it is a user's
                command, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if ask("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return ask("describe", "--always", "--abbrev=12", "--exclude=*", "--dirty")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
