"""The σ of each noisy layer, at the start of training and in the newest checkpoint."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..assemble import build_agent, make_environments
from ..envs import UnusableEnvironment
from ..runs import Config, open_run
from ..runs.errors import RunError, first_line

Numbers = npt.NDArray[np.float64]

_BINS = 48
_NETWORKS = ("online.", "network.")


@dataclass(frozen=True)
class LayerSigma:
    """Histograms of a layer's σ, of weights and biases together."""

    name: str
    edges: Numbers
    """(bins + 1,): the edges of the bins, the same for both histograms."""
    start: Numbers | None
    """(bins,): the share of σ in each bin before training; None if that agent cannot be built."""
    end: Numbers
    """(bins,): the same shares in the newest checkpoint."""


def layer_sigmas(path: Path) -> tuple[list[LayerSigma], list[str]]:
    """Return the σ of each noisy layer of a run, and notes on those that are missing.

    A run does not store its initial σ, so the agent is built again from the config; the seed makes
    them the same. Raises RunError if there is no checkpoint, or if it is damaged.
    """
    run = open_run(path)
    everything = _by_layer(run.trained().arrays)
    end = {name: sigma for name, sigma in everything.items() if np.isfinite(sigma).all()}
    notes = [f"σ of {name}: not finite" for name in everything if name not in end]
    try:
        start = _at_the_start(run.config)
    except (RunError, UnusableEnvironment, ValueError, RuntimeError) as error:
        notes.append(f"σ at the start: {first_line(error)}")
        start = {}
    return [_layer(name, start.get(name), sigma) for name, sigma in end.items()], notes


def _at_the_start(config: Config) -> dict[str, Numbers]:
    config = config.replaced(device="cpu")
    with closing(make_environments(config, count=1)) as environments:
        agent = build_agent(config, environments.observation_shape, environments.action_count)
    state = agent.network.state_dict()
    return _by_layer({f"online.{name}": tensor.numpy() for name, tensor in state.items()})


def _by_layer(arrays: dict[str, npt.NDArray[np.float32]]) -> dict[str, Numbers]:
    """Return all σ of each layer of the acting network, by the layer's name, each (count,)."""
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
    # A few outliers would squeeze all others into one bin, so the outermost bins collect them.
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
