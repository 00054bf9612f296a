"""The noisy policy for sb3-contrib's RecurrentPPO, whose noise is held over the rollout."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.buffers import (
    RecurrentDictRolloutBuffer,
    RecurrentRolloutBuffer,
)
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from ...layers import Draw, draw, hold, mean_weights, noisy_layers, using
from ..host import run_under, takes_rows
from .actor_critic import ObservationsOfRows, RolloutPolicy
from .algorithm import ALGORITHMS, check_algorithm
from .noisy_policy import batch_size, draw_for

States = tuple[Tensor, Tensor]
_Host: Any = RecurrentActorCriticPolicy
"""The host's policy, untyped: it also accepts dicts, which its annotations leave out."""


class NoisyRecurrentRolloutBuffer(RecurrentRolloutBuffer):
    """A recurrent rollout buffer that records which environment each sequence came from."""

    def _get_samples(self, batch_inds: np.ndarray, env_change: np.ndarray, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env_change, env)
        return _with_rows(samples, batch_inds, self)


class NoisyRecurrentDictRolloutBuffer(RecurrentDictRolloutBuffer):
    """`NoisyRecurrentRolloutBuffer` for observations that are dicts."""

    def _get_samples(self, batch_inds: np.ndarray, env_change: np.ndarray, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env_change, env)
        return _with_rows(samples, batch_inds, self)


def _with_rows(samples: Any, indices: np.ndarray, buffer: Any) -> Any:
    # The host lays its samples out environment by environment, and no sequence spans two.
    rows = indices[buffer.seq_start_indices] // buffer.buffer_size
    return samples._replace(observations=ObservationsOfRows(samples.observations, rows))


class NoisyRecurrentPPO(RecurrentPPO):
    """A `RecurrentPPO` whose buffer records which environment each sequence came from.

    It is for one draw of noise per environment, `policy_kwargs={"draw_per_environment": True}`,
    since the host's class has no `rollout_buffer_class`. Nothing else differs.
    """

    def _setup_model(self) -> None:
        super()._setup_model()
        is_dict = isinstance(self.observation_space, spaces.Dict)
        kind = NoisyRecurrentDictRolloutBuffer if is_dict else NoisyRecurrentRolloutBuffer
        self.rollout_buffer.__class__ = kind


# The host's recurrent policy takes more arguments than its base does, and so does this one.
class NoisyRecurrentPPOPolicy(RolloutPolicy, RecurrentActorCriticPolicy):
    """Exploration by learned noise in `sb3_contrib.RecurrentPPO`.

    `RecurrentPPO(NoisyRecurrentPPOPolicy, env, …)`. Options, errors and source are those of
    `NoisyPPOPolicy`, except that "all" and "head" of `noise_in` include the LSTMs, and that
    `draw_per_environment` needs `NoisyRecurrentPPO` in place of the host's class. The draw is held
    over the whole rollout: the start of an episode resets only the LSTM's state.
    """

    algorithm = ALGORITHMS["NoisyRecurrentPPOPolicy"]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **options)
        # The host adds the LSTMs after `_build`.
        super()._make_noisy(lr_schedule)

    def _make_noisy(self, lr_schedule: Schedule) -> None:
        pass

    def _check_algorithm(self) -> BaseAlgorithm | None:
        algorithm = check_algorithm(self, self.algorithm)
        if self.draw_per_environment and algorithm is not None:
            self._check_buffer(isinstance(algorithm, NoisyRecurrentPPO))
        return algorithm

    def _check_buffer(self, knows_rows: bool) -> None:
        if not knows_rows:
            raise ValueError(
                f"{type(self).__name__}: draw_per_environment=True needs NoisyRecurrentPPO in "
                "place of RecurrentPPO, whose buffer says whose draw each sequence came from"
            )

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: States, episode_starts: Tensor, lstm: nn.LSTM
    ) -> Any:
        """Run an LSTM over sequences, from a reset state if an episode starts at the first step.

        In sequences from the host's buffer, episodes start nowhere else. So only other callers get
        the host's loop over time steps, which would compute the noisy weights at each of them.
        """
        sequences = lstm_states[0].shape[1]
        starts = episode_starts.reshape(sequences, -1)
        goes_on = (1.0 - starts[:, 0]).view(1, sequences, 1)
        hidden, cell = lstm_states
        later = torch.cat([torch.zeros_like(starts[:, :1]), starts[:, 1:]], dim=1).flatten()
        return _Host._process_sequence(features, (goes_on * hidden, goes_on * cell), later, lstm)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        obs: Tensor,
        lstm_states: RNNStates,
        episode_starts: Tensor,
        deterministic: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, RNNStates]:
        """Return action, value, log-probability and states for the host's collection.

        With `deterministic`, the action is the policy's mode under the mean weights. With a draw
        for each environment, any other number of observations is evaluated by the mean weights.
        """
        arguments = (obs, lstm_states, episode_starts)
        if self._starts and not deterministic and noisy_layers(self):
            self._draw_for_rollout(obs)
        if deterministic or self._lacks_draws_for(obs):
            with mean_weights(self):
                return _Host.forward(self, *arguments, deterministic)
        with self._acting.used():
            return _Host.forward(self, *arguments)

    def _draw_for_rollout(self, obs: PyTorchObs) -> None:
        rows = batch_size(obs) if self.draw_per_environment else None
        if rows is not None:
            self._check_extractors(obs)
        self._rollout_draw = draw(self, rows=rows)
        self._updated = self._starts = False
        self._holds = True
        hold(self, drawn=self._rollout_draw)

    def _check_extractors(self, obs: PyTorchObs) -> None:
        unfit = self._extractor_of_other_rows(obs)
        if unfit is not None:
            raise ValueError(
                f"{type(self).__name__}: draw_per_environment=True: the layers of "
                f"{type(unfit).__name__} see other rows than the environments; pass "
                "noise_in='head', or 'last', the default"
            )

    def _extractor_of_other_rows(self, obs: PyTorchObs) -> nn.Module | None:
        """Return a features extractor whose noisy layers see other rows than a batch has, if any.

        All other layers see the rows of the batch: that is how the host calls them.
        """
        for extractor in (self.pi_features_extractor, self.vf_features_extractor):
            probe = lambda one, of=extractor: super(  # noqa: E731
                RecurrentActorCriticPolicy, self
            ).extract_features(one, of)
            if noisy_layers(extractor) and not takes_rows(extractor, probe, obs):
                return extractor
        return None

    def predict_values(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, obs: PyTorchObs, lstm_states: States, episode_starts: Tensor
    ) -> Tensor:
        """Estimate values under the draw in force: (N, 1).

        With a draw for each environment, any other number of observations is evaluated by the mean
        weights: at a time limit, the host asks for one value without the environment's number.
        """
        with mean_weights(self) if self._lacks_draws_for(obs) else nullcontext():
            return _Host.predict_values(self, obs, lstm_states, episode_starts)

    def evaluate_actions(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        obs: PyTorchObs | ObservationsOfRows,
        actions: Tensor,
        lstm_states: RNNStates,
        episode_starts: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, log-probabilities and entropy under the draw of the rollout.

        Raises ValueError if each environment has its own draw and `obs` does not name the rows.
        """
        evaluate = _Host.evaluate_actions
        if not isinstance(obs, ObservationsOfRows):
            if self.draw_per_environment:
                self._check_buffer(knows_rows=False)
            return evaluate(self, obs, actions, lstm_states, episode_starts)
        arguments = (obs.observations, actions, lstm_states, episode_starts)
        drawn = self._rollout_draw
        if drawn is None or drawn.rows is None:
            return evaluate(self, *arguments)
        steps = batch_size(obs.observations) // len(obs.rows)
        with using(self, self._draw_of_sequences(drawn, obs.rows, steps)):
            return evaluate(self, *arguments)

    def _draw_of_sequences(self, drawn: Draw, rows: np.ndarray, steps: int) -> Draw:
        """Return the draws for sequences padded to `steps`.

        A row of an LSTM is a whole sequence; for all other layers, each time step is a row.
        """
        layers = noisy_layers(self)
        flats: list[Tensor] = []
        for slot in drawn.slots:
            whole = isinstance(layers[slot.name], nn.LSTM)
            flats.append(drawn.flat(slot)[rows if whole else rows.repeat(steps)])
        slots = tuple(
            replace(slot, group=number, start=0) for number, slot in enumerate(drawn.slots)
        )
        return Draw(tuple(flats), slots)

    def _predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        observation: PyTorchObs,
        lstm_states: States,
        episode_starts: Tensor,
        deterministic: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        def forward(obs: PyTorchObs, states: States, starts: Tensor) -> tuple[Tensor, States]:
            return _Host._predict(self, obs, states, starts, deterministic)

        drawn = None if deterministic else draw_for(self, observation)
        return self._step_under(drawn, forward, observation, lstm_states, episode_starts)

    def _step_under(
        self,
        drawn: Draw | None,
        forward: Callable[[PyTorchObs, States, Tensor], tuple[Tensor, States]],
        obs: PyTorchObs,
        states: States,
        starts: Tensor,
    ) -> tuple[Tensor, States]:
        """Take one step from some states under a draw, one for each row, or the mean weights."""
        if drawn is None or drawn.rows is None or self._extractor_of_other_rows(obs) is None:
            with mean_weights(self) if drawn is None else using(self, drawn):
                return forward(obs, states, starts)

        def rows_first(batch: tuple[PyTorchObs, States, Tensor]) -> tuple[Tensor, States]:
            seen, states_of_rows, starts_of_rows = batch
            result, following = forward(seen, _swapped(states_of_rows), starts_of_rows)
            return result, _swapped(following)

        batch = (obs, _swapped(states), starts)
        result, following = run_under(drawn, self, rows_first, batch, apart=True)
        return result, _swapped(following)

    def greedy(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Choose the mode of the policy at an episode's start, under a draw or the mean weights."""
        return self._at_start(obs, drawn, lambda policy: policy.mode())

    def action_values(self, obs: PyTorchObs, drawn: Draw | None) -> Tensor:
        """Return the logits of all discrete actions at an episode's start: (N, actions).

        Raises TypeError for other actions, which have no logits.
        """
        return self._at_start(obs, drawn, self._logits)

    def _at_start(
        self, obs: PyTorchObs, drawn: Draw | None, result: Callable[[Any], Tensor]
    ) -> Tensor:
        """Return a result of the policy's distribution at an episode's start."""

        def forward(obs: PyTorchObs, states: States, starts: Tensor) -> tuple[Tensor, States]:
            distribution, following = _Host.get_distribution(self, obs, states, starts)
            return result(distribution), following

        layers, _, hidden = self.lstm_hidden_state_shape
        zeros = torch.zeros(layers, batch_size(obs), hidden, device=self.device)
        starts = torch.ones(batch_size(obs), device=self.device)
        return self._step_under(drawn, forward, obs, (zeros, zeros), starts)[0]


def _swapped(states: States) -> States:
    """Return states (layers, rows, features) as (rows, layers, features), or the reverse."""
    hidden, cell = states
    return hidden.transpose(0, 1).contiguous(), cell.transpose(0, 1).contiguous()
