"""Functions over whole modules that hold noise, redraw it, apply a draw, or switch noise off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import overload

import torch
from torch import Tensor, nn

from .draws import Draw, Slot, check_batch_first, check_rows
from .layer import NoisyLayer
from .noise import LayerSpec, standard_normals
from .noise_state import OFF, Off


def noisy_layers(module: nn.Module) -> dict[str, NoisyLayer]:
    """List the noisy layers of a module, {name: layer}; a noisy root has the name "".

    Raises TypeError for anything but a module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"got {type(module).__name__}, expected an nn.Module; options go by name, as rows=8"
        )
    return {name: part for name, part in module.named_modules() if isinstance(part, NoisyLayer)}


def _require_layers(module: nn.Module) -> dict[str, NoisyLayer]:
    layers = noisy_layers(module)
    if not layers:
        raise ValueError(f"{type(module).__name__} has no noisy layer; noisynet.noisify makes some")
    return layers


def _require_layers_of_all(modules: Sequence[nn.Module]) -> list[dict[str, NoisyLayer]]:
    """List the noisy layers of all modules; raise an error before the first module is changed."""
    if not modules:
        raise TypeError("got no module, expected at least one")
    return [_require_layers(module) for module in modules]


_Group = dict[str, LayerSpec]
"""The specs of the layers with one device, dtype and kind of noise, {name: spec}."""


def _draw_groups(
    layers: dict[str, NoisyLayer], rows: int | None, generator: torch.Generator | None
) -> list[tuple[_Group, Tensor]]:
    """Draw flat ε values for all layers: one random call per device, dtype and kind of noise.

    Callers leave inference_mode first: what is drawn may be used in training later.
    """
    groups: dict[tuple[torch.device, torch.dtype, str], _Group] = {}
    for name, layer in layers.items():
        spec, reference = layer.noise_spec(), layer.noise_reference
        groups.setdefault((reference.device, reference.dtype, spec.kind), {})[name] = spec
    leading = () if rows is None else (rows,)
    drawn: list[tuple[_Group, Tensor]] = []
    for (device, dtype, _), group in groups.items():
        size = sum(spec.size for spec in group.values())
        values = standard_normals((*leading, size), device, dtype, generator)
        drawn.append((group, next(iter(group.values())).from_normals(values)))
    return drawn


def _draw(
    layers: dict[str, NoisyLayer],
    rows: int | None,
    generator: torch.Generator | None,
    batch_first: bool = False,
) -> Draw:
    """Draw noise for all layers, and return it as a value."""
    drawn = _draw_groups(layers, rows, generator)
    slots: list[Slot] = []
    for number, (group, _) in enumerate(drawn):
        start = 0
        for name, spec in group.items():
            slots.append(Slot(name, spec, number, start))
            start += spec.size
    return Draw(tuple(flat for _, flat in drawn), tuple(slots), batch_first)


@overload
def draw(
    module: nn.Module,
    /,
    *,
    rows: int | None = None,
    batch_first: bool = False,
    generator: torch.Generator | None = None,
) -> Draw: ...
@overload
def draw(
    module: nn.Module,
    second: nn.Module,
    /,
    *more: nn.Module,
    rows: int | None = None,
    batch_first: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Draw, ...]: ...
@torch.inference_mode(False)
def draw(
    *modules: nn.Module,
    rows: int | None = None,
    batch_first: bool = False,
    generator: torch.Generator | None = None,
) -> Draw | tuple[Draw, ...]:
    """Draw noise for all layers and return it as a value; the module does not change.

    With `rows`, the result has one independent draw for each row of a batch. Rows are the dimension
    beside a layer's features, or with `batch_first` the first one (see `hold`). For several
    modules, returns a tuple with a draw for each. Raises ValueError for a module without noisy
    layers, rows below 1, `batch_first` without rows, or a generator of another device.
    """
    check_rows(rows)
    check_batch_first(batch_first, rows)
    draws = tuple(
        _draw(layers, rows, generator, batch_first) for layers in _require_layers_of_all(modules)
    )
    return draws[0] if len(draws) == 1 else draws


@torch.inference_mode(False)
def hold(
    *modules: nn.Module,
    rows: int | None = None,
    batch_first: bool | None = None,
    generator: torch.Generator | None = None,
    static: bool = False,
    drawn: Draw | None = None,
) -> None:
    """Draw once, now; every forward uses that draw until the next `resample` or `release`.

    With `rows`, there is one independent draw per row: row i of an input (…, rows, p) always uses
    draw i. With `batch_first`, rows are the first dimension, as in (batch, time, features), and all
    vectors of a row share its draw. Inputs (rows, p) fit both. Which dimension is meant is never
    guessed from a size: any other number of rows raises ValueError at the forward. A convolution's
    rows precede its channels, (…, rows, channels, *spatial); with `batch_first` they are the first
    dimension, which is the same if only one precedes the channels. Attention layers know which
    dimension is the batch, and raise ValueError if the rows are in another.

    `drawn` is held instead of a new draw; its rows are in the dimension that it records, unless
    `batch_first` is given. `static` keeps the draw at a fixed address, which later redraws write
    into, for CUDA graphs. Raises ValueError as `draw` and `using` do.
    """
    check_rows(rows)
    if drawn is not None and (rows is not None or generator is not None):
        raise ValueError("hold: got a draw and rows or a generator, expected one or the other")
    if drawn is None:
        check_batch_first(batch_first, rows)
    all_layers = _require_layers_of_all(modules)
    all_draws = [
        _draw(layers, rows, generator, bool(batch_first))
        if drawn is None
        else _with_rows(drawn, batch_first)
        for layers in all_layers
    ]
    all_flats = [_fitting(one, layers) for one, layers in zip(all_draws, all_layers, strict=True)]
    for layers, one, flats in zip(all_layers, all_draws, all_flats, strict=True):
        for name, layer in layers.items():
            layer.noise_state.hold(flats[name], static=static, batch_first=one.batch_first)


@torch.inference_mode(False)
def resample(
    *modules: nn.Module,
    where: Tensor | Sequence[bool] | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Redraw what is held, with the same number of rows; a fresh module becomes held.

    `where`, one boolean per row, redraws only the rows where it is true. A backward still uses the
    draw of its forward. Raises ValueError for a mask where no draw per row is held, or of the wrong
    length or dtype.
    """
    groups = [
        (rows, group, None if where is None else _check_mask(where, rows))
        for layers in _require_layers_of_all(modules)
        for rows, group in _by_rows(layers).items()
    ]
    for rows, group, mask in groups:
        # Each layer keeps its own `batch_first`.
        flats: dict[str, Tensor] = {}
        for specs, drawn in _draw_groups(group, rows, generator):
            sizes = [spec.size for spec in specs.values()]
            flats.update(zip(specs, torch.split_with_sizes(drawn, sizes, -1), strict=True))
        for name, flat in flats.items():
            state = group[name].noise_state
            if mask is not None and state.held is not None:
                # Into the new draw's memory: compiled forwards rely on the strides of what is held.
                # Not by `out=`, which the compiler does not accept for a part of a tensor.
                chosen = mask.to(flat.device).unsqueeze(-1)
                flat.copy_(torch.where(chosen, flat, state.held))
            first = state.batch_first and rows is not None
            state.hold(flat, static=state.static, batch_first=first)


def _by_rows(layers: dict[str, NoisyLayer]) -> dict[int | None, dict[str, NoisyLayer]]:
    groups: dict[int | None, dict[str, NoisyLayer]] = {}
    for name, layer in layers.items():
        held = layer.noise_state.held
        rows = held.shape[0] if held is not None and held.ndim == 2 else None
        groups.setdefault(rows, {})[name] = layer
    return groups


def _check_mask(where: Tensor | Sequence[bool], rows: int | None) -> Tensor:
    mask = torch.as_tensor(where)
    if rows is None:
        raise ValueError("where: got a mask, expected none: no draw per row is held (hold(rows=…))")
    if mask.dtype != torch.bool or mask.shape != (rows,):
        raise ValueError(
            f"where: got {mask.dtype} of shape {tuple(mask.shape)}, "
            f"expected torch.bool of shape ({rows},), one per row held"
        )
    return mask


def release(*modules: nn.Module, per_row: bool = False, batch_first: bool = False) -> None:
    """Return to a fresh draw at every forward; with `per_row`, one for each row of the input.

    In an input (batch, time, features), each vector of features is a row; with `batch_first`, each
    index of the first dimension is one. Raises ValueError for a module without noisy layers, and
    for `batch_first` without `per_row`.
    """
    if batch_first and not per_row:
        raise ValueError("batch_first: got True without per_row, expected it with per_row=True")
    for layers in _require_layers_of_all(modules):
        for layer in layers.values():
            layer.noise_state.release(per_row=per_row, batch_first=batch_first)


@torch.inference_mode(False)
def held(module: nn.Module) -> Draw | None:
    """Return the draw that a module holds, as a copy; None if its noise is fresh.

    Raises ValueError if only some layers hold one, or if layers hold different numbers of rows or
    have them in different places: such noise is not one draw of the module.
    """
    layers = _require_layers(module)
    flats: list[Tensor] = []
    slots: list[Slot] = []
    first = {layer.noise_state.batch_first for layer in layers.values()}
    for name, layer in layers.items():
        flat = layer.noise_state.held
        if flat is not None:
            slots.append(Slot(name, layer.noise_spec(), len(flats), 0))
            flats.append(flat.clone())
    if not flats:
        return None
    rows = {flat.shape[:-1] for flat in flats}
    if len(flats) < len(layers) or len(rows) > 1 or len(first) > 1:
        raise ValueError("held: the layers hold different draws; hold the whole module to have one")
    return Draw(tuple(flats), tuple(slots), first.pop())


@contextmanager
def using(module: nn.Module, drawn: Draw, *, batch_first: bool | None = None) -> Iterator[None]:
    """Use a given draw inside the block; restore the former state afterwards, even after an error.

    Rows are in the dimension that the draw records, unless `batch_first` is given: a draw that
    acted on (rows, features) can be used to learn from (rows, time, features). Raises ValueError
    for a draw that was made for other layers, or lies on another device, and for `batch_first` of a
    draw without rows.
    """
    with using_repeatedly(module, _with_rows(drawn, batch_first))():
        yield


def using_repeatedly(module: nn.Module, drawn: Draw) -> Callable[[], AbstractContextManager[None]]:
    """Return a function that opens `using(module, drawn)` repeatedly, with its checks made once.

    It is for a draw that many forwards use, of a module whose layers stay the same and on their
    device. Errors are those of `using`.
    """
    layers = _require_layers(module)
    return partial(_override, layers, _fitting(drawn, layers), drawn.batch_first)


def _with_rows(drawn: Draw, batch_first: bool | None) -> Draw:
    """Return the draw with its rows where `batch_first` says, or as it is if that is None."""
    if batch_first is None or not isinstance(drawn, Draw):
        return drawn
    check_batch_first(batch_first, drawn.rows)
    return replace(drawn, batch_first=batch_first)


def _fitting(drawn: Draw, layers: Mapping[str, NoisyLayer]) -> dict[str, Tensor]:
    """Return the flat noise of each layer; raise ValueError if the draw does not fit the layers."""
    if not isinstance(drawn, Draw):
        raise TypeError(f"draw: got {type(drawn).__name__}, expected a noisynet.Draw")
    flats: dict[str, Tensor] = {}
    for slot in drawn.slots:
        layer = layers.get(slot.name)
        if layer is None or layer.noise_spec() != slot.spec:
            what = "no such noisy layer" if layer is None else f"{layer.noise_spec()}"
            raise ValueError(f"draw: got noise for {slot.name!r}, {slot.spec}; here is {what}")
        flat = drawn.flat(slot)
        reference = layer.noise_reference
        if flat.device != reference.device or flat.dtype != reference.dtype:
            raise ValueError(
                f"draw: got {flat.dtype} on {flat.device}, expected {reference.dtype} on "
                f"{reference.device} for {slot.name!r}; move it with draw.to(…)"
            )
        flats[slot.name] = flat
    missing = [name for name in layers if name not in flats]
    if missing:
        raise ValueError(f"draw: got no noise for {', '.join(map(repr, missing))}")
    return flats


@contextmanager
def mean_weights(*modules: nn.Module) -> Iterator[None]:
    """Switch the noise off inside the block: layers use their means alone, exactly like plain ones.

    The former state is restored afterwards, even after an error. A module without noisy layers does
    not change.
    """
    layers = {
        f"{number}.{name}": layer
        for number, module in enumerate(modules)
        for name, layer in noisy_layers(module).items()
    }
    with _override(layers, dict.fromkeys(layers, OFF)):
        yield


@contextmanager
def _override(
    layers: Mapping[str, NoisyLayer],
    overrides: Mapping[str, Tensor] | Mapping[str, Off],
    batch_first: bool = False,
) -> Iterator[None]:
    states = {name: layer.noise_state for name, layer in layers.items()}
    former = {name: (one.override, one.override_batch_first) for name, one in states.items()}
    for name, state in states.items():
        state.override, state.override_batch_first = overrides[name], batch_first
    try:
        yield
    finally:
        for name, state in states.items():
            state.override, state.override_batch_first = former[name]
