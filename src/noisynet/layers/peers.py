"""Read checkpoints of other libraries' noisy layers, by name and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .layer import is_uninitialised
from .left_out import shortened
from .linear import NoisyLinear
from .noise import NoiseKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The names that a library gives the tensors of a noisy layer, and the noise that it draws.

    `means` and `sigmas` name (weight, bias). `epsilon` names the noise, which is not loaded. A
    layer that has the names in `marks` has this layout.
    """

    peers: tuple[str, ...]
    noise: NoiseKind
    means: tuple[str, str]
    sigmas: tuple[str, str]
    epsilon: tuple[str, ...] = ()
    marks: tuple[str, str]

    @property
    def names(self) -> dict[str, str]:
        """Map the library's names to those of `NoisyLinear`."""
        ours = ("weight", "bias", "weight_sigma", "bias_sigma")
        return dict(zip((*self.means, *self.sigmas), ours, strict=True))


KAIXHIN = Layout(
    # Kaixhin/Rainbow, model.py; pytorch/rl, torchrl/modules/models/exploration.py
    peers=("kaixhin", "torchrl"),
    noise="factorised",
    means=("weight_mu", "bias_mu"),
    sigmas=("weight_sigma", "bias_sigma"),
    epsilon=("weight_epsilon", "bias_epsilon"),
    marks=("weight_mu", "weight_sigma"),
)
# vwxyzjn/cleanrl, cleanrl/rainbow_atari.py: Kaixhin's names, but every weight has its own ε.
CLEANRL = replace(KAIXHIN, peers=("cleanrl",), noise="independent")
TIANSHOU = Layout(
    # thu-ml/tianshou, tianshou/utils/net/discrete.py
    peers=("tianshou",),
    noise="factorised",
    means=("mu_W", "mu_bias"),
    sigmas=("sigma_W", "sigma_bias"),
    epsilon=("eps_p", "eps_q"),
    marks=("mu_W", "sigma_W"),
)
PFRL = Layout(
    # pfnet/pfrl, pfrl/nn/noisy_linear.py: two Linears inside the layer.
    peers=("pfrl",),
    noise="factorised",
    means=("mu.weight", "mu.bias"),
    sigmas=("sigma.weight", "sigma.bias"),
    marks=("mu.weight", "sigma.weight"),
)
BOOK_FACTORISED = Layout(
    # Deep-Reinforcement-Learning-Hands-On-Second-Edition, Chapter08/lib/dqn_extra.py. Both of its
    # layers name μ and σ alike; only ε tells which one it is.
    peers=("book", "ptan"),
    noise="factorised",
    means=("weight", "bias"),
    sigmas=("sigma_weight", "sigma_bias"),
    epsilon=("epsilon_input", "epsilon_output"),
    marks=("sigma_weight", "epsilon_input"),
)
BOOK_INDEPENDENT = replace(
    BOOK_FACTORISED,
    noise="independent",
    epsilon=("epsilon_weight", "epsilon_bias"),
    marks=("sigma_weight", "epsilon_weight"),
)

LAYOUTS = (KAIXHIN, CLEANRL, TIANSHOU, PFRL, BOOK_FACTORISED, BOOK_INDEPENDENT)
PEERS = tuple(sorted({name for layout in LAYOUTS for name in layout.peers}))


def load_peer_state_dict(
    module: nn.Module,
    state_dict: Mapping[str, Any],
    *,
    peer: str | None = None,
    strict: bool = True,
) -> Any:
    """Load a checkpoint whose noisy layers are another library's.

    `module` must have `NoisyLinear` layers where the checkpoint has noisy layers: μ and σ are
    matched by path, name and shape, (q, p) and (q,), and all other tensors are loaded unchanged.
    Layers of Kaixhin's Rainbow, TorchRL, CleanRL, Tianshou, PFRL, the book "Deep Reinforcement
    Learning Hands-On" and ptan's examples are told apart by their tensors' names; `peer` restricts
    them to one. The checkpoint's ε is ignored, and a draw that the module holds stays, since a draw
    is not part of a network.

    Everything is checked before the first write. Raises ValueError for a checkpoint without noisy
    layers, for noise of another kind than the layer's, for wrong shapes, for a module on the meta
    device, and with `strict` for keys that are missing or unknown; TypeError for anything but a
    mapping. Returns what `load_state_dict` returns: without `strict`, `missing_keys` and
    `unexpected_keys` say what was left alone.
    """
    if peer is not None and peer not in PEERS:
        raise ValueError(f"peer: got {peer!r}, expected one of {', '.join(PEERS)}, or None")
    if not isinstance(state_dict, Mapping):
        got = type(state_dict).__name__
        raise TypeError(f"state_dict: got {got}, expected tensors by name, as torch.load gives")
    translated, unknown = _translated(module, state_dict, peer)
    expected = module.state_dict()
    unknown += [theirs for ours, theirs in translated.items() if ours not in expected]
    missing = [name for name in expected if name not in translated]
    if strict and (missing or unknown):
        found = [f"nothing for {shortened(map(repr, missing))}"] if missing else []
        found += [f"unknown {shortened(map(repr, unknown))}"] if unknown else []
        raise ValueError(
            f"state_dict: got {' and '.join(found)}, expected exactly what the module has; "
            "strict=False loads the rest"
        )
    loadable = {ours: theirs for ours, theirs in translated.items() if ours in expected}
    _check_shapes(state_dict, loadable, expected)
    result = module.load_state_dict(
        {ours: state_dict[theirs] for ours, theirs in loadable.items()}, strict=False
    )
    result.unexpected_keys.extend(unknown)
    return result


def _translated(
    module: nn.Module, state_dict: Mapping[str, Any], peer: str | None
) -> tuple[dict[str, str], list[str]]:
    """Map the module's names to the checkpoint's, {ours: theirs}, and list unknown keys."""
    layers = {
        name: part
        for name, part in module.named_modules(remove_duplicate=False)
        if isinstance(part, NoisyLinear)
    }
    if not layers:
        raise ValueError(
            f"{type(module).__name__} has no noisy linear layer; noisynet.noisify makes some"
        )
    for name, layer in layers.items():
        if is_uninitialised(layer):
            raise ValueError(f"{name!r}: a {type(layer).__name__}: run one forward first")
    translated: dict[str, str] = {}
    unknown: list[str] = []
    read: set[str] = set()
    for name, layer in layers.items():
        prefix = f"{name}." if name else ""
        own = {key.removeprefix(prefix): key for key in state_dict if key.startswith(prefix)}
        layout = _layout(name, layer, {part: state_dict[key] for part, key in own.items()}, peer)
        if layout is None:
            continue
        names = layout.names
        translated |= {prefix + names[part]: key for part, key in own.items() if part in names}
        known = {*names, *layout.epsilon}
        unknown += [key for part, key in own.items() if part not in known]
        read.update(own.values())
    if not read:
        raise ValueError(
            f"state_dict: got no noisy layer of {peer or ', '.join(PEERS)} at "
            f"{shortened(map(repr, layers))}; its keys are "
            f"{shortened(map(repr, state_dict)) or 'none'}"
        )
    translated |= {key: key for key in state_dict if key not in read}
    return translated, unknown


def _layout(
    name: str, layer: NoisyLinear, own: Mapping[str, Any], peer: str | None
) -> Layout | None:
    """Return the layout that the names of a layer's tensors fit; None if none does.

    Raises ValueError for a layout whose noise is of another kind than the layer's.
    """
    fitting = [
        layout
        for layout in LAYOUTS
        if (peer is None or peer in layout.peers) and all(mark in own for mark in layout.marks)
    ]
    if len(fitting) > 1:
        # KAIXHIN and CLEANRL name their tensors alike; ε itself shows how it was drawn.
        fitting = _drawn_as(name, own.get("weight_epsilon"), own.get("bias_epsilon"))
    if not fitting:
        return None
    for layout in fitting:
        if layout.noise == layer.noise:
            return layout
    layout = fitting[0]
    draw = "draw" if len(layout.peers) > 1 else "draws"
    blended = layout is CLEANRL and peer is None
    raise ValueError(
        f"{name!r}: got {layout.noise} noise, as {' and '.join(layout.peers)} {draw} it, expected "
        f"{layer.noise} noise, as the layer has"
        + ("; if that ε is an average of factorised ones, say peer='torchrl'" if blended else "")
    )


def _drawn_as(name: str, weight_noise: Any, bias_noise: Any) -> list[Layout]:
    """Return which of KAIXHIN and CLEANRL drew this ε: a shared f(ε_j) makes it of rank 1."""
    if not isinstance(weight_noise, Tensor) or weight_noise.ndim != 2:
        return [KAIXHIN]
    noise = weight_noise.detach().double()
    if not noise.isfinite().all() or not noise.any():
        return [KAIXHIN]
    if not _has_rank_1(noise):
        return [CLEANRL]
    if isinstance(bias_noise, Tensor) and bias_noise.shape == noise.shape[:1]:
        noise = torch.cat((noise, bias_noise.detach().double().unsqueeze(1)), dim=1)
    if not _has_rank_1(noise):
        # A single column has rank 1, whatever its noise.
        if weight_noise.shape[1] == 1:
            return [CLEANRL]
        raise ValueError(
            f"{name!r}: got a bias whose noise was drawn apart from the weight's factors, expected "
            "ε_b = f(ε_j); peer='torchrl' loads it all the same"
        )
    return [KAIXHIN, CLEANRL] if min(noise.shape) == 1 else [KAIXHIN]


def _has_rank_1(matrix: Tensor) -> bool:
    """Return whether a matrix is a column times a row, within the rounding of bfloat16."""
    row, column = divmod(int(matrix.abs().argmax()), matrix.shape[1])
    product = torch.outer(matrix[:, column], matrix[row]) / matrix[row, column]
    return torch.allclose(matrix, product, rtol=0.03, atol=1e-3)


def _check_shapes(
    state_dict: Mapping[str, Any], loadable: Mapping[str, str], expected: Mapping[str, Any]
) -> None:
    for ours, theirs in loadable.items():
        value, place = state_dict[theirs], expected[ours]
        if not isinstance(place, Tensor):
            continue  # A module's own extra state, which only the module can judge.
        if not isinstance(value, Tensor):
            raise ValueError(f"{theirs}: got {type(value).__name__}, expected a tensor")
        if value.is_meta and not place.is_meta:
            raise ValueError(f"{theirs}: got a tensor without data (on meta), expected its values")
        if place.is_meta and not value.is_meta:
            raise ValueError(f"{ours}: is on meta, which keeps no values: module.to_empty first")
        if value.shape != place.shape:
            raise ValueError(
                f"{theirs}: got shape {tuple(value.shape)}, expected {tuple(place.shape)}"
            )
