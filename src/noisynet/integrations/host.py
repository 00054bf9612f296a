"""What every adapter asks of its host: that it is there, in the version that was tested."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version


def check_host(adapter: str, *, extra: str, tested: Mapping[str, str]) -> None:
    """Look for the packages of a host, {distribution: version tested}.

    Raises ModuleNotFoundError, which names the extra to install, for one that is missing; warns,
    naming both versions, of one that is another than the tested.
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
