"""Whether an adapter's host is installed, in the version that was tested."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version


def check_host(adapter: str, *, extra: str, tested: Mapping[str, str]) -> None:
    """Check that the packages of a host are installed, {distribution: version tested}.

    Raises ModuleNotFoundError with the extra to install for one that is missing; warns of a version
    that differs from the tested one, naming both.
    """
    for package, expected in tested.items():
        try:
            installed = version(package).partition("+")[0]
        except PackageNotFoundError:
            raise ModuleNotFoundError(
                f"{adapter} needs {package}: pip install 'noisynet[{extra}]'", name=package
            ) from None
        if installed != expected:
            warnings.warn(
                f"{adapter} was tested with {package} {expected}, and {installed} is installed",
                stacklevel=3,
            )
