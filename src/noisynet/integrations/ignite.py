"""Noise inside a PyTorch-Ignite Engine: `NoiseHandler(network).attach(trainer)`.

The handler runs beside the engine's `process_batch`, and the engine stays as it is. `NoiseControl`
sets how much noise there is. Needs the extra `ignite`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ..control import Schedule
from ..diagnostics import snr
from ..layers import noisy_layers, resample
from ..layers.outputs import Outputs, ToValues, outputs_of_model
from .control import ControlOptions, HostControl, RecentObservations
from .host import check_host, size_of, to_device

TESTED = {"pytorch-ignite": "0.5.5"}
"""The version of the host that this was tested with."""

check_host("noisynet.integrations.ignite", extra="ignite", tested=TESTED)

from ignite.engine import Engine, Events, RemovableEventHandle  # noqa: E402

__all__ = ["NoiseControl", "NoiseHandler"]


class NoiseHandler:
    """A handler of an engine's iterations that redraws, updates the target network and measures.

    One iteration of the engine is one step of the optimizer. After each, both networks get new
    noise, each its own. After every `target_every`-th, the target gets the means and σ of
    `network`, but never its noise. After every `snr_every`-th, `engine.state.metrics` has `snr_1`,
    `snr_2`, …, the signal-to-noise ratios of the noisy layers in the order of the network, for
    loggers and progress bars that are attached later.

    From `attach` on, networks hold a draw, with as many rows as they held before. `redraw=False`
    leaves the noise to an agent that redraws by itself, or fresh at every forward. Raises
    ValueError for a network without noisy layers, a target that does not fit, `target_every`
    without a target or the reverse, and numbers below 1. Source: Fortunato et al., §3.1.
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
        """Redraw now, and redraw, update the target and measure after the iterations that follow.

        Until its first update, the target keeps its means and σ, such as those of a checkpoint. The
        returned handle's `remove()` ends this. Raises TypeError for anything but an engine.
        """
        _require_engine("NoiseHandler", engine)
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


class NoiseControl(HostControl):
    """A handler that sets the scale of the noise, by a schedule over iterations or for a target.

    With `NoiseControl(network, target, effective_epsilon=0.05).attach(trainer)`, both networks get
    the same scale, and the first is measured. Its observations are what `seen` returns for the
    engine after an iteration, a tensor (rows, …) or a tuple or dict of such, on any device. Without
    `seen`, they are `engine.state.batch` or the first part of it. `values` turns an output of
    another shape into (B, A). `engine.state.metrics` gets `noise_scale` and `noise_measured`. The
    host's `Checkpoint` can save the control, by its `state_dict`.

    Options and errors are those of `HostControl`; raises ValueError for networks without noise, and
    in an iteration TypeError for a batch in which no observations can be measured.
    """

    def __init__(
        self,
        network: nn.Module,
        *more: nn.Module,
        schedule: Schedule | None = None,
        seen: Callable[[Engine], Any] | None = None,
        values: ToValues | None = None,
        **options: Unpack[ControlOptions],
    ) -> None:
        super().__init__(schedule, **options)

        def outputs(observations: Any, generator: torch.Generator) -> Outputs:
            observations = to_device(observations, generator.device)
            try:
                return outputs_of_model(
                    network, observations, draws=self.draws, generator=generator, values=values
                )
            except (TypeError, RuntimeError) as error:
                reason = str(error).partition("\n")[0]
                raise TypeError(
                    f"NoiseControl: got {_described(observations)}, on which the measurement fails "
                    f"({reason}); {_SEEN}"
                ) from error

        self._seen_of = seen or _first_of_batch
        self._seen = RecentObservations(self.observations)
        self.begin((network, *more), outputs)

    def attach(self, engine: Engine) -> RemovableEventHandle:
        """Move the scale after the iterations that follow, whenever it is due.

        The returned handle's `remove()` ends this. Raises TypeError for anything but an engine.
        """
        _require_engine("NoiseControl", engine)
        return engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)

    def _after_iteration(self, engine: Engine) -> None:
        if self.goal is not None:
            observations = self._seen_of(engine)
            if not _has_rows(observations):
                raise TypeError(
                    f"NoiseControl: got {_described(observations)}, expected observations; {_SEEN}"
                )
            self._seen.add(observations)
        figures = self.move_by(engine.state.iteration, self._seen)
        engine.state.metrics.update(
            {name.replace("/", "_"): value for name, value in figures.items()}
        )


_SEEN = "pass seen=, a function from the engine to a tensor (rows, …) or a tuple of such"


def _first_of_batch(engine: Engine) -> Any:
    batch = engine.state.batch
    return batch[0] if isinstance(batch, tuple | list) and batch else batch


def _has_rows(observations: Any) -> bool:
    if isinstance(observations, tuple | dict) and observations:
        parts = list(observations.values() if isinstance(observations, dict) else observations)
        return all(map(_has_rows, parts)) and len(set(map(size_of, parts))) == 1
    return isinstance(observations, Tensor) and observations.ndim > 0


def _described(observations: Any) -> str:
    if isinstance(observations, tuple):
        return f"({', '.join(map(_described, observations))})"
    if isinstance(observations, dict):
        return f"a dict of {', '.join(map(str, observations))}"
    if isinstance(observations, Tensor):
        return f"a tensor of {observations.dtype} of shape {tuple(observations.shape)}"
    return type(observations).__name__


def _require_engine(what: str, engine: Any) -> None:
    if not isinstance(engine, Engine):
        raise TypeError(f"{what}: got {type(engine).__name__}, expected ignite's Engine")


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
