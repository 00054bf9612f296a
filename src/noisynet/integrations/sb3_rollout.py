"""Rollout buffers that say whose draw each sample came from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import PyTorchObs


class ObservationsOfRows(NamedTuple):
    """Hold a minibatch's observations, and the environment of each: rows (B,) of the draw."""

    observations: PyTorchObs
    rows: np.ndarray


class NoisyRolloutBuffer(RolloutBuffer):
    """Carry which environment each sample came from, for one draw of noise per environment.

    Pass it as `rollout_buffer_class` beside `policy_kwargs={"draw_per_environment": True}`. Its
    samples' observations are of the noisy policies alone.
    """

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        return _of_rows(samples, batch_inds, self.buffer_size)


class NoisyDictRolloutBuffer(DictRolloutBuffer):
    """Do what `NoisyRolloutBuffer` does, for observations that are dicts."""

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        return _of_rows(samples, batch_inds, self.buffer_size)


ROLLOUT_BUFFERS = (NoisyRolloutBuffer, NoisyDictRolloutBuffer)


def _of_rows(samples: Any, indices: np.ndarray, steps: int) -> Any:
    # The host lays its samples out environment by environment.
    observations = ObservationsOfRows(samples.observations, indices // steps)
    return samples._replace(observations=observations)
