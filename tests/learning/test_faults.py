"""Would we notice? Noise that is frozen, not learned, shared, or helped along, put in on purpose.

Each fault is put into the agent itself, a short run is trained with it, and the doctor looks at
that run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noisynet import noisy_layers
from noisynet.agents import ActorCritic, QLearning
from noisynet.agents.exploration import LearnedNoise
from noisynet.assemble import start
from noisynet.evaluation.examine_run import examine
from noisynet.runs import config

Patch = pytest.MonkeyPatch


def failed(folder: Path, preset: str, **overrides: Any) -> set[str]:
    """Train a few updates and return the doctor's complaints."""
    small = {"steps": 1_600, "seed": 0, "device": "cpu", "threads": 1, **overrides}
    start(config.load(preset, small), folder)
    return {one.name for one in examine(folder) if one.status in ("fail", "warn")}


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("cartpole", {}),
        ("cartpole", {"redraw": "step"}),
        ("cartpole", {"redraw": "episode"}),
        ("cartpole-noisy-dqn", {}),
        ("cartpole-noisy-dueling", {}),
        ("cartpole-rainbow", {}),
        ("cartpole-iqn", {}),
        ("cartpole-btr", {}),
        ("cartpole-noisy-a2c", {}),
        ("cartpole-noisy-a2c", {"environments": 1}),
        ("chain", {}),
        ("deep-sea", {}),
    ],
)
def test_the_presets_are_healthy(preset: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    assert failed(tmp_path / "run", preset, **overrides) == set()


@pytest.mark.parametrize("preset", ["cartpole", "cartpole-noisy-a2c"])
def test_frozen_noise_is_noticed(preset: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(LearnedNoise, "redraw", lambda _: None)
    assert "redraw between updates" in failed(tmp_path / "run", preset)


@pytest.mark.parametrize(
    ("preset", "agent"), [("cartpole", QLearning), ("cartpole-noisy-a2c", ActorCritic)]
)
def test_a_sigma_without_gradient_is_noticed(
    preset: str, agent: type[Any], tmp_path: Path, monkeypatch: Patch
) -> None:
    build = agent.__init__

    def built(self: Any, *arguments: Any, **options: Any) -> None:
        build(self, *arguments, **options)
        for layer in noisy_layers(self.network).values():
            layer.weight_sigma.requires_grad_(False)
            layer.bias_sigma.requires_grad_(False)

    monkeypatch.setattr(agent, "__init__", built)
    assert "sigma gradient" in failed(tmp_path / "run", preset)


def test_a_draw_shared_by_target_and_online_net_is_noticed(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    draws = QLearning.draws
    monkeypatch.setattr(QLearning, "draws", lambda self: (draws(self)[0],) * 3)
    assert "draws in the loss" in failed(tmp_path / "run", "cartpole")


def test_a_missing_third_draw_is_noticed(tmp_path: Path) -> None:
    assert "draws in the loss" in failed(tmp_path / "run", "cartpole", choice_draw=False)


def test_a_bonus_or_an_epsilon_left_on_is_noticed(tmp_path: Path) -> None:
    assert "other exploration" in failed(
        tmp_path / "bonus", "cartpole-noisy-a2c", entropy_bonus=0.01
    )
    assert "other exploration" in failed(tmp_path / "epsilon", "cartpole", exploration="both")
