"""Noise inside Tianshou 2: `DQN(policy=NoisyDiscreteQLearningPolicy(model=net, …), …)`.

One policy class for each of DQN, C51 (and Rainbow) and QR-DQN; nothing of the host is changed.
`NoiseControl(algorithm, …)` sets how much noise there is. Needs the extra `tianshou`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import torch
from torch import Tensor, nn

from ..control import Schedule
from ..diagnostics import Behaviour
from ..diagnostics.behaviour import measure_draws
from ..diagnostics.forward_calls import unwatched
from ..layers import Draw, NoiseName, draw, mean_weights, noisify, noisy_layers, using
from ..layers.noise import noise_kind
from ..layers.outputs import Outputs, outputs_under
from ..layers.restoring import buffers_preserved
from .control import ControlOptions, HostControl, RecentObservations
from .host import check_host, follow, join, run_under

TESTED = {"tianshou": "2.0.1"}
"""The version of the host that this was tested with."""

check_host("noisynet.integrations.tianshou", extra="tianshou", tested=TESTED)

import numpy as np  # noqa: E402 - the host brings it
from tianshou.algorithm import C51, DQN, IQN, QRDQN, Algorithm, RainbowDQN  # noqa: E402
from tianshou.algorithm.modelfree.c51 import C51Policy  # noqa: E402
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy  # noqa: E402
from tianshou.algorithm.modelfree.qrdqn import QRDQNPolicy  # noqa: E402
from tianshou.data import Batch  # noqa: E402
from tianshou.utils.net.discrete import NoisyLinear as StockNoisyLinear  # noqa: E402

from .spaces import check_space  # noqa: E402

# The base that precedes the host's own policies; to the type checker, it is one of them.
_Host = DiscreteQLearningPolicy if TYPE_CHECKING else nn.Module

__all__ = ["NoiseControl", "NoisyC51Policy", "NoisyDiscreteQLearningPolicy", "NoisyQRDQNPolicy"]


class _NoisyPolicy(_Host):
    """A policy that acts under noise in training steps, and by the mean weights outside them.

    The host collects in eval mode and learns in train mode; its `is_within_training_step` says
    whether either is part of training. Actions are collected under one draw for each environment,
    held until the next update. The noise of the networks themselves is fresh: every forward of the
    loss draws for itself, so the online network has ε, the target network ε′ and the choice of the
    next action ε″ (§3.1).
    """

    algorithms: ClassVar[tuple[type[Algorithm[Any, Any]], ...]]
    _held: Draw | None = None

    def __init__(
        self,
        *,
        model: nn.Module,
        noise: NoiseName = "factorised",
        sigma0: float | None = None,
        eps_training: float = 0.0,
        **options: Any,
    ) -> None:
        noisy_model = _made_noisy(model, type(self).__name__, noise=noise, sigma0=sigma0)
        self._warn_of_epsilon(eps_training)
        super().__init__(model=noisy_model, eps_training=eps_training, **options)
        self.seen: RecentObservations | None = None
        self._algorithm_known = False

    def set_eps_training(self, eps: float) -> None:
        """Set the host's ε of collection, with a warning unless it is 0."""
        self._warn_of_epsilon(eps)
        super().set_eps_training(eps)

    def _warn_of_epsilon(self, eps: float) -> None:
        if eps:
            warnings.warn(
                f"{type(self).__name__}: ε-greedy explores beside the noise, ε = {eps:g}; turn it "
                "off with eps_training=0",
                stacklevel=3,
            )

    def forward(self, batch: Any, state: Any = None, model: nn.Module | None = None) -> Any:
        """Run the host's policy under the noise that is due.

        Raises TypeError at the first update of an algorithm that the policy is not for.
        """
        if not self.is_within_training_step:
            with mean_weights(self.model if model is None else model):
                return super().forward(batch, state, model)
        if model is None and not self.training:
            if self.seen is not None:
                self.seen.add(batch.obs)
            drawn = self._acting_draw(len(batch.obs))
            act = super().forward
            return run_under(drawn, self.model, lambda one: act(*one), (batch, state), joined=_join)
        if not self._algorithm_known:
            self._check_algorithm()
        # This is a loss: a step of the optimizer follows, after which new noise is due.
        self._held = None
        return super().forward(batch, state, model)

    def _acting_draw(self, environments: int) -> Draw:
        held = self._held
        if held is None or held.rows is None or held.rows < environments:
            held = self._held = draw(self.model, rows=environments)
        # At the end of a collection by episodes, fewer environments are still playing.
        return held if held.rows == environments else held[:environments]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if self._held is not None:
            self._held = follow(self._held, self.model)
        return self

    def _check_algorithm(self) -> None:
        self._algorithm_known = True
        # Read from the caller's stack frames, since the host has no supported way to find out
        # (Tianshou 2.0.1). An algorithm is built from its policy and calls `forward` on batches,
        # but hands neither itself nor its class to any method of the policy. Trainers set
        # `is_within_training_step` on it and nothing else, and a collector has the policy alone.
        # Torch's hook on registered submodules would tell, but holds for the whole process.
        frame = inspect.currentframe()
        while frame is not None and not isinstance(frame.f_locals.get("self"), Algorithm):
            frame = frame.f_back
        if frame is None:
            return
        algorithm = frame.f_locals["self"]
        # IQN is a QRDQN whose policy has quantiles at random fractions.
        if not isinstance(algorithm, self.algorithms) or isinstance(algorithm, IQN):
            expected = " or ".join(one.__name__ for one in self.algorithms)
            supported = ", ".join(
                f"{ours.__name__} for {' and '.join(one.__name__ for one in ours.algorithms)}"
                for ours in (NoisyDiscreteQLearningPolicy, NoisyC51Policy, NoisyQRDQNPolicy)
            )
            raise TypeError(
                f"{type(self).__name__}: got the algorithm {type(algorithm).__name__}, expected "
                f"{expected}; there is {supported}"
            )
        if isinstance(algorithm, C51) and algorithm.n_step > 1:
            warnings.warn(
                f"{type(self).__name__}: Tianshou's {type(algorithm).__name__} takes the "
                f"distribution of the next state for {algorithm.n_step}-step returns, as if it "
                "were that many steps on; expected n_step_return_horizon=1",
                stacklevel=3,
            )

    @torch.no_grad()
    def behaviour(
        self, observations: Any, *, draws: int = 16, generator: torch.Generator | None = None
    ) -> Behaviour:
        """Measure what the noise does to greedy actions on observations (B, …).

        The figures are those of `noisynet.behaviour`. In observations with a mask, only the actions
        that it allows are greedy. The policy's mode, draws and buffers (running means) and torch's
        global generators stay unchanged. Raises ValueError for fewer than two draws.
        """
        if draws < 2:
            raise ValueError(f"draws: got {draws!r}, expected at least 2")
        with unwatched(), buffers_preserved(self):
            drawn = draw(self.model, rows=draws, generator=generator)
            return measure_draws(self.values_of(observations), drawn)

    def values_of(self, observations: Any) -> Callable[[Draw | None], Tensor]:
        """Return a function from a draw, or None for the mean weights, to Q (B, A).

        An action that a mask in the observations forbids has the low Q that the host gives it.
        """
        batch = Batch(obs=observations, info=[None] * len(observations))
        mask = getattr(batch.obs, "mask", None)
        forward = super().forward

        def values(one: Draw | None) -> Tensor:
            with mean_weights(self.model) if one is None else using(self.model, one):
                return self.compute_q_value(forward(batch).logits, mask)

        return values


class NoisyDiscreteQLearningPolicy(_NoisyPolicy, DiscreteQLearningPolicy[Any]):
    """Exploration by learned noise in `tianshou.algorithm.DQN`, double or not.

    It accepts the options of the host's policy, by name, and also `noise` and `sigma0`, as in
    `noisynet.NoisyLinear`. Every `nn.Linear` of `model` becomes noisy in place, and other layers,
    such as convolutions, stay plain; a model that has noisynet's layers already stays as it is.
    Raises ValueError for unknown options, and for a model without an `nn.Linear` or with the host's
    own noisy layers; TypeError in another algorithm; warns of ε-greedy left on. Source: Fortunato
    et al., §3.1, eq. 15 and 16.
    """

    algorithms = (DQN,)


class NoisyC51Policy(_NoisyPolicy, C51Policy):
    """Exploration by learned noise in `tianshou.algorithm.C51` and `RainbowDQN`.

    Options, errors and source are those of `NoisyDiscreteQLearningPolicy`; the options of the
    host's `C51Policy` are accepted, too.
    """

    algorithms = (C51, RainbowDQN)


class NoisyQRDQNPolicy(_NoisyPolicy, QRDQNPolicy):
    """Exploration by learned noise in `tianshou.algorithm.QRDQN`.

    Options, errors and source are those of `NoisyDiscreteQLearningPolicy`; the greedy action has
    the largest mean over the quantiles.
    """

    algorithms = (QRDQN,)


class NoiseControl(HostControl):
    """A callable that sets the noise's scale, by a schedule over environment steps or for a target.

    It is for the host's `training_fn`, which is called before each collection:
    `OffPolicyTrainerParams(training_fn=NoiseControl(algorithm, effective_epsilon=0.05), …)`. Online
    and target network have the same scale. A target is measured on the observations that the policy
    acted on.

    Options and errors are those of `HostControl`; raises TypeError for an algorithm without one of
    our policies, and for an `action_deviation`, since the actions are discrete.
    """

    def __init__(
        self,
        algorithm: Algorithm[Any, Any],
        schedule: Schedule | None = None,
        **options: Unpack[ControlOptions],
    ) -> None:
        super().__init__(schedule, **options)
        policy = algorithm.policy
        if not isinstance(policy, _NoisyPolicy):
            raise TypeError(
                f"NoiseControl: got an algorithm with {type(policy).__name__}, expected one of "
                "NoisyDiscreteQLearningPolicy, NoisyC51Policy, NoisyQRDQNPolicy"
            )
        check_space(self, policy.action_space)
        self._policy = policy
        self._seen = RecentObservations(self.observations, _join)
        if self.goal is not None:
            policy.seen = self._seen
        self.begin((policy, algorithm), self._outputs)

    def __call__(self, epoch: int, step: int) -> None:  # noqa: ARG002 - as the host calls it
        """Move the scale at an environment step, if it is due."""
        self.move_by(step, self._seen)

    @torch.no_grad()
    def _outputs(self, observations: Any, generator: torch.Generator) -> Outputs:
        policy = self._policy
        drawn = draw(policy.model, rows=self.draws, generator=generator)
        with buffers_preserved(policy):
            return outputs_under(policy.values_of(observations), drawn)


def _made_noisy(
    model: nn.Module, policy: str, *, noise: NoiseName, sigma0: float | None
) -> nn.Module:
    """Return the model with noisy layers; raises ValueError if it cannot have any."""
    stock = _named(model, StockNoisyLinear)
    if stock:
        raise ValueError(
            f"{policy}: got tianshou's NoisyLinear at {', '.join(map(repr, stock))}, which is "
            "silent while the host collects; expected nn.Linear, which this makes noisy"
        )
    if noisy_layers(model):
        if (noise_kind(noise), sigma0) != ("factorised", None):
            raise ValueError(
                f"{policy}: got noise and sigma0 for a model that is noisy already, expected them "
                "with plain layers"
            )
        return model
    if not _named(model, nn.Linear):
        raise ValueError(
            f"{policy}: finds no nn.Linear in {type(model).__name__}, expected at least one to "
            "make noisy"
        )
    with warnings.catch_warnings():
        # Its advice is for a caller of `noisify`; here the choice is made, as the policies say.
        warnings.filterwarnings("ignore", "noisify leaves alone")
        return noisify(model, noise=noise, sigma0=sigma0)


def _join(outputs: list[Any], order: list[int]) -> Any:
    # The host would copy the batches, which fails for tensors with a gradient.
    first = outputs[0]
    if isinstance(first, Batch):
        return Batch(
            {name: _join([one[name] for one in outputs], order) for name in first.get_keys()}
        )
    return np.concatenate(outputs)[order] if isinstance(first, np.ndarray) else join(outputs, order)


def _named(model: nn.Module, kind: type[nn.Module]) -> Sequence[str]:
    return [name for name, part in model.named_modules() if isinstance(part, kind)]
