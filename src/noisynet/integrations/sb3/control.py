"""How much noise a Stable-Baselines3 agent has: a schedule or a target of its scale."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces

from ...control import ActionDeviation, EffectiveEpsilon, Goal, Schedule, Target
from ...control.scale import set_scale
from ...layers.outputs import Outputs
from .callback import WatchingCallback

_FITTING: dict[type[spaces.Space[Any]], tuple[type[Goal], str]] = {
    spaces.Discrete: (EffectiveEpsilon, "effective_epsilon"),
    spaces.Box: (ActionDeviation, "action_deviation"),
}
"""The goal for each kind of actions, and its option."""


class NoiseControl(WatchingCallback):
    """Callback that sets the scale of the noise: `NoiseControl(effective_epsilon=0.05)`.

    One of three: `schedule`, a function of the host's `num_timesteps` (`noisynet.control.Linear`,
    …); `effective_epsilon`, the share of greedy actions that the noise changes, for discrete
    actions; `action_deviation`, the standard deviation of continuous ones, in their own unit for
    PPO, A2C and RecurrentPPO, and where they go from -1 to 1 for the others, as the host's action
    noise has it. Targets are measured over the last `observations` and some `draws`, after each
    `every` steps (`gain` and `factor` are those of `noisynet.control.target`).

    The scale moves where a rollout starts, so that PPO and A2C learn a rollout under the noise that
    acted; online and target network have the same, and noise in TD3's critics and the like keeps
    its own. With `policy_kwargs={"learned": False}` this is adaptive parameter noise (Plappert et
    al., arXiv 1706.01905). The log gets `noise/scale` and what was measured, `noise/measured`.

    Raises TypeError for a model without a noisy policy or actions of another kind, and ValueError
    for none or several of the three, and for what `noisynet.control` refuses.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        effective_epsilon: float | None = None,
        action_deviation: float | None = None,
        every: int = 100,
        observations: int = 256,
        draws: int = 8,
        gain: float = 0.1,
        factor: float = 1.01,
        verbose: int = 0,
    ) -> None:
        super().__init__(every=every, observations=observations, draws=draws, verbose=verbose)
        goals: list[Goal] = []
        if effective_epsilon is not None:
            goals.append(EffectiveEpsilon(effective_epsilon, gain))
        if action_deviation is not None:
            goals.append(ActionDeviation(action_deviation, factor))
        if len(goals) + (schedule is not None) != 1:
            raise ValueError(
                "NoiseControl: expected one of schedule, effective_epsilon and action_deviation"
            )
        self.schedule = schedule
        self.goal = goals[0] if goals else None
        self._target: Target | None = None
        self._measured_at = 0

    def _init_callback(self) -> None:
        super()._init_callback()
        self._measured_at = self.num_timesteps
        if self.goal is None:
            return
        actions = self.model.action_space
        fitting = _FITTING.get(type(actions))
        if fitting is None or type(self.goal) is not fitting[0]:
            raise TypeError(
                f"NoiseControl: got {self.goal.words} for {type(actions).__name__} actions, "
                f"expected {'a schedule' if fitting is None else fitting[1]}"
            )
        modules = self.policy().scaled_modules
        self._target = Target(modules, self.goal, self._outputs, seed=self.model.seed or 0)

    def _outputs(self, _: Any, generator: torch.Generator) -> Outputs:
        return self.outputs(generator)

    def _on_rollout_start(self) -> None:
        if self.schedule is not None:
            value = self.schedule(self.num_timesteps)
            words = getattr(self.schedule, "words", "a schedule")
            set_scale(self.policy().scaled_modules, value, control=words)
            self.logger.record("noise/scale", value)
            return
        if not self._seen or self.num_timesteps - self._measured_at < self.every:
            return
        self._measured_at = self.num_timesteps
        assert self._target is not None, "built where there is a goal"
        self.logger.record("noise/measured", self._target.update(self._seen))
        self.logger.record("noise/scale", self._target.scale)
