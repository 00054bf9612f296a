"""The training loop: play, store, learn. It yields events; everything else listens."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np

from ..agents import QLearning
from ..agents.updates import updates_of
from ..envs import Environments, EpisodeCounter, Step
from ..replay import Batch, FrameReplay, annealed_beta
from ..runs.config import Config
from .events import CheckpointDue, Event, FiguresTaken, GameFinished, TrainingEnded


class TrainingLoop:
    """Train an agent on environments through a replay, one vector step after the other.

    Steps count agent decisions: N for each vector step of N environments, less those whose action
    was ignored because the environment was being reset.
    """

    def __init__(
        self,
        config: Config,
        environments: Environments,
        agent: QLearning,
        replay: FrameReplay,
    ) -> None:
        """Take the parts; nothing is played before `run` is iterated."""
        self.config = config
        self.environments = environments
        self.agent = agent
        self.replay = replay
        self.step = 0
        self.games = 0
        self._returns: deque[float] = deque(maxlen=config.training.solved_games)
        self._episodes = EpisodeCounter(environments.count)
        self._observation: np.ndarray | None = None
        self._first = np.ones(environments.count, bool)
        self._updates = updates_of(agent)
        self._batch: Batch[Any] | None = None
        self._losses: list[float] = []
        self._target_copies = 0
        self._last_checkpoint = 0
        self._stopping = False

    def stop(self) -> None:
        """Ask for an end after the vector step in progress."""
        self._stopping = True

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last games, at most `solved_games`; None before the first."""
        return float(np.mean(self._returns)) if self._returns else None

    def run(self) -> Iterator[Event]:
        """Play and learn until the budget is used, the task is solved, or `stop` is called."""
        if self._observation is None:
            self._observation = self.environments.reset()
        overlap = self.config.training.overlap
        with ThreadPoolExecutor(1, "environments") if overlap else nullcontext() as thread:
            while True:
                reason = self._end()
                if reason is not None:
                    yield TrainingEnded(step=self.step, reason=reason)
                    return
                if thread is None:
                    yield from self._record(self._play())
                    yield from self._learn()
                else:
                    yield from self._play_and_learn(thread)
                if (
                    self.step - self._last_checkpoint >= self.config.training.checkpoint_every
                    or self.replay.must_commit
                ):
                    self._last_checkpoint = self.step
                    yield CheckpointDue(step=self.step)

    def _end(self) -> Any:
        training = self.config.training
        if (
            training.solved_return is not None
            and len(self._returns) == training.solved_games
            and float(np.mean(self._returns)) >= training.solved_return
        ):
            return "solved"
        if self.step >= training.steps:
            return "steps"
        return "interrupted" if self._stopping else None

    def _play(self) -> Step:
        """Take one vector step and store it."""
        action = self._act()
        result = self.environments.step(action)
        self._store(action, result)
        return result

    def _play_and_learn(self, thread: ThreadPoolExecutor) -> Iterator[Event]:
        """Take one vector step on a thread, and do meanwhile the updates that were due before it.

        Neither sees anything of the other, however fast it is: the actions were chosen before, and
        the step is stored after both. So each update learns from the records that it would have
        without the thread, and an action lacks the updates of one vector step.
        """
        action = self._act()
        played = thread.submit(self.environments.step, action)
        try:
            events = list(self._learn())
        finally:
            result = played.result()
        self._store(action, result)
        yield from events
        yield from self._record(result)

    def _act(self) -> np.ndarray:
        assert self._observation is not None
        return self.agent.act(self._observation, self.step, self._first)

    def _store(self, action: np.ndarray, result: Step) -> None:
        """Store a vector step that was taken from the observation now at hand."""
        observation = self._observation
        assert observation is not None
        clip = self.config.learning.reward_clip
        reward = result.reward if clip is None else np.clip(result.reward, -clip, clip)
        self.replay.add(
            frame=observation[:, -1] if self.environments.stack > 1 else observation,
            action=action,
            reward=reward,
            terminated=result.terminated,
            truncated=result.truncated,
            first=self._first,
            ignored=result.first,
        )
        self.step += int(np.count_nonzero(~result.first))
        self._observation, self._first = result.observation, result.first

    def _record(self, result: Step) -> Iterator[Event]:
        for episode in self._episodes.update(result):
            self.games += 1
            self._returns.append(episode.reward_sum)
            self.agent.schedule.game_finished(self.step, episode.reward_sum)
            yield GameFinished(
                step=self.step,
                game=self.games,
                game_return=episode.reward_sum,
                game_steps=episode.steps,
                environment=episode.environment,
                mean_return=float(np.mean(self._returns)),
                games=len(self._returns),
            )

    def _learn(self) -> Iterator[Event]:
        """Do the updates that have come due, and copy the target net when its time has come."""
        learning, schedule = self.config.learning, self.agent.schedule
        while self.agent.updates < schedule.updates_due(self.step):
            if not self.replay.can_sample(learning.n_step):
                return
            batch = self._sampled()
            self._updates.update(batch)
            if learning.prioritised:
                assert batch.indices is not None, "a batch of a replay has them"
                self.replay.update_priorities(batch.indices, self._updates.errors())
            # The step at which this update was due, so that the order of updates and copies does
            # not depend on how many steps one vector step takes.
            due = schedule.steps_due(self.agent.updates)
            if due // learning.target_every > self._target_copies:
                self.agent.copy_to_target()
                self._target_copies = due // learning.target_every
            if self.agent.updates % self.config.training.log_every == 0:
                yield self._figures()

    def _sampled(self) -> Batch[Any]:
        """Draw a batch into the memory of the last one."""
        learning = self.config.learning
        self._batch = self.replay.sample(
            learning.batch_size,
            learning.n_step,
            learning.discount,
            out=self._batch,
            beta=self._beta(),
        )
        return self._batch

    def _beta(self) -> float | None:
        """Give β of the importance weights; None where transitions are drawn uniformly."""
        if not self.config.learning.prioritised:
            return None
        return annealed_beta(
            self.config.learning.priority_beta, self.step, self.config.training.steps
        )

    def _figures(self) -> FiguresTaken:
        losses = self._losses + self._updates.losses()
        figures = {"loss": float(np.mean(losses)), "updates": float(self.agent.updates)}
        self._losses.clear()
        epsilon = self.agent.epsilon(self.step)
        if epsilon is not None:
            figures["epsilon"] = epsilon
        figures |= self.agent.figures(self._observation)
        return FiguresTaken(step=self.step, figures=figures)

    def state(self) -> dict[str, Any]:
        """Give everything of the loop and the environments that a resumed run needs.

        Raises LossNotFinite where an update has failed and nobody knew.
        """
        self._losses += self._updates.losses()
        state: dict[str, Any] = {
            "step": self.step,
            "games": self.games,
            "returns": list(self._returns),
            "losses": list(self._losses),
            "target_copies": self._target_copies,
            "environments": None,
        }
        if self.environments.can_save_state:
            state["environments"] = self.environments.state()
            state["episodes"] = self._episodes.state()
            state["first"] = self._first.tolist()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave. Environments that cannot be saved start new games."""
        self.step = self._last_checkpoint = int(state["step"])
        self.games = int(state["games"])
        self._returns.extend(float(value) for value in state["returns"])
        self._losses = [float(value) for value in state["losses"]]
        self._target_copies = int(state["target_copies"])
        if state["environments"] is None:
            self._observation = self.environments.reset()
        else:
            self._observation = self.environments.restore(state["environments"])
            self._episodes.restore(state["episodes"])
            self._first = np.asarray(state["first"], bool)


def replay_slack(config: Config) -> int:
    """Count the vector steps that may pass between two checkpoints, with room to spare.

    At most as many as the replay itself has, so that rare checkpoints do not reserve a disk full
    of room: they then come due as often as the replay needs them.
    """
    environments = config.environment.environments
    wanted = math.ceil(config.training.checkpoint_every / environments)
    window = math.ceil(config.learning.replay_capacity / environments)
    return min(wanted + wanted // 4, window) + 16
