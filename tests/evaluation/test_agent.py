"""The agent of a run: loaded, acting with and without noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import noisynet
from noisynet.assemble import start
from noisynet.evaluation.agent import TrainedAgent, evaluate_run
from noisynet.evaluation.conditions import on_this_machine
from noisynet.evaluation.film.watched import WatchedAgent
from noisynet.report.layer_sigmas import layer_sigmas
from noisynet.runs import config
from noisynet.runs.errors import RunError

SMALL = {
    "steps": 600,
    "warmup_steps": 200,
    "batch_size": 16,
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
}


def trained(folder: Path, **overrides: Any) -> Path:
    return start(config.load("cartpole", {**SMALL, **overrides}), folder / "run").folder


def test_a_trained_agent_acts_by_its_means_or_under_a_draw_per_row(tmp_path: Path) -> None:
    agent = TrainedAgent.load(trained(tmp_path, sigma0=2.0))
    assert agent.step >= 600
    assert repr(agent) == f"TrainedAgent(CartPole-v1, step {agent.step}, {str(agent.folder)!r})"
    observation = np.zeros((400, 4), np.float32)
    by_means = agent.act(observation)
    assert by_means.shape == (400,)
    assert len(set(by_means.tolist())) == 1
    assert (agent.act(observation) == by_means).all()
    # So much noise turns the choice about for some rows of the same state.
    noisy = [agent.act(observation, noise=True) for _ in range(2)]
    assert len(set(noisy[0].tolist())) == 2
    assert (noisy[0] != noisy[1]).any()


def test_the_mean_over_draws_is_that_of_the_values(tmp_path: Path) -> None:
    run = trained(tmp_path, sigma0=2.0)
    agent, again = TrainedAgent.load(run), TrainedAgent.load(run)
    network, generator = again._agent.network, again._generator
    observation = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for _ in range(20):
        total = np.zeros((5, 2))
        for _ in range(3):
            drawn = noisynet.draw(network, rows=5, generator=generator)
            with torch.no_grad(), noisynet.using(network, drawn):
                total += network(torch.from_numpy(observation)).numpy()
        assert (agent.act(observation, noise=3) == total.argmax(-1)).all()
    # Many draws leave little but the means of a last layer: one action, however often it is asked.
    assert len({tuple(agent.act(observation, noise=100)) for _ in range(3)}) <= 2


def test_an_actor_critic_averages_probabilities_and_an_lstm_cannot(tmp_path: Path) -> None:
    small = {"steps": 300, "device": "cpu", "precision": "float32", "threads": 1}
    plain, recurrent = (
        start(config.load("cartpole-noisy-a2c", {**small, **own}), tmp_path / name).folder
        for name, own in (("plain", {}), ("lstm", {"lstm_size": 8}))
    )
    result = evaluate_run(plain, episodes=2, noise=4)
    assert result["noise"] == "mean:4"
    with pytest.raises(RunError, match=r"--noise: got mean:4, expected on or off: .* LSTM"):
        evaluate_run(recurrent, episodes=2, noise=4)
    assert evaluate_run(recurrent, episodes=2, noise=1)["noise"] == "on"
    agent, observation = WatchedAgent.load(recurrent), np.zeros((1, 4), np.float32)
    for ask in (agent.act, agent.look):
        with pytest.raises(ValueError, match=r"noise: got 4, expected 1 at most: .* LSTM"):
            ask(observation, noise=4)
    with pytest.raises(ValueError, match=r"observation: got 3, expected one at a time: .* LSTM"):
        agent.predict(observation.repeat(3, axis=0))
    assert agent.predict(observation).shape == (1,)


def test_noise_acts_under_the_scale_that_was_saved(tmp_path: Path) -> None:
    agent = TrainedAgent.load(trained(tmp_path, sigma0=2.0, noise_scale=1e-6))
    observation = np.zeros((400, 4), np.float32)
    assert (agent.act(observation, noise=True) == agent.act(observation)).all()


@pytest.mark.parametrize(
    ("device", "gpus", "found"),
    [("cuda", 0, "cpu"), ("cuda:1", 1, "cpu"), ("cuda:1", 2, "cuda:1"), ("cpu", 1, "cpu")],
)
def test_a_gpu_that_is_not_here_is_replaced_by_the_cpu(
    device: str, gpus: int, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    chosen = config.load("cartpole", {**SMALL, "device": device})
    try:
        assert on_this_machine(chosen).training.device == found
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"episodes": 0}, "^episodes: got 0, expected a whole number of at least 1"),
        ({"noise": "on"}, "^noise: got 'on', expected False, True or a number of draws"),
        ({"noise": -1}, "^noise: got -1, expected False, True or a number of draws"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(RunError, match=said):
        evaluate_run(tmp_path, **{"episodes": 1, **wrong})


def test_an_agent_without_noise_says_so(tmp_path: Path) -> None:
    agent = TrainedAgent.load(trained(tmp_path, exploration="epsilon"))
    assert agent.act(np.zeros((1, 4), np.float32)).shape == (1,)
    with pytest.raises(ValueError, match="noise: got True, expected False"):
        agent.act(np.zeros((1, 4), np.float32), noise=True)


def test_fewer_environments_play_than_trained(tmp_path: Path) -> None:
    fields = {"environments": 8, "rollout_steps": 5, "minibatches": 32, "steps": 80}
    small = {"device": "cpu", "precision": "float32", "threads": 1}
    run = start(config.load("pqn-cartpole", {**fields, **small}), tmp_path / "run").folder
    assert TrainedAgent.load(run).config.environment.environments == 8
    assert evaluate_run(run, episodes=1)["episodes"] == 1
    for wrong in (0, "3"):
        with pytest.raises(RunError, match=rf"^episodes: got {wrong!r}, expected a whole number"):
            evaluate_run(run, episodes=wrong)  # pyright: ignore[reportArgumentType]
    assert layer_sigmas(run)[1] == []


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="missing"):
        TrainedAgent.load(tmp_path / "missing")


def test_an_evaluation_with_noise_repeats(tmp_path: Path) -> None:
    run = trained(tmp_path)
    one, two = (evaluate_run(run, episodes=3, noise=True) for _ in range(2))
    assert one == two


def test_an_agent_of_quantiles_shows_its_weights_and_no_other_chance(tmp_path: Path) -> None:
    run = start(config.load("cartpole-btr", SMALL), tmp_path / "run").folder
    agent = WatchedAgent.load(run)
    observation = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    one, two = agent.look(observation), agent.look(observation)
    assert one.kind == "Q"
    assert np.array_equal(one.values, two.values)
    assert one.action == agent.act(observation)[0] == one.values.argmax()
    assert one.drawn is not None
    assert one.drawn.shape == (16, 2)
    assert len(np.unique(one.drawn[:, 0])) == 16
    assert evaluate_run(run, episodes=2) == evaluate_run(run, episodes=2)
