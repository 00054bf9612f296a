"""Choose by measuring at the start what a config leaves to the machine, once for a run."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from ..agents import ActorCritic, Rollout, build_agent
from ..runs.config import Config
from ..runs.errors import RunError
from .shared import threads_each


@dataclass(frozen=True)
class _Batch:
    observation_tm1: np.ndarray
    action_tm1: np.ndarray
    return_t: np.ndarray
    discount_t: np.ndarray
    observation_t: np.ndarray
    weights: None = None


def resolve(
    config: Config, observation_shape: tuple[int, ...], dtype: np.dtype, actions: int
) -> Config:
    """Replace every "auto" by what is chosen here, so that the run's config repeats the run.

    It also notes what the run is made with.

    device: a GPU where there is one, but the CPU for a3c, whose processes share its memory.
    threads: all cores. precision: float32 or bfloat16, by the time of a few updates on made-up
    batches.
    """
    training = config.training
    device = training.device
    if device == "auto":
        shares_memory = config.learning.algorithm == "a3c"
        device = "cuda" if torch.cuda.is_available() and not shares_memory else "cpu"
    threads = training.threads or _cores()
    chosen = config.replaced(device=device, threads=threads, made_with=_made_with())
    if training.precision == "auto":
        workers = config.actor_critic.workers if config.learning.algorithm == "a3c" else 1
        torch.set_num_threads(threads_each(threads, workers))
        precision = _faster_precision(chosen, observation_shape, dtype, actions)
        chosen = chosen.replaced(precision=precision)
    return chosen


def check_device(device: str) -> None:
    """Raise RunError for a GPU that this machine, or this build of torch, does not have."""
    if device.startswith("cuda"):
        found = torch.cuda.device_count()
        if int(device.partition(":")[2] or 0) >= found:
            raise RunError(f"--device: got {device!r}, but torch finds {found} GPUs; expected cpu")


def _cores() -> int:
    # macOS has no sched_getaffinity.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _made_with() -> dict[str, str]:
    """Name the versions and the processor that results may depend on."""
    found = {"python": platform.python_version(), "processor": _processor()}
    for name in ("noisynet", "torch", "numpy", "gymnasium", "ale-py", "minatar"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["torch"] = torch.__version__
    commit = _commit(Path(__file__).parent)
    if commit is not None:
        found["commit"] = commit
    return found


def _commit(folder: Path) -> str | None:
    """Name the commit that this code comes from, `-dirty` where it was changed since.

    None where the code is no part of a repository, such as an installed package: the repository
    around an environment is somebody else's.
    """
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*question: str) -> str | None:
        # Without the optional locks a run that starts does not stand in the way of a commit.
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


def _faster_precision(
    config: Config, observation_shape: tuple[int, ...], dtype: np.dtype, actions: int
) -> str:
    updates = {
        precision: _trial(config.replaced(precision=precision), observation_shape, dtype, actions)
        for precision in ("float32", "bfloat16")
    }
    times: dict[str, list[float]] = {precision: [] for precision in updates}
    for _ in range(6):
        for precision, update in updates.items():
            start = time.perf_counter()
            update()
            if config.training.device.startswith("cuda"):
                torch.cuda.synchronize(config.training.device)
            times[precision].append(time.perf_counter() - start)
    # The first rounds warm up caches and allocators.
    return min(times, key=lambda precision: float(np.median(times[precision][2:])))


def _trial(
    config: Config, observation_shape: tuple[int, ...], dtype: np.dtype, actions: int
) -> Callable[[], object]:
    """Give an update of an agent of its own on what was made up for it."""
    agent = build_agent(config, observation_shape, actions)
    if isinstance(agent, ActorCritic):
        rollout = _made_up_rollout(config, observation_shape, dtype)
        return lambda: agent.update(rollout, 0)
    batch = _made_up_batch(config, observation_shape, dtype)
    return lambda: agent.update(batch)


def _made_up_batch(config: Config, observation_shape: tuple[int, ...], dtype: np.dtype) -> _Batch:
    size = config.learning.batch_size
    observation = np.zeros((size, *observation_shape), dtype)
    return _Batch(
        observation,
        np.zeros(size, np.int64),
        np.zeros(size, np.float32),
        np.zeros(size, np.float32),
        observation,
    )


def _made_up_rollout(
    config: Config, observation_shape: tuple[int, ...], dtype: np.dtype
) -> Rollout:
    steps, environments = config.actor_critic.rollout_steps, config.environment.environments
    none = np.zeros((steps, environments), bool)
    return Rollout.of_steps(
        observation=np.zeros((steps + 1, environments, *observation_shape), dtype),
        first=np.zeros((steps + 1, environments), bool),
        action=np.zeros((steps, environments), np.int64),
        reward=np.zeros((steps, environments), np.float32),
        terminated=none,
        truncated=none,
        ignored=none,
        discount=config.learning.discount,
    )
