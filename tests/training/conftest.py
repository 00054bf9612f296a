"""A small run that several tests look at."""

from pathlib import Path

import pytest

from noisynet.assemble import start
from noisynet.training import Outcome

from .small_runs import small_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Train one small run to its end, without interruption."""
    folder: Path = tmp_path_factory.mktemp("finished") / "run"
    return start(small_config(), folder)
