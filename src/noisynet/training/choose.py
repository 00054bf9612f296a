"""Choose by measuring at the start what a config leaves to the machine, once for a run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..agents import ActorCritic, Rollout, build_agent
from ..agents.updates import updates_of
from ..replay.device import DeviceReplay
from ..runs.config import Config
from ..runs.errors import RunError
from ..runs.provenance import provenance
from .loop import replay_slack
from .shared import threads_each

_PRECISIONS = ("float32", "bfloat16")
_OF_DEVICE_MEMORY = 0.5
"""Share of a GPU's free memory that the frames of a replay may take by themselves."""


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
    threads: all cores. replay_device: a GPU with room for the frames. execution: plain on the CPU;
    on a GPU, and with it precision, by the time of a few updates on made-up batches. Raises
    RunError for a choice of these that the algorithm does not have, or the device cannot do.
    """
    _check_choices(config)
    training = config.training
    device = training.device
    if device == "auto":
        shares_memory = config.learning.algorithm == "a3c"
        device = "cuda" if torch.cuda.is_available() and not shares_memory else "cpu"
    threads = training.threads or _cores()
    chosen = config.replaced(
        device=device,
        threads=threads,
        made_with=provenance(torch=torch.__version__),
        replay_device=_replay_device(config, device, observation_shape, dtype),
    )
    workers = config.actor_critic.workers if config.learning.algorithm == "a3c" else 1
    torch.set_num_threads(threads_each(threads, workers))
    what = (observation_shape, dtype, actions)
    chosen = chosen.replaced(execution=_execution(chosen, *what))
    if training.precision == "auto":
        chosen = chosen.replaced(precision=_faster(chosen, "precision", _PRECISIONS, *what))
    return chosen


def _check_choices(config: Config) -> None:
    """Raise RunError where a run is to have what only learning from a replay beside it has."""
    if _learns_here(config):
        return
    why = f"{config.learning.algorithm} learns from rollouts"
    if config.scale.actors is not None:
        why = "sampler actors play, and the learner takes what they send"
    for option, value, expected in (
        ("--replay-device", config.learning.replay_device, "auto"),
        ("--execution", config.training.execution, "auto"),
        ("--overlap", config.training.overlap, False),
    ):
        if value != expected:
            raise RunError(f"{option}: got {value}, expected {expected}: {why}")


def _learns_here(config: Config) -> bool:
    """Tell whether one process plays, and learns from a replay between its steps."""
    return config.learning.algorithm == "q_learning" and config.scale.actors is None


def _replay_device(
    config: Config, device: str, observation_shape: tuple[int, ...], dtype: np.dtype
) -> str:
    """Say where the replay's frames are to be; on a GPU they need room."""
    wanted = config.learning.replay_device
    if wanted != "auto" or not _learns_here(config) or not device.startswith("cuda"):
        return "host" if wanted == "auto" else wanted
    stacked = len(observation_shape) == 3 and config.environment.is_atari
    environments = config.environment.environments
    window = math.ceil(config.learning.replay_capacity / environments)
    needed = DeviceReplay.device_bytes(
        records=(window + replay_slack(config)) * environments,
        frame_shape=observation_shape[1:] if stacked else observation_shape,
        frame_dtype=dtype,
    )
    free, _ = torch.cuda.mem_get_info(device)
    return "device" if needed <= _OF_DEVICE_MEMORY * free else "host"


def _execution(
    config: Config, observation_shape: tuple[int, ...], dtype: np.dtype, actions: int
) -> str:
    """Say how updates are to run; "graph" on a GPU only where a capture has worked."""
    wanted = config.training.execution
    if not _learns_here(config) or not config.training.device.startswith("cuda"):
        return "plain" if wanted == "auto" else wanted
    if wanted == "plain":
        return wanted
    if config.training.precision == "auto":
        config = config.replaced(precision="float32")
    what = (observation_shape, dtype, actions)
    try:
        return _faster(config, "execution", ("graph", "plain"), *what, wanted=wanted)
    except (RuntimeError, AttributeError) as error:
        # A capture that failed, or a torch that is too old for it. Plain updates give the same
        # results: who left the choice open need not be told.
        if wanted == "auto":
            return "plain"
        reason = str(error).splitlines()[0]
        raise RunError(f"--execution: got graph, which does not work here: {reason}") from error


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


def _faster(
    config: Config,
    field: str,
    values: tuple[str, ...],
    observation_shape: tuple[int, ...],
    dtype: np.dtype,
    actions: int,
    wanted: str = "auto",
) -> str:
    """Give the value of a field with which an update is faster, or the wanted one if it works."""
    if wanted != "auto":
        values = (wanted,)
    updates = {
        value: _trial(config.replaced(**{field: value}), observation_shape, dtype, actions)
        for value in values
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


def _trial(
    config: Config, observation_shape: tuple[int, ...], dtype: np.dtype, actions: int
) -> Callable[[], object]:
    """Give an update of an agent of its own on what was made up for it."""
    agent = build_agent(config, observation_shape, actions)
    if isinstance(agent, ActorCritic):
        rollout = _made_up_rollout(config, observation_shape, dtype)
        return lambda: agent.update(rollout, 0)
    batch, updates = _made_up_batch(config, observation_shape, dtype), updates_of(agent)
    return lambda: updates.update(batch)


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
