"""The model before the doctor: the ways to see its noise, to redraw it, and to watch it at work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from .checks.draws import Seen
from .preserve import preserved
from .probe import redraw, see
from .recognise import Found
from .watch import Call, calls_of

Act = Callable[[Any], Any]


class Patient:
    """The model, and the ways to see its noise and to redraw it."""

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, Found],
        batch: Any,
        resample: Callable[[], Any] | None,
    ) -> None:
        self.model = model
        self.layers = layers
        self.batch = batch
        self.resample = resample
        self.was_training = model.training
        self.modes = {mode: self._in(mode) for mode in (True, False)}
        own = any(noise.is_on for noise in self.modes[self.was_training].values())
        self.mode = self.was_training if own else not self.was_training
        self.sees = any(noise.is_on for noise in self.modes[self.mode].values())
        """Whether looking at the layers themselves, in some mode, shows noise."""

    def _in(self, mode: bool) -> Seen:
        with preserved(self.model):
            self.model.train(mode)
            return self.look()

    def look(self) -> Seen:
        """Give the noise of each layer as it is now, by looking at the layers themselves."""
        seen = {name: see(found) for name, found in self.layers.items()}
        return {name: noise for name, noise in seen.items() if noise is not None}

    def redraw(self) -> None:
        """Draw anew, as the program does where it said how."""
        if self.resample is not None:
            self.resample()
        else:
            redraw(self.layers)

    def run(self, function: Act) -> tuple[list[Call], Any]:
        """Run a function on the batch; give the forwards of noisy layers, and its answer."""
        results: list[Any] = []
        return calls_of(self.layers, lambda: results.append(function(self.batch))), results[0]


def seen_in(calls: Sequence[Call]) -> Seen:
    """Give the noise of each layer's first forward."""
    seen: dict[str, Any] = {}
    for call in calls:
        if call.noise is not None and call.of == "online":
            seen.setdefault(call.name, call.noise)
    return seen
