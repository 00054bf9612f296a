"""The contenders of run.py: nn.Linear, noisynet's layers in their states, and those of others.

Every contender redraws its noise before each forward through its own public interface, unless its
name says that the draw is kept. `fault_of` checks it: a layer that does not redraw looks fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

import noisynet
from noisynet.layers import NoiseName
from noisynet.layers.kernels import dispatch

from . import peers

Origin = Literal["torch", "noisynet", "installed", "re-implemented"]
Sharing = Literal["none", "shared", "per row"]


def do_nothing() -> None:
    """Do nothing: the redraw of a layer that draws by itself at each forward, or never."""


def leave(_module: nn.Module, _batch: int) -> None:
    """Do nothing: the preparation of a layer that needs none for a batch of a new size."""


def no_redraw(_module: nn.Module) -> Callable[[], None]:
    """Return `do_nothing`, the redraw of a layer that needs none."""
    return do_nothing


@dataclass(frozen=True, kw_only=True)
class Contender:
    """How to make a layer, prepare it for a batch and redraw its noise."""

    name: str
    label: str
    origin: Origin
    sharing: Sharing
    make: Callable[[int, int], nn.Module]
    ready: Callable[[nn.Module, int], None] = leave
    redraw: Callable[[nn.Module], Callable[[], None]] = no_redraw
    kept: bool = False
    """Whether all forwards use the same draw."""

    @property
    def is_peer(self) -> bool:
        """Whether it is a noisy layer of another library."""
        return self.origin in ("installed", "re-implemented")


def _hold(module: nn.Module, batch: int, *, per_row: bool) -> None:
    noisynet.hold(module, rows=batch if per_row else None)


def _release_per_row(module: nn.Module, _batch: int) -> None:
    noisynet.release(module, per_row=True)


def _resample(module: nn.Module) -> Callable[[], None]:
    return partial(noisynet.resample, module)


def _method(name: str | None, module: nn.Module) -> Callable[[], None]:
    return do_nothing if name is None else getattr(module, name)


def ours() -> Iterator[Contender]:
    """Yield noisynet's layer with both kinds of noise, in every state that draws."""
    for noise in ("factorised", "independent"):
        make = partial(noisynet.NoisyLinear, noise=noise)
        states: list[tuple[str, str, Sharing, Callable[[nn.Module, int], None], bool, bool]] = [
            ("", "fresh", "shared", leave, False, False),
            ("-resample", "held, resampled", "shared", partial(_hold, per_row=False), True, False),
            ("-rows", "fresh", "per row", _release_per_row, False, False),
            (
                "-rows-resample",
                "held, resampled",
                "per row",
                partial(_hold, per_row=True),
                True,
                False,
            ),
            ("-rows-held", "held, kept", "per row", partial(_hold, per_row=True), False, True),
        ]
        for suffix, state, sharing, ready, resampled, kept in states:
            yield Contender(
                name=f"noisynet-{noise}{suffix}",
                label=f"noisynet {noise}, {sharing}, {state}",
                origin="noisynet",
                sharing=sharing,
                make=make,
                ready=ready,
                redraw=_resample if resampled else no_redraw,
                kept=kept,
            )


class Plain(nn.Module):
    """A layer that runs by plain operations instead of its kernels, compiled or not."""

    def __init__(self, layer: nn.Module, *, compiled: bool) -> None:
        """Wrap a layer; its parameters become this module's."""
        super().__init__()
        self.layer = layer
        # Not registered as a submodule: the parameters are counted once.
        self.__dict__["run"] = torch.compile(layer, dynamic=False) if compiled else layer

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        with dispatch.plain_operations():
            return self.__dict__["run"](input)


def on_a_gpu() -> Iterator[Contender]:
    """Yield the layer with its kernels, eager and compiled; without a kernel "triton" is eager."""
    states: list[tuple[NoiseName, str, Sharing, Callable[[nn.Module, int], None]]] = [
        ("factorised", "", "shared", leave),
        ("factorised", "-rows", "per row", _release_per_row),
        ("independent", "", "shared", leave),
    ]
    for noise, suffix, sharing, ready in states:
        make = partial(noisynet.NoisyLinear, noise=noise)
        for way in ("triton", "eager", "compiled"):
            wrap = {
                "triton": make,
                "eager": lambda p, q, make=make: Plain(make(p, q), compiled=False),
                "compiled": lambda p, q, make=make: Plain(make(p, q), compiled=True),
            }
            yield Contender(
                name=f"{way}-{noise}{suffix}",
                label=f"noisynet {noise}, {sharing}, fresh: {way}",
                origin="noisynet",
                sharing=sharing,
                make=wrap[way],
                ready=ready,
            )


def reimplemented() -> Iterator[Contender]:
    """Yield the layers that are re-implemented from their published description."""
    for name, (label, layer) in peers.REIMPLEMENTED.items():
        yield Contender(
            name=name,
            label=label + peers.MARK,
            origin="re-implemented",
            sharing="shared",
            make=layer,
            redraw=partial(_method, "redraw"),
        )


def contenders(
    only: list[str] | None = None, *, gpu: bool = False
) -> tuple[list[Contender], dict[str, str]]:
    """Return the contenders, nn.Linear first, and {name: reason} of those that cannot compete.

    With `gpu`, ours also take part with their kernels, eager and compiled. `only` lists patterns of
    names to select. Raises ValueError for a pattern that matches no name.
    """
    plain = Contender(
        name="linear", label="nn.Linear", origin="torch", sharing="none", make=nn.Linear
    )
    competing = [plain, *ours(), *(on_a_gpu() if gpu else ())]
    absent: dict[str, str] = {}
    for package, (make, method) in peers.INSTALLED.items():
        try:
            make(2, 2)
            label = f"{package} {peers.installed_version(package)}"
        except ImportError as error:
            absent[package] = f"not installed (pip install {package}): {error}"
            continue
        competing.append(
            Contender(
                name=package,
                label=label,
                origin="installed",
                sharing="shared",
                make=make,
                redraw=partial(_method, method),
            )
        )
    competing.extend(reimplemented())
    if only:
        names = [contender.name for contender in competing] + list(absent)
        for pattern in only:
            if not any(fnmatch(name, pattern) for name in names):
                raise ValueError(f"--only: got {pattern!r}, expected one of {', '.join(names)}")
        competing = [
            contender
            for contender in competing
            if contender is plain or any(fnmatch(contender.name, pattern) for pattern in only)
        ]
    return competing, absent


def fault_of(contender: Contender, device: torch.device) -> str | None:
    """Return what a contender does wrong, or None: it must draw and learn as its entry says."""
    batch = 4
    layer = contender.make(24, 16).to(device)
    contender.ready(layer, batch)
    redraw = contender.redraw(layer)
    # The rows of the input are equal: what differs between the rows of the output is noise.
    input = torch.ones(batch, 24, device=device, requires_grad=True)

    def forward() -> Tensor:
        redraw()
        return layer(input)

    first, second = forward().detach(), forward()
    draws = contender.sharing != "none" and not contender.kept
    if close(first, second.detach()) == draws:
        return f"its noise {'did not change' if draws else 'changed'} from forward to forward"
    if close(first[:1], first[1:]) == (contender.sharing == "per row"):
        return f"its noise is not {contender.sharing}"
    second.square().sum().backward()
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any()):
            return f"{name} got no gradient"
    return None


def close(first: Tensor, second: Tensor) -> bool:
    """Return whether two outputs agree except for rounding."""
    return bool(torch.isclose(first, second, rtol=1e-5, atol=1e-5).all())
