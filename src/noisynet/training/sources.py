"""Sources of experience in this process: environments played into a replay, or into rollouts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from ..agents import ActingPass, ActorCritic, ParallelQLearning, QLearning, Rollout
from ..envs import Environments, FinishedEpisode, Step
from ..replay import FrameReplay
from .events import Event
from .loop import AgentT, ExperienceT, Source
from .player import GrowingRollout, PlayedRollout, Player, play_rollout
from .progress import Progress


class _LocalSource(Source[ExperienceT], Generic[AgentT, ExperienceT]):
    """A source that plays environments in this process, with `overlap` on a thread of its own."""

    def __init__(
        self,
        environments: Environments,
        agent: AgentT,
        reward_clip: float | None,
        *,
        overlap: bool,
    ) -> None:
        self.player = Player(environments, reward_clip)
        self.agent = agent
        self._thread = ThreadPoolExecutor(1, "environments") if overlap else None

    def figures(self, progress: Progress) -> dict[str, float]:  # noqa: ARG002 - as of all sources
        """Return the agent's figures of its noise and units at the current observations."""
        return self.agent.behaviour(self.player.observation, self.player.first)

    def close(self) -> None:
        """End the thread, if there is one; whoever made the environments closes them."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)  # never wait for a game that hangs

    def state(self) -> dict[str, Any]:
        """Return the state of the environments and their games, if it can be saved."""
        return self.player.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Environments that cannot be saved start new games."""
        self.player.restore(state)


class ReplaySource(_LocalSource[QLearning, None]):
    """A source that plays one vector step at a time and stores it in a replay.

    With `overlap`, the environments step on a thread while updates are taken.
    """

    def __init__(
        self,
        environments: Environments,
        agent: QLearning,
        replay: FrameReplay,
        *,
        reward_clip: float | None = None,
        overlap: bool = False,
    ) -> None:
        """Take the parts; nothing is played before `play`."""
        super().__init__(environments, agent, reward_clip, overlap=overlap)
        self.replay = replay

    def play(self, progress: Progress) -> Generator[Event, None, None]:
        """Take one vector step and store it."""
        action = self._act(progress)
        result = self.player.environments.step(action)
        yield from self._finished(progress, self._store(progress, action, result))

    def advance(
        self, progress: Progress, learn: Callable[[None], Iterator[Event]]
    ) -> Iterator[Event]:
        """Take one vector step, then learn; with `overlap`, do both at the same time.

        With `overlap`, neither affects the other, whichever is faster: the actions are chosen
        before both, and the step is stored after both. So each update draws from the same records
        as without the thread, but actions are chosen without the updates that the previous vector
        step made due.
        """
        if self._thread is None:
            yield from super().advance(progress, learn)
            return
        action = self._act(progress)
        played = self._thread.submit(self.player.environments.step, action)
        try:
            events = list(learn(None))
        finally:
            result = played.result()
        games = self._store(progress, action, result)
        yield from events
        yield from self._finished(progress, games)

    def _act(self, progress: Progress) -> np.ndarray:
        return self.agent.act(self.player.observation, progress.step, self.player.first)

    def _store(self, progress: Progress, action: np.ndarray, result: Step) -> list[FinishedEpisode]:
        """Store a vector step from the current observations; return the games that ended."""
        observation = self.player.observation
        self.replay.add(
            frame=self.player.environments.newest_frame(observation),
            action=action,
            reward=self.player.clipped(result.reward),
            terminated=result.terminated,
            truncated=result.truncated,
            first=self.player.first,
            ignored=result.first,
        )
        progress.step += int(np.count_nonzero(~result.first))
        return self.player.advance(result)

    def _finished(self, progress: Progress, games: list[FinishedEpisode]) -> Iterator[Event]:
        for game in games:
            yield progress.finished(progress.step, game.environment, game)


@dataclass(frozen=True)
class RolloutExperience:
    """A rollout to learn from, and the agent steps before it."""

    rollout: Rollout
    step: int
    passes: Sequence[ActingPass] = ()
    """The forward passes that chose the actions, if they were kept."""


class RolloutSource(_LocalSource[ParallelQLearning | ActorCritic, RolloutExperience]):
    """A source that plays one rollout at a time.

    With `overlap`, the environments step on a thread while the previous rollout is learned.
    """

    def __init__(
        self,
        environments: Environments,
        agent: ParallelQLearning | ActorCritic,
        *,
        steps: int,
        discount: float,
        reward_clip: float | None = None,
        overlap: bool = False,
    ) -> None:
        """Take the parts; a rollout has `steps` steps of each environment, `discount` is γ.

        Raises ValueError for `overlap` with an actor-critic, which learns a rollout at once.
        """
        if overlap and isinstance(agent, ActorCritic):
            raise ValueError("overlap: got True, expected False: an actor-critic learns after")
        super().__init__(environments, agent, reward_clip, overlap=overlap)
        self._steps = steps
        self._discount = discount
        self._allowed: int | None = None

    def play(self, progress: Progress) -> Generator[Event, None, RolloutExperience]:
        """Play a rollout, and return it."""
        played = play_rollout(
            self.player,
            self.agent,
            steps=self._steps,
            discount=self._discount,
            step=progress.step,
        )
        return (yield from self._experience(progress, played))

    def advance(
        self, progress: Progress, learn: Callable[[RolloutExperience | None], Iterator[Event]]
    ) -> Iterator[Event]:
        """Play a rollout, then learn it; with `overlap`, learn the previous one meanwhile.

        With `overlap`, an equal share of the updates is taken during each vector step, whichever is
        faster. So actions are chosen without the updates of the current vector step, and a rollout
        is learned one rollout later.
        """
        if self._thread is None:
            yield from super().advance(progress, learn)
            return
        agent, player = self.agent, self.player
        assert isinstance(agent, ParallelQLearning), "checked when this was built"
        growing, updates = GrowingRollout(player, agent), agent.updates_left
        for step in range(self._steps):
            action = growing.act(progress.step)
            going_on = self._thread.submit(player.environments.step, action)
            self._allowed = updates * (step + 1) // self._steps - updates * step // self._steps
            try:
                yield from list(learn(None))
            finally:
                result = going_on.result()
            growing.add(action, result)
        self._allowed = 0
        experience = yield from self._experience(progress, growing.played(self._discount))
        yield from learn(experience)

    def _experience(
        self, progress: Progress, played: PlayedRollout
    ) -> Generator[Event, None, RolloutExperience]:
        before, progress.step = progress.step, progress.step + played.steps
        for steps, game in played.games:
            yield progress.finished(before + steps, game.environment, game)
        return RolloutExperience(played.rollout, before, played.passes)

    def may_update(self) -> bool:
        """Return whether one more update may be taken before more is played."""
        if self._allowed is None:
            return True
        self._allowed -= 1
        return self._allowed >= 0
