"""A policy that acts under a draw for each environment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, Self

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictModuleWrapper
from torch import nn
from torchrl.envs.utils import ExplorationType, exploration_type
from torchrl.modules import NoisyLinear as StockNoisyLinear

from ...layers import Draw, draw, mean_weights, noisy_layers
from ..host import run_under

_DETERMINISTIC = (ExplorationType.DETERMINISTIC, ExplorationType.MODE, ExplorationType.MEAN)


class NoisyPolicy(TensorDictModuleWrapper):
    """A policy that runs an actor under one draw of noise for each environment.

    `actor` is a QValueActor or another module of the host that reads and writes tensordicts, with
    noisynet's layers somewhere in it. The batch dimensions of a tensordict, however many, are the
    environments. Every forward redraws; after `attach`, draws are held until the next step of the
    optimizer. A copy, in a worker process for example, redraws at every forward.

    With `redraw="episode"`, each environment holds its draw until its episode ends, regardless of
    updates, and in a copy as well; the environments need the host's `InitTracker`.

    The host's exploration type has no effect unless `mean_when_deterministic` is true: then the
    policy acts by the mean weights under DETERMINISTIC, MODE and MEAN, as in evaluation. Raises
    TypeError for an actor without tensordicts, and ValueError for one without noisynet's layers, an
    unknown `redraw`, and environments that do not tell where an episode begins.
    Sources: Fortunato et al., §3.1; Plappert et al., arXiv 1706.01905, for draws by episode.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        *,
        redraw: Literal["update", "episode"] = "update",
        mean_when_deterministic: bool = False,
    ) -> None:
        if not isinstance(actor, TensorDictModuleBase):
            raise TypeError(
                f"NoisyPolicy: got {type(actor).__name__}, expected an actor that takes "
                "tensordicts, such as QValueActor"
            )
        require_noise(actor, "NoisyPolicy", "noisynet.noisify(actor) makes its nn.Linear noisy")
        if redraw not in ("update", "episode"):
            raise ValueError(f"redraw: got {redraw!r}, expected 'update' or 'episode'")
        super().__init__(actor)
        self.redraw = redraw
        self.mean_when_deterministic = mean_when_deterministic
        self.release()

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Choose actions under the noise that is due, one draw for each row of the batch."""
        actor: Any = self.td_module
        if self.mean_when_deterministic and exploration_type() in _DETERMINISTIC:
            with mean_weights(actor):
                return actor(tensordict)
        drawn = self._draw(tensordict)
        flat = tensordict if tensordict.ndim < 2 else tensordict.reshape(-1)
        output = run_under(drawn, actor, actor, flat)
        if output is tensordict:
            return output
        return tensordict.update(output.reshape(tensordict.shape))

    def hold(self) -> None:
        """Hold one draw for each environment from now on, until `resample`."""
        self._holds = True

    def resample(self) -> None:
        """Redraw at the next forward."""
        self._held = None

    def release(self) -> None:
        """Return to a new draw at every forward or, with `redraw="episode"`, in every episode."""
        self._holds = self.redraw == "episode"
        self._held: Draw | None = None

    def after_update(self) -> None:
        """Redraw at the next forward, unless draws last for an episode."""
        if self.redraw == "update":
            self.resample()

    def _draw(self, tensordict: TensorDictBase) -> Draw:
        rows = tensordict.numel() if tensordict.ndim else None
        held = self._held
        if not self._holds or held is None or held.rows != rows:
            fresh = draw(self.td_module, rows=rows)
            self._held = fresh if self._holds else None
            return fresh
        if self.redraw == "episode":
            self._held = held = self._where_episodes_begin(tensordict, held)
        return held

    def _where_episodes_begin(self, tensordict: TensorDictBase, held: Draw) -> Draw:
        begins = tensordict.get("is_init", None)
        if begins is None:
            raise ValueError(
                "NoisyPolicy: got a tensordict without 'is_init' for redraw='episode', expected "
                "environments with torchrl.envs.InitTracker()"
            )
        if not begins.any():
            return held
        fresh = draw(self.td_module, rows=held.rows)
        begins = begins.reshape(*fresh.flats[0].shape[:-1], 1)
        pairs = zip(fresh.flats, held.flats, strict=True)
        return replace(held, flats=tuple(torch.where(begins, new, old) for new, old in pairs))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # A held draw would stay on the device where the layers were.
        self.resample()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        # A copy is not told of updates: it would keep a held draw forever.
        return {**self.__dict__, "_holds": self.redraw == "episode", "_held": None}


def require_noise(module: nn.Module, what: str, cure: str) -> None:
    """Raise ValueError for a module without noisynet's layers, or with the host's noisy ones."""
    stock = [name for name, part in module.named_modules() if isinstance(part, StockNoisyLinear)]
    if stock:
        raise ValueError(
            f"{what}: got torchrl's NoisyLinear at {', '.join(map(repr, stock))}, which is silent "
            "in the host's losses; expected noisynet's layers"
        )
    if not noisy_layers(module):
        raise ValueError(f"{what}: finds no noisy layer in {type(module).__name__}; {cure}")
