"""The common part of the noisy RLModules: options, noisy layers, and checks of their input."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import nn

from ...layers import mean_weights, noisify
from ..control import RecentObservations
from ..host import Forward, takes_rows
from .seeds import ActingNoise, LearningNoise

NOISE_IN = ("all", "head", "last")


class NoisyRLModule(TorchRLModule):
    """The base of the noisy RLModules; it comes before the host's module among the bases."""

    noisy_parts: ClassVar[tuple[str, ...]] = ("",)
    """What the names of the layers that may be noisy begin with."""
    noise_in: ClassVar[str] = "all"
    """The noisy layers, unless `model_config` chooses others."""

    def setup(self) -> None:
        """Build the host's networks, and make their layers noisy.

        An actor keeps an error for its first forward: the host builds the actors first, and loses
        the error if one in another process cannot be built; the learner's module raises it right
        after.
        """
        # Read first, since the host's setup changes it in a recurrent module.
        is_actor = self.inference_only
        super().setup()
        self._refused: ValueError | None = None
        try:
            self._make_noisy()
        except ValueError as error:
            if not is_actor:
                raise
            self._refused = error
        self._acting = ActingNoise()
        self.seen: RecentObservations | None = None

    def _make_noisy(self) -> None:
        """Make layers noisy, by the module's `model_config`."""
        name, options = type(self).__name__, self.model_config
        # The host knows whether a module is recurrent only after `setup`, and for SAC not even
        # then.
        if self.get_initial_state() or options.get("use_lstm"):
            raise ValueError(f"{name}: got a recurrent module, expected one with use_lstm=False")
        noise_in = options.get("noise_in", self.noise_in)
        check_noise_in(noise_in)
        linears = [
            path
            for path, part in self.named_modules()
            if type(part) is nn.Linear and path.startswith(self.noisy_parts)
        ]
        if noise_in != "all":
            linears = [path for path in linears if not path.startswith(("encoder.", "pi_encoder."))]
        if noise_in == "last":
            linears = list({path.partition(".")[0]: path for path in linears}.values())
        if not linears:
            raise ValueError(
                f"{name}: noise_in={noise_in!r} finds no nn.Linear, expected at least one to make "
                "noisy"
            )
        noisify(
            self,
            lambda path, _: path in linears,
            noise=options.get("noise", "factorised"),
            sigma0=options.get("sigma0"),
        )

    def _check_noisy(self) -> None:
        if self._refused is not None:
            raise self._refused

    def _check_rows(self, probe: Forward, batch: dict[str, Any]) -> None:
        """Raise ValueError for noise in layers whose rows are not those of the batch."""
        self._check_noisy()
        if not takes_rows(self, probe, {Columns.OBS: batch[Columns.OBS]}):
            raise ValueError(
                f"{type(self).__name__}: got noise in layers whose input has other rows than the "
                "batch, such as entities or times; expected noise_in='head' or 'last'"
            )

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        self._check_noisy()
        with torch.no_grad(), mean_weights(self):
            return super()._forward_inference(batch, **kwargs)

    def _keep_seen(self, batch: dict[str, Any]) -> None:
        if self.seen is not None:
            self.seen.add(batch[Columns.OBS])

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        for noise in vars(self).values():
            if isinstance(noise, ActingNoise | LearningNoise):
                noise.forget()  # its draws are where the layers were
        return self


def check_noise_in(noise_in: str) -> None:
    """Raise ValueError for an unknown choice of layers."""
    if noise_in not in NOISE_IN:
        expected = ", ".join(map(repr, NOISE_IN))
        raise ValueError(f"noise_in: got {noise_in!r}, expected one of {expected}")
