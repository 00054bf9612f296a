"""The scale of the noise in an RLlib agent, the same in all its env runners and learners."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Unpack

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from ...control import Goal, Schedule
from ...control.scale import set_scale
from ...layers import Draw, draw, mean_weights, noisy_layers, using
from ...layers.outputs import Outputs, outputs_under
from ...layers.restoring import buffers_preserved
from ..control import ControlOptions, HostControl, RecentObservations
from ..spaces import check_space
from .noisy_module import NoisyRLModule


class NoiseControl(RLlibCallback):
    """A callback that sets the noise's scale, by a schedule over sampled steps or for a target.

    The host builds it without arguments, so bind them beforehand:
    `config.callbacks(functools.partial(NoiseControl, effective_epsilon=0.05))`. The scale moves at
    the end of `Algorithm.train()`, in all env runners and learners at once, so that PPO learns from
    a rollout under the scale that acted. For a target, each env runner measures on the observations
    that it acted on, and the mean of their results counts. The result of `train()` gets
    `noise/scale` and `noise/measured`.

    Options and errors are those of `HostControl`. Raises TypeError for an algorithm without one of
    our RLModules, or without a local env runner, and for a target that does not fit the actions.
    """

    def __init__(self, schedule: Schedule | None = None, **options: Unpack[ControlOptions]) -> None:
        super().__init__()
        self._control = HostControl(schedule, **options)

    def on_algorithm_init(self, *, algorithm: Algorithm, **_: Any) -> None:
        """Take over the scale of the algorithm's modules."""
        group: Any = algorithm.env_runner_group
        runner = group.local_env_runner
        modules = [] if runner is None else list(_noisy_modules(runner.module))
        if not modules:
            raise TypeError(
                "NoiseControl: found no noisy RLModule in the local env runner, expected one of "
                "NoisyDQNRLModule, NoisySACRLModule, NoisyPPORLModule, as add_noise(config) has"
            )
        for module in modules:
            check_space(self._control, module.action_space)
        self._control.begin(modules, _measured_by_the_env_runners, step=_steps(algorithm))
        self._reach(algorithm)

    def on_train_result(self, *, algorithm: Algorithm, result: dict[str, Any], **_: Any) -> None:
        """Move the scale if it is due, and add it to the result."""
        figures = self._control.move(_steps(algorithm), lambda: self._measure(algorithm))
        if figures:
            self._reach(algorithm)
            result.update(figures)

    def on_env_runners_recreated(self, *, algorithm: Algorithm, **_: Any) -> None:
        """Give new env runners the scale of the others."""
        self._reach(algorithm)

    def on_checkpoint_loaded(self, *, algorithm: Algorithm, **_: Any) -> None:
        """Continue a schedule at the step of the loaded algorithm; a target is not restored.

        The host does not call this for `Algorithm.from_checkpoint`; there, the end of the first
        `train()` sets the scale.
        """
        self._control.move(_steps(algorithm), lambda: None)
        self._reach(algorithm)

    def _measure(self, algorithm: Algorithm) -> float | None:
        control = self._control
        assert control.goal is not None, "a schedule is not measured"
        target = control.target
        number = target.measurements
        target.measurements += 1
        measure = partial(
            _measure_runner,
            goal=control.goal,
            draws=control.draws,
            seed=hash((control.seed, number)),
        )
        group: Any = algorithm.env_runner_group
        found = [one for one in group.foreach_env_runner(measure) if one is not None]
        return sum(found) / len(found) if found else None

    def _reach(self, algorithm: Algorithm) -> None:
        """Set the scale in every process; for a target, let env runners store observations."""
        control = self._control
        now = {"value": control.scale, "words": control.words}
        rows = None if control.goal is None else control.observations
        # Observations in evaluation do not count for the target.
        groups: list[Any] = [
            (algorithm.env_runner_group, rows),
            (algorithm.eval_env_runner_group, None),
        ]
        for group, kept in groups:
            if group is not None:
                group.foreach_env_runner(partial(_set_in_runner, rows=kept, **now))
        learners: Any = algorithm.learner_group
        learners.foreach_learner(partial(_set_in_learner, **now))


def _steps(algorithm: Algorithm) -> int:
    metrics: Any = algorithm.metrics
    return int(metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))


def _noisy_modules(module: Any) -> Iterator[Any]:
    """Yield the noisy RLModules of an env runner's or a learner's module."""
    modules = module.values() if isinstance(module, MultiRLModule) else (module,)
    for one in modules:
        inner = one.unwrapped()
        if isinstance(inner, NoisyRLModule) and noisy_layers(inner):
            yield inner


def _set_in_runner(runner: Any, *, value: float, words: str | None, rows: int | None) -> None:
    for module in _noisy_modules(runner.module):
        set_scale((module,), value, control=words)
        if rows is not None and module.seen is None:
            module.seen = RecentObservations(rows)


def _set_in_learner(learner: Any, *, value: float, words: str | None) -> None:
    set_scale(list(_noisy_modules(learner.module)), value, control=words)


def _measure_runner(runner: Any, *, goal: Goal, draws: int, seed: int) -> float | None:
    """Measure on the observations of an env runner, under its own draws; None if it has none."""
    found: list[float] = []
    for module in _noisy_modules(runner.module):
        if module.seen is not None and len(module.seen):
            number = hash((seed, runner.worker_index, len(found))) & (2**63 - 1)
            device = next(module.parameters()).device
            generator = torch.Generator(device).manual_seed(number)
            found.append(goal.measure(*_outputs(module, draws, generator)))
    return sum(found) / len(found) if found else None


@torch.no_grad()
def _outputs(module: Any, draws: int, generator: torch.Generator) -> Outputs:
    batch = {Columns.OBS: module.seen.last()}

    def values(one: Draw | None) -> Tensor:
        with mean_weights(module) if one is None else using(module, one):
            return module.values(batch)

    with buffers_preserved(module):
        return outputs_under(values, draw(module, rows=draws, generator=generator))


def _measured_by_the_env_runners(*_: Any) -> Outputs:
    raise AssertionError("each env runner measures what it saw")
