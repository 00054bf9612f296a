"""Common parts of the adapters: checks of a host's version, and forwards with a draw per row."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..diagnostics.forward_calls import unwatched
from ..extras import install_command
from ..layers import Draw, mean_weights, noisy_layers, using
from ..layers.restoring import buffers_preserved

Forward = Callable[[Any], Any]


def check_host(
    adapter: str, *, extra: str, tested: Mapping[str, str], needs: Sequence[str] = ()
) -> None:
    """Check that the packages of a host are installed; `tested` is {distribution: version}.

    `needs` are other distributions that the host needs, and does not bring by itself. Raises
    ModuleNotFoundError with the extra to install if one is missing; warns of a version that differs
    from the tested one, naming both.
    """
    for package, expected in {**tested, **dict.fromkeys(needs)}.items():
        try:
            installed = version(package).partition("+")[0]
        except PackageNotFoundError:
            raise ModuleNotFoundError(
                f"{adapter} needs {package}: {install_command(extra)}", name=package
            ) from None
        if expected is not None and installed != expected:
            warnings.warn(
                f"{adapter} was tested with {package} {expected}, and {installed} is installed",
                stacklevel=3,
            )


_TAKES_ROWS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def takes_rows(network: nn.Module, probe: Forward, batch: Any) -> bool:
    """Return whether the rows that every noisy layer of a network sees are those of the batch.

    A layer has the rows of a draw in the dimension before its features. In a network over sets or
    sequences, these are the entities or the time steps, and their number may equal the batch size
    by chance. So `probe`, a forward of the whole network, runs with 2 and with 3 rows of the batch,
    once for each network.
    """
    if network not in _TAKES_ROWS:
        with torch.no_grad(), unwatched(), mean_weights(network), buffers_preserved(network):
            _TAKES_ROWS[network] = all(
                rows == (size,)
                for size in (2, 3)
                for rows in _rows_seen(network, probe, take(batch, [0] * size))
            )
    return _TAKES_ROWS[network]


def _rows_seen(network: nn.Module, probe: Forward, batch: Any) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []

    def note(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        input = args[0] if args else kwargs["input"]
        # A weight has one dimension more than a row of the input.
        features = layer.noise_reference.ndim - 1
        seen.append(tuple(input.shape[: input.ndim - features]))

    handles = [
        layer.register_forward_pre_hook(note, with_kwargs=True)
        for layer in noisy_layers(network).values()
    ]
    try:
        probe(batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def run_under(
    drawn: Draw | None,
    network: nn.Module,
    forward: Forward,
    batch: Any,
    *,
    rows: Sequence[int] | None = None,
    probe: tuple[Forward, Any] | None = None,
    joined: Callable[[list[Any], list[int]], Any] | None = None,
    apart: bool = False,
) -> Any:
    """Run `forward` on a batch of the host under a draw, or under the mean weights for None.

    If the draw has rows, row i of the batch, its first dimension, uses draw i, or draw `rows[i]` if
    `rows` is given. A network whose layers see other rows runs once for each draw, on the rows that
    use it, and so does any network if `apart`. If `forward` is only a part of the network, `probe`
    is a forward of all of it, and its batch. `joined` replaces `join` for outputs of the host's own
    types.
    """
    if drawn is None:
        with mean_weights(network):
            return forward(batch)
    if drawn.rows is None or (not apart and takes_rows(network, *(probe or (forward, batch)))):
        with using(network, drawn if rows is None else drawn[rows]):
            return forward(batch)
    numbers = range(drawn.rows) if rows is None else rows
    if len(numbers) != size_of(batch):
        raise ValueError(f"got {size_of(batch)} rows, expected {len(numbers)}, one for each draw")
    places: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        places.setdefault(int(number), []).append(place)
    outputs: list[Any] = []
    for number, own in places.items():
        with using(network, drawn[number]):
            outputs.append(forward(take(batch, own)))
    moved = [place for own in places.values() for place in own]
    return (joined or join)(outputs, sorted(range(len(moved)), key=moved.__getitem__))


def follow(drawn: Draw, network: nn.Module) -> Draw:
    """Return a draw moved to the devices and dtypes that the layers of a network have now."""
    layers, flats = noisy_layers(network), []
    for slot in drawn.slots:
        flat, reference = drawn.flat(slot), layers[slot.name].noise_reference
        if flat.is_meta and not reference.is_meta:  # it has no values that could be moved
            flat = slot.spec.draw(flat.shape[:-1], device=reference.device, dtype=reference.dtype)
        flats.append(flat.to(device=reference.device, dtype=reference.dtype))
    slots = tuple(replace(slot, group=n, start=0) for n, slot in enumerate(drawn.slots))
    return replace(drawn, flats=tuple(flats), slots=slots)


def take(batch: Any, rows: list[int]) -> Any:
    """Return rows of a batch: a tensor or the like, None, or a tuple or dict of such."""
    if isinstance(batch, tuple):
        return tuple(take(part, rows) for part in batch)
    if isinstance(batch, dict):
        return {name: take(part, rows) for name, part in batch.items()}
    return None if batch is None else batch[rows]


def join(outputs: list[Any], order: list[int]) -> Any:
    """Concatenate outputs of the types that `take` accepts, and put their rows into an order."""
    first = outputs[0]
    if isinstance(first, tuple):
        return tuple(join(list(parts), order) for parts in zip(*outputs, strict=True))
    if isinstance(first, dict):
        return {name: join([one[name] for one in outputs], order) for name in first}
    return None if first is None else torch.cat(outputs)[order]


def to_device(batch: Any, device: torch.device) -> Any:
    """Return a batch of a type that `take` accepts with its tensors on a device."""
    if isinstance(batch, tuple):
        return tuple(to_device(part, device) for part in batch)
    if isinstance(batch, dict):
        return {name: to_device(part, device) for name, part in batch.items()}
    return batch.to(device) if isinstance(batch, torch.Tensor) else batch


def size_of(batch: Any) -> int:
    """Return the number of rows of a batch of a type that `take` accepts."""
    if isinstance(batch, tuple):
        return size_of(batch[0])
    return size_of(next(iter(batch.values()))) if isinstance(batch, dict) else len(batch)
