"""Parts that do not fit together, each named with the reason."""

from typing import Any

import pytest

from noisynet.runs import RunError, config


@pytest.mark.parametrize(
    ("preset", "overrides", "said"),
    [
        ("cartpole", {"entropy_bonus": 0.01}, ["entropy_bonus", "0.01", "no policy"]),
        ("cartpole", {"lstm_size": 64}, ["lstm_size", "64", "single steps"]),
        ("a2c", {"exploration": "epsilon"}, ["exploration", "epsilon", "noise or none", "policy"]),
        ("noisy-a3c", {"exploration": "both"}, ["exploration", "both", "ε-greedy"]),
        ("noisy-a2c", {"redraw": "step"}, ["redraw", "step", "update", "draw that acted"]),
        ("noisy-a2c", {"dueling": True}, ["dueling", "True", "False", "Q-values"]),
        ("a2c", {"atoms": 51}, ["atoms", "51", "0", "rollouts"]),
        ("a2c", {"prioritised": True}, ["prioritised", "no Q-values"]),
        (
            "cartpole",
            {"noise_target": 0.05, "noise_schedule": "linear"},
            ["noise_target", "0.05", "none", "noise_schedule linear", "both"],
        ),
        ("cartpole", {"noise_target": 0.05, "noise_scale": 0}, ["noise_target", "noise_scale 0"]),
        ("cartpole", {"noise_target": 0.05, "actors": 2}, ["noise_target", "sampler actors"]),
        ("cartpole-noisy-a3c", {"noise_target": 0.05}, ["noise_target", "0.05", "a3c's workers"]),
        (
            "cartpole-noisy-a3c",
            {"noise_schedule": "cosine"},
            ["noise_schedule", "cosine", "constant", "a3c's workers"],
        ),
        (
            "cartpole",
            {"noise_schedule": "exponential", "noise_scale_end": 0},
            ["noise_scale_end", "0", "more than 0"],
        ),
        ("cartpole", {"sigma_penalty": 1}, ["penalty_high", "nothing", "penalty_low (0)"]),
        (
            "cartpole",
            {"sigma_penalty": 1, "penalty_low": 5, "penalty_high": 5},
            ["penalty_high", "got 5", "more than penalty_low (5)"],
        ),
        (
            "cartpole",
            {"sigma_penalty": 1, "penalty_high": 5, "learned_sigma": False},
            ["sigma_penalty", "learned_sigma false"],
        ),
        ("noisy-a2c", {"sigma_penalty": 1}, ["sigma_penalty", "Q-values"]),
        ("cartpole", {"noise_target": 1.0}, ["--noise-target", "1.0", "below 1"]),
        ("cartpole", {"noise_target": float("nan")}, ["--noise-target", "nan"]),
        ("cartpole", {"noise_scale": -1}, ["--noise-scale", "-1"]),
        ("a3c", {"device": "cuda"}, ["device", "cuda", "cpu", "memory"]),
        ("noisy-a3c", {"redo_every": 1000}, ["redo_every", "1000", "0", "a3c", "a2c"]),
        (
            "cartpole-noisy-a2c",
            {"redo_every": 9, "lstm_size": 16, "torso_hidden": []},
            ["redo_every", "9", "0 or torso_hidden", "lstm_size 16"],
        ),
        (
            "noisy-a2c",
            {"redo_every": 9, "lstm_size": 16, "torso": "impala", "spectral_norm": True},
            ["redo_every", "9", "0", "lstm_size 16", "spectral_norm"],
        ),
        ("a3c", {"reset_every": 9}, ["reset_every", "9", "0", "a3c", "share"]),
        ("cartpole", {"redo_every": 9, "dormant_threshold": 1.0}, ["--dormant-threshold", "1.0"]),
        ("cartpole", {"shrink_every": 9, "shrink_factor": -0.1}, ["--shrink-factor", "-0.1"]),
        ("btr", {"shrink_every": 9}, ["shrink_every", "9", "0", "spectral_norm"]),
        ("pqn-pong", {"atoms": 51}, ["atoms", "51", "0", "pqn", "rollouts"]),
        ("pqn-pong", {"lstm_size": 8}, ["lstm_size", "8", "0", "pqn"]),
        ("pqn-pong", {"minibatches": 2049}, ["minibatches", "2049", "2048"]),
        (
            "pqn-pong",
            {"learning_draw": "acted", "redraw": "step"},
            ["learning_draw", "acted", "fresh or rows", "redraw step"],
        ),
        ("cartpole-iqn", {"atoms": 51}, ["quantiles", "8", "0", "atoms 51"]),
        ("a2c", {"quantiles": 8}, ["quantiles", "8", "0", "a2c", "rollouts"]),
        ("pqn-pong", {"quantiles": 8}, ["quantiles", "8", "0", "pqn", "rollouts"]),
        ("cartpole", {"munchausen": 0.9}, ["entropy_temperature", "nothing", "above 0", "0.9"]),
        (
            "cartpole",
            {"munchausen": 0.9, "entropy_temperature": 0},
            ["temperature", "0", "above 0"],
        ),
        ("cartpole-munchausen", {"munchausen": 1.5}, ["--munchausen", "1.5", "1"]),
        ("cartpole-munchausen", {"atoms": 51}, ["munchausen", "0.9", "atoms 51", "quantiles"]),
        ("pqn-cartpole", {"munchausen": 0.9}, ["munchausen", "0.9", "pqn", "rollouts"]),
        ("cartpole-munchausen", {"log_policy_least": 1}, ["--log-policy-least", "1", "0"]),
        ("btr", {"noise_in": "all"}, ["noise_in", "all", "head or last", "spectral_norm"]),
        ("a3c", {"torso": "impala", "spectral_norm": True}, ["spectral_norm", "true", "a3c"]),
        ("btr", {"torso_width": 0.01}, ["--torso-width", "0.01", "0.0625"]),
        ("noisy-a2c", {"overlap": True}, ["--overlap", "would do nothing", "a2c", "one update"]),
        ("pqn-pong", {"overlap": True, "actors": 2}, ["--overlap", "nothing", "sampler actors"]),
    ],
)
def test_parts_that_do_not_fit_are_named_with_the_reason(
    preset: str, overrides: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(RunError) as caught:
        config.load(preset, overrides)
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message


def test_noise_with_an_entropy_bonus_is_allowed_where_it_is_asked_for() -> None:
    chosen = config.load("noisy-a2c", {"entropy_bonus": 0.01})
    assert chosen.exploration.has_noise
    assert chosen.actor_critic.entropy_bonus == 0.01
