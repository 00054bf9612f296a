"""What the tests of several hosts share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def _cluster(*, start: bool) -> Iterator[None]:
    import ray

    try:
        attempts = 3 if start else 0
        while not ray.is_initialized() and attempts:
            attempts -= 1
            try:
                ray.init(
                    num_cpus=2,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
            except Exception as error:
                # On a busy machine the host gives up on its own processes after some seconds.
                if "timed out during startup" not in str(error) or not attempts:
                    raise
                ray.shutdown()
        yield
    finally:
        ray.shutdown()
        # The host's handles of its processes complain when they are collected; later it would be
        # an error of whichever test runs then.
        gc.collect()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start Ray for the tests of a module, and leave no process of it."""
    with _cluster(start=True):
        yield


@pytest.fixture
def no_cluster_left() -> Iterator[None]:
    """Let a test start Ray, and leave no process of it."""
    with _cluster(start=False):
        yield
