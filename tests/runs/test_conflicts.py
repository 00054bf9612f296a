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
        ("a3c", {"device": "cuda"}, ["device", "cuda", "cpu", "memory"]),
        ("noisy-a3c", {"redo_every": 1000}, ["redo_every", "1000", "0", "a3c", "a2c"]),
        (
            "cartpole-noisy-a2c",
            {"redo_every": 9, "lstm_size": 16, "torso_hidden": []},
            ["redo_every", "9", "0 or torso_hidden", "lstm_size 16"],
        ),
        ("a3c", {"reset_every": 9}, ["reset_every", "9", "0", "a3c", "share"]),
        ("cartpole", {"redo_every": 9, "dormant_threshold": 1.0}, ["--dormant-threshold", "1.0"]),
        ("cartpole", {"shrink_every": 9, "shrink_factor": -0.1}, ["--shrink-factor", "-0.1"]),
        ("pqn-pong", {"atoms": 51}, ["atoms", "51", "0", "pqn", "rollouts"]),
        ("pqn-pong", {"lstm_size": 8}, ["lstm_size", "8", "0", "pqn"]),
        ("pqn-pong", {"minibatches": 2049}, ["minibatches", "2049", "2048"]),
        (
            "pqn-pong",
            {"learning_draw": "acted", "redraw": "step"},
            ["learning_draw", "acted", "fresh", "redraw step"],
        ),
        ("noisy-a2c", {"overlap": True}, ["--overlap", "would do nothing", "a2c", "rollouts"]),
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
