"""The replicas of other libraries' layers, for several tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def replicas() -> ModuleType:
    """Load the file beside this one, which is no package."""
    file = Path(__file__).with_name("replicas.py")
    spec = importlib.util.spec_from_file_location("noisynet_replicas", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
