"""Choices that a config leaves to the machine: made once for a run, if need be by measuring."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import torch

from ..agents import LossNotFinite
from ..envs import Environments
from ..runs.config import Config
from ..runs.errors import RunError, first_line
from .allocator import keep_freed_memory
from .trial import trial_update

_PRECISIONS = ("float32", "bfloat16")
_UPDATES_TO_A_GRAPH = 5
"""The first few updates run plainly, the next is captured, and one more replays it."""


def set_threads(config: Config) -> Config:
    """Set torch's threads, from all cores if the config leaves them open; return the config.

    Also makes the process keep freed memory. Raises RunError for a device that is not there.
    """
    check_device(config.training.device)
    if not config.training.threads:
        config = config.replaced(threads=local_cpus())
    torch.set_num_threads(threads_each(config))
    keep_freed_memory()
    return config


def resolve(
    config: Config,
    environments: Environments,
    tell: Callable[[str], object] = lambda _: None,
) -> Config:
    """Replace every "auto" by a choice, so that the run's config reproduces the run.

    The choices are:

    - device: a GPU if there is one, but the CPU for a3c, whose processes share its memory.
    - execution: a CUDA graph on a GPU if the agent's update can be captured, else plain.
    - precision: the one with which an update on a made-up batch is faster; float32 if its loss is
      not finite there.
    - replay_device: the host.

    `tell` is called with a few words on what is measured. Raises RunError for a setting that the
    device does not support.
    """
    training = config.training
    device = training.device
    if device == "auto":
        shares_memory = config.learning.algorithm == "a3c"
        device = "cuda" if torch.cuda.is_available() and not shares_memory else "cpu"
    host = config.learning.replay_device == "auto"
    chosen = config.replaced(
        device=device, replay_device="host" if host else config.learning.replay_device
    )
    if device.startswith("cuda") and config.can_overlap and training.execution != "plain":
        fault = _fault_of_graph(chosen.replaced(execution="graph"), environments)
        if fault and training.execution == "graph":
            raise RunError(f"--execution: got graph, which does not work here: {fault}")
        if fault:
            tell(f"updates run plainly: no CUDA graph can be captured here ({fault})")
        chosen = chosen.replaced(execution="plain" if fault else "graph")
    elif training.execution == "auto":
        chosen = chosen.replaced(execution="plain")
    if training.precision == "auto":
        tell(f"measuring which precision is faster here: {' or '.join(_PRECISIONS)}")
        try:
            precision = _faster(chosen, "precision", _PRECISIONS, environments)
        except LossNotFinite as error:
            tell(f"precision is float32: with made-up observations, {first_line(error)}")
            precision = "float32"
        chosen = chosen.replaced(precision=precision)
    return chosen


def is_open(config: Config) -> bool:
    """Return whether a config leaves a choice to `resolve`."""
    training = config.training
    left = (training.device, training.precision, training.execution, config.learning.replay_device)
    return "auto" in left


def threads_each(config: Config) -> int:
    """Return one learner's share of the run's threads.

    a3c's workers share them equally; with `overlap`, the environments get half.
    """
    learners = 2 if config.overlaps else 1
    if config.learning.algorithm == "a3c":
        learners = config.actor_critic.workers
    return max(config.training.threads // learners, 1)


def _fault_of_graph(config: Config, environments: Environments) -> str | None:
    """Return why updates cannot run as one CUDA graph here; None where they can."""
    if config.training.precision == "auto":
        config = config.replaced(precision="float32")
    update = trial_update(config, environments)
    try:
        for _ in range(_UPDATES_TO_A_GRAPH):
            update()
    except (RuntimeError, AttributeError) as error:
        # A capture that failed, or a torch that is too old for it.
        return first_line(error)
    return None


def has_device(device: str) -> bool:
    """Return whether this machine, and this build of torch, has a device."""
    number = int(device.partition(":")[2] or 0)
    return not device.startswith("cuda") or number < torch.cuda.device_count()


def check_device(device: str) -> None:
    """Raise RunError for a GPU that this machine, or this build of torch, does not have."""
    if not has_device(device):
        found = torch.cuda.device_count()
        raise RunError(f"--device: got {device!r}, but torch finds {found} GPUs; expected cpu")


def local_cpus() -> int:
    """Return how many cores of this machine this process may use."""
    # macOS has no sched_getaffinity.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _faster(config: Config, field: str, values: tuple[str, ...], environments: Environments) -> str:
    """Return the value of a field with which an update is fastest; all of them must work.

    Raises LossNotFinite if the loss of an update is not finite on the made-up batch.
    """
    updates = {
        value: trial_update(config.replaced(**{field: value}), environments) for value in values
    }
    times: dict[str, list[float]] = {value: [] for value in updates}
    on_gpu = config.training.device.startswith("cuda")
    # The first rounds warm up caches and allocators, and capture graphs.
    rounds, practice = (12, 5) if on_gpu else (6, 2)
    for _ in range(rounds):
        for value, update in updates.items():
            start = time.perf_counter()
            update()
            if on_gpu:
                torch.cuda.synchronize(config.training.device)
            times[value].append(time.perf_counter() - start)
    return min(times, key=lambda value: float(np.median(times[value][practice:])))
