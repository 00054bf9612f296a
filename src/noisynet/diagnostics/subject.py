"""The model that the doctor examines: ways to read its noise, to redraw it and to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .forward_calls import Call, calls_of
from .preserve import preserved
from .read_noise import NoiseByLayer, read_all, redraw
from .recognise import RecognisedLayer

Act = Callable[[Any], Any]


class Subject:
    """A model and its noisy layers, the batch to run it on, and the program's own redraw."""

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, RecognisedLayer],
        batch: Any,
        resample: Callable[[], Any] | None,
    ) -> None:
        self.model = model
        self.layers = layers
        self.batch = batch
        self.resample = resample
        self._with_gradients = torch.is_grad_enabled()
        self.was_training = model.training
        self.modes = {mode: _read_in_mode(model, layers, mode) for mode in (True, False)}
        own = any(noise.is_on for noise in self.modes[self.was_training].values())
        self.mode = self.was_training if own else not self.was_training
        self.shows_noise = any(noise.is_on for noise in self.modes[self.mode].values())
        """Whether the layers show noise in train or in eval mode."""

    @contextmanager
    def in_noisy_mode(self) -> Iterator[None]:
        """Put the model into the mode in which it has noise, and restore it afterwards."""
        with preserved(self.model):
            self.model.train(self.mode)
            yield

    def redraw(self) -> None:
        """Redraw with the program's own function if there is one, else layer by layer."""
        if self.resample is not None:
            self.resample()
        else:
            redraw(self.layers)

    def run(self, function: Act) -> tuple[list[Call], Any]:
        """Run a function on the batch; return the forwards of noisy layers, and its result.

        Gradients are enabled if they were when the subject was made: a program may act inside
        `torch.no_grad`, and its function count on it.
        """
        results: list[Any] = []
        with torch.set_grad_enabled(self._with_gradients):
            return calls_of(self.layers, lambda: results.append(function(self.batch))), results[0]


def _read_in_mode(
    model: nn.Module, layers: Mapping[str, RecognisedLayer], mode: bool
) -> NoiseByLayer:
    """Return the noise of each layer in train (True) or eval mode; the model stays as it was."""
    with preserved(model):
        model.train(mode)
        return read_all(layers)


def seen_in(calls: Sequence[Call]) -> NoiseByLayer:
    """Return the noise of each online layer's first forward."""
    seen: dict[str, Any] = {}
    for call in calls:
        if call.noise is not None and call.of == "online":
            seen.setdefault(call.name, call.noise)
    return seen
