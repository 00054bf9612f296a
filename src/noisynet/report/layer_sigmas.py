"""σ of each noisy layer when training began, and as the newest checkpoint has it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..assemble import build_agent, make_environments
from ..envs import UnusableEnvironment
from ..runs import Config, open_run
from ..runs.errors import first_line

Numbers = npt.NDArray[np.float64]

_BINS = 48
_NETWORKS = ("online.", "network.")


@dataclass(frozen=True)
class LayerSigma:
    """A layer's σ, of weights and biases together, as shares of all in each bin."""

    name: str
    edges: Numbers
    """(bins + 1,): the same for both."""
    start: Numbers | None
    """(bins,): shares at the first step; None where the agent cannot be built anew."""
    end: Numbers
    """(bins,): shares at the newest checkpoint."""


def layer_sigmas(path: Path) -> tuple[list[LayerSigma], list[str]]:
    """Return the σ of each noisy layer of a run, and what could not be had.

    The first σ are not kept in a run: the agent is built anew from the config, whose seed makes the
    same. Raises RunError where there is no checkpoint, or a damaged one.
    """
    run = open_run(path)
    everything = _by_layer(run.trained().arrays)
    end = {name: sigma for name, sigma in everything.items() if np.isfinite(sigma).all()}
    notes = [f"σ of {name}: not finite" for name in everything if name not in end]
    try:
        start = _at_the_start(run.config)
    except (UnusableEnvironment, ValueError, RuntimeError) as error:
        notes.append(f"σ at the start: {first_line(error)}")
        start = {}
    return [_layer(name, start.get(name), sigma) for name, sigma in end.items()], notes


def _at_the_start(config: Config) -> dict[str, Numbers]:
    config = config.replaced(device="cpu", environments=1)
    with closing(make_environments(config)) as environments:
        agent = build_agent(config, environments.observation_shape, environments.action_count)
    state = agent.network.state_dict()
    return _by_layer({f"online.{name}": tensor.numpy() for name, tensor in state.items()})


def _by_layer(arrays: dict[str, npt.NDArray[np.float32]]) -> dict[str, Numbers]:
    """Collect the σ of the acting network's layers, (all of a layer,) by its name."""
    parts: dict[str, list[Numbers]] = {}
    for name, array in arrays.items():
        prefix = next((one for one in _NETWORKS if name.startswith(one)), None)
        layer, _, parameter = name.rpartition(".")
        if prefix is not None and parameter.endswith("_sigma"):
            layer = layer.removeprefix(prefix).removeprefix("head.")
            parts.setdefault(layer, []).append(array.astype(np.float64).ravel())
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _layer(name: str, start: Numbers | None, end: Numbers) -> LayerSigma:
    values = end if start is None else np.concatenate([start, end])
    # A handful of strays would squeeze all others into one bin; the outer bins take them in.
    low, high = (float(one) for one in np.quantile(values, [0.0005, 0.9995]))
    if start is not None:
        low, high = min(low, float(start.min())), max(high, float(start.max()))
    if high - low < 1e-9:
        low, high = low - 1e-6 - 0.05 * abs(low), high + 1e-6 + 0.05 * abs(high)
    edges = np.linspace(low, high, _BINS + 1)

    def shares(sigma: Numbers) -> Numbers:
        counts, _ = np.histogram(np.clip(sigma, low, high), edges)
        return counts / len(sigma)

    return LayerSigma(name, edges, None if start is None else shares(start), shares(end))
