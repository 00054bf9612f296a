"""The scale of the noise in a Stable-Baselines3 agent, set by a schedule or for a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch

from ...control import Schedule
from ...layers.outputs import Outputs
from ..control import ControlOptions, HostControl, check_state
from ..spaces import check_space
from .callback import WatchingCallback


class NoiseControl(WatchingCallback):
    """A callback that sets the scale of the noise: `NoiseControl(effective_epsilon=0.05)`.

    `schedule` is a function of the host's `num_timesteps`. `effective_epsilon` is for discrete
    actions, and `action_deviation` for continuous ones: in their own unit for PPO, A2C and
    RecurrentPPO, and for the others on the scale from -1 to 1, as for the host's action noise.
    Without `seed`, the draws for measuring are seeded by the model's seed.

    The scale moves at the start of a rollout, so that PPO and A2C learn from a rollout under the
    noise that acted. Online and target networks have the same scale; the noise of critics, as in
    TD3, keeps its own. With `policy_kwargs={"learned": False}`, this is adaptive parameter noise
    (Plappert et al., arXiv 1706.01905; theirs is in all layers). The log gets `noise/scale` and
    `noise/measured`. `state_dict` and `load_state_dict` are for a training that is resumed.

    Options and errors are those of `HostControl`, with at least two `draws`; raises TypeError for a
    model without a noisy policy, for a target that does not fit the actions, and inside a callback
    for events, such as EveryNTimesteps.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        verbose: int = 0,
        **options: Unpack[ControlOptions],
    ) -> None:
        control = HostControl(schedule, **options)
        super().__init__(
            every=control.every,
            observations=control.observations,
            draws=control.draws,
            verbose=verbose,
        )
        self._control = control
        self._seed = options.get("seed")
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state to resume from: the host's own files do not store the scale.

        Raises RuntimeError before the first `learn`.
        """
        if self._loaded is not None:
            return dict(self._loaded)
        self.policy()  # raises if there is none
        return self._control.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned, at the beginning of the next `learn`.

        Raises TypeError for anything else.
        """
        check_state(state)
        self._loaded = dict(state)

    def _init_callback(self) -> None:
        super()._init_callback()
        if self._loaded is not None:
            self._control.load_state_dict(self._loaded)
            self._loaded = None

    def _begin(self) -> None:
        check_space(self._control, self.model.action_space)
        self._control.seed = (self.model.seed or 0) if self._seed is None else self._seed
        # The host sets the callback's own `num_timesteps` later.
        step = self.model.num_timesteps
        self._control.begin(self.policy().scaled_modules, self._outputs, step=step)

    def _outputs(self, _: Any, generator: torch.Generator) -> Outputs:
        return self.outputs(generator)

    def _on_rollout_start(self) -> None:
        for name, value in self._control.move(self.num_timesteps, self._measure).items():
            self.logger.record(name, value)

    def _measure(self) -> float | None:
        return self._control.target.measure(self._seen) if self._seen else None
