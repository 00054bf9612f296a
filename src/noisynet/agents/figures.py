"""What is logged of a network's noise."""

from __future__ import annotations

from torch import nn

from ..diagnostics import mean_sigma, snr


def noise_figures(network: nn.Module) -> dict[str, float]:
    """Give SNR and mean |σ| per noisy layer, by the names that metrics have."""
    return {
        f"{figure}/{name.removeprefix('head.')}": value
        for figure, values in (("snr", snr(network)), ("sigma", mean_sigma(network)))
        for name, value in values.items()
    }
