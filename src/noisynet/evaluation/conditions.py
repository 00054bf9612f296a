"""Conditions under which a run's agent plays: its noise, environments, seed, device and threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from ..assemble import make_environments
from ..assemble.resolve import has_device
from ..envs import Environments, UnusableEnvironment
from ..runs import Config, RunError
from ..runs.seeds import SEEDS

_SEED_OFFSET = 1_000_003


def noise_in_words(noise: int) -> str:
    """Return the name of a number of draws: off, on or mean:K."""
    return ("off", "on")[noise] if noise < 2 else f"mean:{int(noise)}"


def check_noise(path: Path, config: Config, noise: int = True) -> None:
    """Raise RunError if a run's agent has no noise to act under, or cannot average over draws."""
    got = noise_in_words(noise)
    if not config.exploration.has_noise:
        raise RunError(
            f"--noise: got {got}, expected off: {path} explores by "
            f"{config.exploration.exploration} and has no noisy layer"
        )
    if noise > 1 and has_lstm(config):
        raise RunError(
            f"--noise: got {got}, expected on or off: {path} has an LSTM, whose state follows one "
            "draw at a time"
        )


def has_lstm(config: Config) -> bool:
    """Return whether the agent has an LSTM, whose state every forward advances."""
    return config.learning.is_actor_critic and config.actor_critic.lstm_size > 0


def games_seed(config: Config) -> int:
    """Return the default seed of evaluation games, which is never the training seed."""
    return (config.training.seed + _SEED_OFFSET) % SEEDS


def on_this_machine(config: Config) -> Config:
    """Set torch's threads as in the run; return its config, with the CPU for a missing GPU.

    A thread on every core would slow down other processes, such as a training run.
    """
    torch.set_num_threads(max(config.training.threads, 1))
    return config if has_device(config.training.device) else config.replaced(device="cpu")


@contextmanager
def torch_threads_restored() -> Iterator[None]:
    """Restore torch's number of threads at the end, so that the calling program keeps its own."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def environments_for(
    config: Config, *, count: int | None = None, seed: int | None = None
) -> Iterator[Environments]:
    """Make a run's environments and close them at the end; raises RunError if they fail.

    `count` and `seed` are the config's unless given.
    """
    try:
        with closing(make_environments(config, count=count, seed=seed)) as environments:
            yield environments
    except UnusableEnvironment as error:
        raise RunError(str(error)) from error
