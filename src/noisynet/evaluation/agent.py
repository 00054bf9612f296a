"""Playing games with the agent of a run, as its newest checkpoint left it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..agents import ActorCritic, Agent, acting_network, build_agent, make_environments
from ..envs import Environments, UnusableEnvironment
from ..layers import draw, mean_weights, using
from ..runs import checkpoint
from ..runs import config as run_config
from ..runs.config import Config
from ..runs.errors import RunError
from ..runs.folder import RunFolder
from ..runs.seeds import SEEDS
from .play import EpisodeResult, UnusableEvaluation, play
from .scores import human_normalised, mean_interval, reference_scores

_SEED_OFFSET = 1_000_003
_SIDE_BY_SIDE = 8


class TrainedAgent:
    """Act as the newest checkpoint of a run does.

    `act` maps observations (N, *shape) to actions (N,): by the mean weights, or under a new draw
    for each row. It never acts at random; an actor-critic takes its policy's most probable action.
    """

    def __init__(self, config: Config, found: checkpoint.Checkpoint, agent: Agent) -> None:
        """Take over the networks of a checkpoint."""
        self.config = config
        self.step = found.step
        self._agent = agent
        self._generator = torch.Generator(agent.device)
        self._generator.manual_seed(config.training.stream("evaluation"))
        agent.load_networks(found.arrays)

    @classmethod
    def load(cls, path: Path) -> TrainedAgent:
        """Read a run's folder; raises RunError with one line where it has no such agent."""
        config, found = _read(path)
        config = _for_evaluation(config, 1)
        try:
            environments = make_environments(config)
            try:
                return cls(config, found, _agent(config, environments))
            finally:
                environments.close()
        except UnusableEnvironment as error:
            raise RunError(str(error)) from error
        except (KeyError, RuntimeError, ValueError) as error:
            raise _misfit(path, error) from error

    def act(self, observation: np.ndarray, *, noise: bool = False) -> np.ndarray:
        """Choose actions; raises ValueError for noise where the agent has none."""
        network = acting_network(self._agent)
        if not noise:
            with mean_weights(network):
                return self._agent.greedy(observation)
        if self._agent.noise is None:
            raise ValueError("noise: got True, expected False: the agent has no noisy layer")
        drawn = draw(network, rows=len(observation), generator=self._generator)
        with using(network, drawn):
            return self._agent.greedy(observation)

    def begin(self, first: np.ndarray) -> None:
        """Forget the past where `first` (N,) says that a game begins: for an agent with an LSTM."""
        if isinstance(self._agent, ActorCritic):
            self._agent.begin(first)


def _read(path: Path) -> tuple[Config, checkpoint.Checkpoint]:
    folder = RunFolder.open(path)
    config = run_config.from_yaml(folder.config_text, str(folder.config_file))
    found = checkpoint.read_newest(folder.checkpoints)
    if found is None:
        raise RunError(f"{path}: no checkpoint to evaluate yet")
    return config, found


def _agent(config: Config, environments: Environments) -> Agent:
    return build_agent(config, environments.observation_shape, environments.action_count)


def _misfit(path: Path, error: Exception) -> RunError:
    what = str(error).splitlines()[0]
    return RunError(f"{path}: its checkpoint does not fit its config: {what}")


def evaluate_run(
    path: Path, *, episodes: int, noise: bool = False, seed: int | None = None
) -> dict[str, Any]:
    """Play whole games and give what the command line prints, ready for JSON.

    Without `noise` the agent acts by its mean weights, with it by a new draw at every step; it
    never acts at random: an actor-critic takes its policy's most probable action. The games are
    seeded apart from those of training unless `seed` says otherwise. Raises RunError with one line
    for a run that is missing, damaged, of a newer format, without a checkpoint, or, with `noise`,
    without learned noise.
    """
    config, found = _read(path)
    if noise and not config.exploration.has_noise:
        raise RunError(
            f"--noise: got on, expected off: {path} explores by {config.exploration.exploration} "
            "and has no noisy layer"
        )
    games_seed = (config.training.seed + _SEED_OFFSET) % SEEDS if seed is None else seed
    config = _for_evaluation(config, min(episodes, _SIDE_BY_SIDE))
    try:
        results = _play(config, found, episodes, noise, games_seed)
    except (UnusableEnvironment, UnusableEvaluation) as error:
        raise RunError(str(error)) from error
    except (KeyError, RuntimeError, ValueError) as error:
        raise _misfit(path, error) from error
    return _summary(config, found.step, results, noise, games_seed)


def _for_evaluation(config: Config, environments: int) -> Config:
    device = config.training.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        device = "cpu"
    return config.replaced(environments=environments, device=device)


def _play(
    config: Config, found: checkpoint.Checkpoint, episodes: int, noise: bool, seed: int
) -> list[EpisodeResult]:
    environments = make_environments(config, seed=seed)
    try:
        agent = TrainedAgent(config, found, _agent(config, environments))
        act = partial(agent.act, noise=noise)
        return play(environments, act, episodes, on_first=agent.begin)
    finally:
        environments.close()


def _summary(
    config: Config, step: int, results: list[EpisodeResult], noise: bool, seed: int
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
        "episodes": len(returns),
        "noise": "on" if noise else "off",
        "seed": seed,
    }
    reference = reference_scores(game)
    if reference is not None:
        summary["human_normalised"] = human_normalised(game, mean)
        summary["random"], summary["human"] = reference.random, reference.human
    return summary
