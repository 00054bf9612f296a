"""Trained agents: loading one from a run's newest checkpoint, and playing games with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ..agents import ActorCritic
from ..assemble import build_agent, side_by_side
from ..envs import Environments, Unfit, observation_kind_and_first_action
from ..envs.calls import check_finite
from ..layers import draw, mean_weights, using
from ..runs import Config, Run, RunError, RunFolder, checkpoint, open_run
from ..runs.checkpoint import Checkpoint, fits_config
from ..runs.errors import shown
from .conditions import (
    check_noise,
    environments_for,
    games_seed,
    has_lstm,
    noise_in_words,
    on_this_machine,
    torch_threads_restored,
)
from .play import EpisodeResult, UnusableEvaluation, check_episodes, play
from .scores import human_normalised, mean_interval, reference_scores

_SIDE_BY_SIDE = 8
MOST_STEPS = 50_000
"""Default limit on the agent steps of a game; the longest games of Atari have 27,000."""


class TrainedAgent:
    """An agent that acts as the newest checkpoint of a run does.

    `predict` takes observations as the environment returns them, and returns actions as the
    environment takes them. `act` maps arrays (N, *shape), as the network takes them, to action
    indices (N,). The noise has the checkpoint's scale, and ε-greedy is off.
    """

    folder: Path
    """The folder that it was loaded from."""
    config: Config
    step: int
    """Number of agent steps that it was trained for."""

    def __init__(self, run: Run, found: Checkpoint, environments: Environments) -> None:
        """Build the agent for these environments, with the network of a checkpoint.

        Raises RunError if the checkpoint does not fit the run's config and the environments.
        """
        self.folder = run.path
        self.config = run.config
        self.step = found.step
        self._found = found
        self._config_text = run.folder.config_text
        self._kind, self._first_action = observation_kind_and_first_action(environments)
        with fits_config(run.path):
            self._agent = build_agent(
                self.config,
                environments.observation_shape,
                environments.action_count,
                environments=environments.count,
            )
            self._agent.load_acting(found.arrays)
        self._generator = torch.Generator(self._agent.device)
        self._generator.manual_seed(self.config.training.stream("evaluation"))
        self._sampling = torch.Generator().manual_seed(self.config.training.stream("predict"))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the agent of a run's folder; raises RunError, with one line, if there is none."""
        run = open_run(path)
        found = run.trained()
        run = Run(run.folder, on_this_machine(run.config))
        with environments_for(run.config, count=1) as environments:
            return cls(run, found, environments)

    def __repr__(self) -> str:
        """Return the environment, the steps of training and the folder."""
        name = self.config.environment.environment
        return f"TrainedAgent({name}, step {self.step:,}, {str(self.folder)!r})"

    def predict(self, observation: Any, *, deterministic: bool = True) -> Any:
        """Choose an action for an observation, or one for each of several in an array or a list.

        If `deterministic`, the mean weights act, and an actor-critic takes its policy's most
        probable action. Otherwise each observation gets a new draw of the noise, and an
        actor-critic samples from its policy; an agent that explores by ε alone acts the same either
        way. An agent with an LSTM takes one observation at a time; call `begin` when a game begins.
        Raises ValueError for an observation that does not fit the environment, or that contains NaN
        or infinity, and for several given to an LSTM.
        """
        try:
            one = self._kind.is_one(observation)
            several = [observation] if one else observation
            rows = np.stack([self._kind.read(seen) for seen in several])
            check_finite("observation", rows)
        except Unfit as error:
            raise ValueError(str(error)) from error
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(
                f"observation: got {shown(observation)}, expected one of the environment's or "
                f"several: {error}"
            ) from error
        if len(rows) > 1 and has_lstm(self.config):
            raise ValueError(
                f"observation: got {len(rows)}, expected one at a time: the agent has an LSTM, "
                "which remembers one game"
            )
        if deterministic:
            action = self.act(rows)
        elif isinstance(self._agent, ActorCritic):
            action = self._drawn_from_policy(rows)
        else:
            action = self.act(rows, noise=self._agent.noise is not None)
        action = action + self._first_action
        return action[0] if one else action

    def _drawn_from_policy(self, observation: np.ndarray) -> np.ndarray:
        network = self._agent.network
        with ExitStack() as noise:
            if self._agent.noise is not None:
                drawn = draw(network, rows=len(observation), generator=self._generator)
                noise.enter_context(using(network, drawn))
            probabilities = torch.from_numpy(self.values(observation))
        chosen = torch.multinomial(probabilities, 1, generator=self._sampling)
        return chosen.squeeze(-1).numpy()

    def evaluate(
        self, episodes: int = 10, *, noise: int = False, seed: int | None = None
    ) -> dict[str, Any]:
        """Play whole games with the newest checkpoint of its run; see `evaluate_run`."""
        with torch_threads_restored():
            return evaluate_run(self.folder, episodes=episodes, noise=noise, seed=seed)

    def save(self, folder: str | Path) -> None:
        """Write the agent to a new or empty folder, for `noisynet.load` and `noisynet evaluate`.

        The folder has no replay and no metrics; to continue training, resume the run itself.
        Raises RunError if it cannot be written, and then leaves no folder behind.
        """
        with RunFolder.create(folder, self._config_text) as saved:
            try:
                checkpoint.write(
                    saved.checkpoints, self.step, self._found.arrays, self._found.state
                )
            except BaseException:
                saved.discard()
                raise

    def act(self, observation: np.ndarray, *, noise: int = False) -> np.ndarray:
        """Choose actions (N,) for observations (N, *shape), as the network takes them.

        `noise` is a number of draws: with 0 (False) the agent acts by the mean weights, with 1
        (True) under a new draw for each observation, with more by the mean over the draws of Q, or
        of the policy's probabilities. Raises ValueError for noise if the agent has none, and for
        more than one draw if it has an LSTM.
        """
        network = self._agent.network
        if not noise:
            with mean_weights(network):
                return self._agent.greedy(observation)
        self._check_noise(noise)
        if noise > 1:
            return self._by_mean_of(observation, noise)
        drawn = draw(network, rows=len(observation), generator=self._generator)
        with using(network, drawn):
            return self._agent.greedy(observation)

    def _by_mean_of(self, observation: np.ndarray, draws: int) -> np.ndarray:
        network = self._agent.network
        total = np.zeros((), np.float32)
        for _ in range(draws):
            drawn = draw(network, rows=len(observation), generator=self._generator)
            with using(network, drawn):
                total = total + self.values(observation)
        return total.argmax(-1)

    def values(self, observation: np.ndarray) -> np.ndarray:
        """Return Q, or the policy's probabilities, under the noise in force: (rows, actions)."""
        agent = self._agent
        if isinstance(agent, ActorCritic):
            same_game = np.zeros(len(observation), np.bool_)
            return agent.policy(observation, same_game).softmax(-1).float().cpu().numpy()
        with torch.inference_mode():  # in the weights' own precision, as `greedy` acts
            seen = torch.from_numpy(observation).to(agent.device)
            return agent.network(seen).float().cpu().numpy()

    def begin(self, first: np.ndarray) -> None:
        """Reset the state of an LSTM where the mask `first` (N,) says that a game begins."""
        if isinstance(self._agent, ActorCritic):
            self._agent.begin(first)

    def _check_noise(self, noise: int) -> None:
        if self._agent.noise is None:
            raise ValueError("noise: got True, expected False: the agent has no noisy layer")
        if noise > 1 and has_lstm(self.config):
            raise ValueError(
                f"noise: got {noise}, expected 1 at most: the agent has an LSTM, whose state "
                "follows one draw at a time"
            )


def evaluate_run(
    path: Path,
    *,
    episodes: int,
    noise: int = False,
    seed: int | None = None,
    steps: int | None = None,
    tell: Callable[[str], object] | None = None,
    tell_seconds: float | None = None,
) -> dict[str, Any]:
    """Play whole games with a run's agent; return the summary that `noisynet evaluate` prints.

    `noise` is a number of draws: with 0 (False) the agent acts by its mean weights, with 1 (True)
    under a new draw at every step, with more by the mean of its values over that many new draws. It
    never acts at random: an actor-critic takes its policy's most probable action. The games are
    seeded differently from training, unless `seed` is given. A game that takes more than `steps`
    agent steps (by default 50,000) ends there, with its return so far, and its environment plays no
    further games: `unplayed` counts the games that it had left. `lengths` are in agent steps, and
    `cut` is the number of games that were ended by this limit or by the environment's own. `tell`
    is called with a line of progress every `tell_seconds`.

    Raises RunError, with a one-line message, for `episodes` below 1, a run that is missing,
    damaged, of a newer format or without a checkpoint, and if its agent cannot act with this
    `noise`.
    """
    try:
        check_episodes(episodes)
    except UnusableEvaluation as error:
        raise RunError(str(error)) from error
    if not isinstance(noise, int) or noise < 0:
        raise RunError(f"noise: got {noise!r}, expected False, True or a number of draws")
    run = open_run(path)
    found = run.trained()
    if noise:
        check_noise(path, run.config, noise)
    seed = games_seed(run.config) if seed is None else seed
    steps = MOST_STEPS if steps is None else steps
    count = side_by_side(run.config, min(episodes, _SIDE_BY_SIDE))
    run = Run(run.folder, on_this_machine(run.config))
    with environments_for(run.config, count=count, seed=seed) as environments:
        agent = TrainedAgent(run, found, environments)
        results = play(
            environments,
            partial(agent.act, noise=noise),
            episodes,
            on_first=agent.begin,
            steps=steps,
            tell=tell,
            tell_seconds=tell_seconds,
        )
    summary = _summary(run.config, found.step, results, noise, seed)
    return summary | {"unplayed": episodes - len(results)}


def limit_note(result: dict[str, Any]) -> str | None:
    """Return a line on how many games of `evaluate_run` a limit ended; None if it ended none."""
    if not result["cut"]:
        return None
    # The longest game is one that the limit ended.
    return (
        f"{result['cut']} of {result['episodes']} games reached the limit of "
        f"{max(result['lengths']):,} steps"
    )


def _summary(
    config: Config, step: int, results: list[EpisodeResult], noise: int, seed: int
) -> dict[str, Any]:
    returns = [result.reward_sum for result in results]
    mean = float(np.mean(returns))
    game = config.environment.environment
    summary: dict[str, Any] = {
        "environment": game,
        "step": step,
        "mean": mean,
        "std": float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0,
        "interval": mean_interval(returns),
        "returns": returns,
        "lengths": [result.steps for result in results],
        "cut": sum(result.cut for result in results),
        "episodes": len(returns),
        "noise": noise_in_words(noise),
        "seed": seed,
    }
    reference = reference_scores(game)
    if reference is not None:
        summary["human_normalised"] = human_normalised(game, mean)
        summary["random"], summary["human"] = reference.random, reference.human
    return summary
