"""Records of the forwards of noisy layers while a function runs, and the noise that each used."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from .read_noise import Noise, read_noise
from .recognise import RecognisedLayer, recognise


@dataclass(frozen=True)
class Call:
    """One forward of a noisy layer.

    `of` is "online" if the layer computed with the model's own parameters, and "other" for
    another network, such as a target.
    """

    name: str
    of: Literal["online", "other"]
    learning: bool
    """Whether a gradient can flow back through it."""
    noise: Noise | None
    output: Tensor | None
    rows: int
    """Number of rows of its input: the product of the dimensions before a row's features."""
    training: bool
    """Whether the layer was in train mode."""


_WATCHED: ContextVar[bool] = ContextVar("watched", default=True)


@contextmanager
def unwatched() -> Iterator[None]:
    """Keep `calls_of` from listing the forwards inside, which probe a network and do not act."""
    token = _WATCHED.set(False)
    try:
        yield
    finally:
        _WATCHED.reset(token)


def calls_of(layers: Mapping[str, RecognisedLayer], run: Callable[[], object]) -> list[Call]:
    """Run a function, and list every forward of a noisy layer in it, of any network.

    Frameworks run copies of a model with its parameters swapped in. So every module is watched, and
    a layer counts as the model's if its σ has the same address in memory.
    """
    calls: list[Call] = []
    places = {_place(found.tensors(found.sigmas)[0]): name for name, found in layers.items()}
    known: dict[nn.Module, RecognisedLayer | None] = {}
    reading = False

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal reading
        if reading or not _WATCHED.get():
            return
        reading = True
        try:
            if module not in known:
                known[module] = recognise(module)
            found = known[module]
            if found is None:
                return
            sigma = found.tensors(found.sigmas, module)[0]
            noise = read_noise(found, module)
        finally:
            reading = False
        place, result = _place(sigma), _first(output)
        if place is None:
            noise = None
        calls.append(
            Call(
                name=places.get(place, ""),
                of="online" if place in places else "other",
                learning=isinstance(result, Tensor) and result.requires_grad,
                noise=noise,
                # A tensor of torch.vmap is nothing outside of it.
                output=result.detach().clone() if _place(result) is not None else None,
                # A weight has one dimension more than a row of the input that it is applied to.
                rows=_rows(_first(inputs), sigma.ndim - 1),
                training=module.training,
            )
        )

    handle = register_module_forward_hook(note)
    try:
        with warnings.catch_warnings():
            # A compiled module calls the hook twice; it is none of the layers.
            warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are gl")
            run()
    finally:
        handle.remove()
    return calls


def layers_where_noise_is(calls: Iterable[Call], *, on: bool) -> list[str]:
    """Return the sorted names of layers whose noise was on, or off, in any of the calls."""
    return sorted({one.name for one in calls if one.noise is not None and one.noise.is_on is on})


def _place(value: Any) -> int | None:
    """Return a tensor's address in memory; None for one of `torch.vmap`, and for other objects."""
    try:
        return value.data_ptr() if isinstance(value, Tensor) else None
    except RuntimeError:
        return None


def _first(value: Any) -> Any:
    """Return a layer's input or output without its states: the first item of a tuple."""
    while isinstance(value, tuple) and value:
        value = value[0]
    return value


def _rows(input: Any, features: int) -> int:
    return input.shape[:-features].numel() if isinstance(input, Tensor) else 1
