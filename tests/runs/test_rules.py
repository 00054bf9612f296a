"""Parts that do not fit together, and fields that would do nothing."""

from typing import Any

import pytest

from noisynet.runs import RunError, config


@pytest.mark.parametrize(
    ("preset", "overrides", "said"),
    [
        ("cartpole", {"entropy_bonus": 0.01}, ["entropy_bonus", "0.01", "no policy"]),
        ("cartpole", {"lstm_size": 64}, ["lstm_size", "64", "single transitions"]),
        ("a2c", {"exploration": "epsilon"}, ["exploration", "epsilon", "noise or none", "policy"]),
        ("noisy-a3c", {"exploration": "both"}, ["exploration", "both", "ε-greedy"]),
        ("noisy-a2c", {"redraw": "step"}, ["redraw", "step", "update", "draw that acted"]),
        ("noisy-a2c", {"dueling": True}, ["dueling", "True", "False", "Q-values"]),
        ("a2c", {"atoms": 51}, ["atoms", "51", "0", "Q-values"]),
        ("a2c", {"prioritised": True}, ["prioritised", "Q-values"]),
        ("a3c", {"device": "cuda"}, ["device", "cuda", "cpu", "memory"]),
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


@pytest.mark.parametrize(
    ("preset", "overrides", "reason"),
    [
        ("a2c", {"batch_size": 8}, "learns from rollouts"),
        ("a2c", {"warmup_steps": 8}, "learns from rollouts"),
        ("a2c", {"double": True}, "learns no Q-values"),
        ("a2c", {"n_step": 3}, "learns no Q-values"),
        ("a2c", {"workers": 3}, "trains in one process"),
        ("a2c", {"draw_per_environment": False}, "no layer is noisy"),
        ("a2c", {"adam_epsilon": 1e-5}, "optimizer is rmsprop"),
        ("cartpole", {"rollout_steps": 9}, "neither rollouts nor a policy"),
        ("cartpole", {"rmsprop_decay": 0.9}, "optimizer is adam"),
        ("cartpole", {"value_min": -1}, "no distributions"),
        ("cartpole", {"priority_beta": 0.5}, "prioritised is false"),
        ("cartpole", {"double": False, "choice_draw": False}, "the target net chooses"),
    ],
)
def test_fields_that_would_do_nothing_are_refused(
    preset: str, overrides: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RunError, match=f"would do nothing: .*{reason}"):
        config.load(preset, overrides)


def test_noise_with_an_entropy_bonus_is_allowed_where_it_is_asked_for() -> None:
    chosen = config.load("noisy-a2c", {"entropy_bonus": 0.01})
    assert chosen.exploration.has_noise
    assert chosen.actor_critic.entropy_bonus == 0.01


@pytest.mark.parametrize("name", ["a2c", "a3c"])
def test_a_noisy_preset_differs_from_its_rival_in_what_explores_alone(name: str) -> None:
    rival, noise = config.load(name), config.load(f"noisy-{name}")
    assert not rival.exploration.has_noise
    assert rival.actor_critic.entropy_bonus > 0
    assert noise.exploration.has_noise
    assert noise.actor_critic.entropy_bonus == 0
    assert noise.actor_critic.model_copy(update={"entropy_bonus": 0.01}) == rival.actor_critic
    for section in ("environment", "network", "learning", "training"):
        assert getattr(noise, section) == getattr(rival, section)
    # As in the paper for A3C; factorised for A2C, whose environments each hold a draw.
    assert noise.exploration.noise == ("independent" if name == "a3c" else "factorised")
