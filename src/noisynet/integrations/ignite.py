"""Noise inside a PyTorch-Ignite Engine: `NoiseHandler(network, target).attach(trainer)`.

It stands beside the engine's `process_batch`, and the rest of the engine stays as it is. Needs
the extra `ignite`.
"""

from __future__ import annotations

from torch import nn

from ..diagnostics import snr
from ..layers import noisy_layers, resample
from .host import check_host

TESTED = {"pytorch-ignite": "0.5.5"}
"""The version of the host that this was tested with."""

check_host("noisynet.integrations.ignite", extra="ignite", tested=TESTED)

from ignite.engine import Engine, Events, RemovableEventHandle  # noqa: E402

__all__ = ["NoiseHandler"]


class NoiseHandler:
    """Handler of an engine's iterations: new noise, copies to the target network, measurements.

    One iteration of the engine is one step of the optimizer. After each, both networks get new
    noise, each its own; after every `target_every`-th the target gets the means and σ of `network`,
    and never its noise; after every `snr_every`-th `engine.state.metrics` has `snr_1`, `snr_2`, …,
    the signal-to-noise ratio of each noisy layer in the order of the network, for loggers and
    progress bars that are attached later.

    `redraw=False` leaves the noise to others: to an agent that redraws by itself, or to the
    networks where theirs is fresh at every forward. With it, networks hold a draw from `attach`
    on; rows that are held already are kept. Raises ValueError for a network without noisy layers,
    a target that does not fit, `target_every` without a target and the reverse, numbers below 1.
    Source: Fortunato et al., §3.1.
    """

    def __init__(
        self,
        network: nn.Module,
        target: nn.Module | None = None,
        *,
        target_every: int | None = None,
        redraw: bool = True,
        snr_every: int = 100,
    ) -> None:
        _require_noise("network", network)
        for name, value in (("target_every", target_every), ("snr_every", snr_every)):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"NoiseHandler: {name}: got {value!r}, expected a whole number of iterations, "
                    "at least 1"
                )
        if (target is None) != (target_every is None):
            given = "a target without" if target_every is None else "no target with"
            raise ValueError(f"NoiseHandler: got {given} target_every, expected both or none")
        if target is not None:
            _require_noise("target", target)
            _require_same_shapes(network, target)
        self.network, self.target = network, target
        self.target_every, self.redraw, self.snr_every = target_every, redraw, snr_every

    def attach(self, engine: Engine) -> RemovableEventHandle:
        """Copy to the target and draw, now and at the iterations that follow.

        The returned handle's `remove()` ends it. Raises TypeError for anything but an engine.
        """
        if not isinstance(engine, Engine):
            raise TypeError(f"NoiseHandler: got {type(engine).__name__}, expected ignite's Engine")
        self.copy_to_target()
        self._draw()
        return engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)

    def copy_to_target(self) -> None:
        """Copy means and σ to the target, where there is one; each network keeps its noise."""
        if self.target is not None:
            self.target.load_state_dict(self.network.state_dict())

    def _draw(self) -> None:
        if self.redraw:
            resample(self.network, *(() if self.target is None else (self.target,)))

    def _after_iteration(self, engine: Engine) -> None:
        iteration = engine.state.iteration
        if self.target_every is not None and iteration % self.target_every == 0:
            self.copy_to_target()
        if iteration % self.snr_every == 0:
            ratios = enumerate(snr(self.network).values(), start=1)
            engine.state.metrics.update({f"snr_{number}": ratio for number, ratio in ratios})
        self._draw()


def _require_noise(what: str, network: nn.Module) -> None:
    if not isinstance(network, nn.Module) or not noisy_layers(network):
        raise ValueError(
            f"NoiseHandler: {what}: finds no noisy layer in {type(network).__name__}; "
            "noisynet.noisify makes some"
        )


def _require_same_shapes(network: nn.Module, target: nn.Module) -> None:
    ours, theirs = (
        {name: tuple(tensor.shape) for name, tensor in one.state_dict().items()}
        for one in (network, target)
    )
    different = sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )
    if different:
        raise ValueError(
            f"NoiseHandler: target: got another network, which differs in {different[0]!r}; "
            "expected a copy of the first"
        )
