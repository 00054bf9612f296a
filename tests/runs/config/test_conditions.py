"""Fields that would do nothing beside the others are refused, and each says when it acts."""

from typing import Any

import pytest

from noisynet.assemble import build_agent
from noisynet.runs import RunError, config
from noisynet.runs.config.conditions import ALWAYS, Acts


@pytest.mark.parametrize(
    ("preset", "overrides", "reason"),
    [
        ("a2c", {"batch_size": 8}, "learns from rollouts"),
        ("a2c", {"warmup_steps": 8}, "learns from rollouts"),
        ("a2c", {"double": True}, "learns from rollouts"),
        ("a2c", {"n_step": 3}, "learns from rollouts"),
        ("a2c", {"workers": 3}, "trains in one process"),
        ("a2c", {"draw_per_environment": False}, "no layer is noisy"),
        ("a2c", {"adam_epsilon": 1e-5}, "optimizer is rmsprop"),
        ("cartpole", {"rollout_steps": 9}, "has no rollouts"),
        ("cartpole", {"rmsprop_decay": 0.9}, "optimizer is adam"),
        ("cartpole", {"value_min": -1}, "not distributions"),
        ("cartpole", {"dormant_threshold": 0.1}, "redo_every is 0"),
        ("cartpole", {"shrink_factor": 0.8}, "shrink_every is 0"),
        ("cartpole", {"priority_beta": 0.5}, "prioritised is false"),
        ("cartpole", {"double": False, "choice_draw": False}, "the target net chooses"),
        ("cartpole-munchausen", {"double": True}, "softmax policy chooses"),
        ("cartpole", {"entropy_temperature": 0.03}, "munchausen is 0"),
        ("cartpole", {"target_quantiles": 8}, "quantiles is 0"),
        ("cartpole-iqn", {"loss": "squared"}, "a loss of their own"),
        ("cartpole-c51", {"loss": "squared"}, "a loss of their own"),
        ("pong", {"torso_hidden": [64], "torso": "auto"}, "the torso of images has fixed layers"),
        ("MinAtar/Breakout-v1", {"torso_hidden": [64]}, "the torso of images has fixed layers"),
        (
            "control",
            {"environment": "MinAtar/Breakout-v1", "torso_hidden": [64, 64]},
            "the torso of images has fixed layers",
        ),
        ("cartpole", {"layer_norm_in": "head"}, "layer_norm is false"),
        ("pong", {"spectral_norm": True}, "torso is nature, not impala"),
        ("cartpole", {"epsilon_until": 100}, "there is no ε"),
        ("cartpole", {"noise_scale_end": 0.2}, "noise_schedule is constant"),
        ("cartpole", {"noise_target_every": 8}, "noise_target is empty"),
        ("cartpole", {"penalty_high": 8.0}, "sigma_penalty is 0"),
        ("a2c", {"noise_target": 0.1}, "no layer is noisy"),
    ],
)
def test_fields_that_would_do_nothing_are_refused(
    preset: str, overrides: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RunError, match=f"would do nothing: .*{reason}"):
        config.load(preset, overrides)


def test_an_mlp_that_is_asked_for_has_hidden_layers_where_its_torso_is_refused_later() -> None:
    chosen = config.load("MinAtar/Breakout-v1", {"torso": "mlp", "torso_hidden": [64]})
    with pytest.raises(ValueError, match=r"^mlp torso: got observations of shape \(4, 10, 10\)"):
        build_agent(chosen.replaced(device="cpu", precision="float32"), (4, 10, 10), 6)


def conditions(info: Any) -> list[Acts]:
    return [one for one in info.metadata if isinstance(one, Acts)]


def test_every_field_declares_when_it_acts() -> None:
    silent = [name for _, name, info in config.fields() if not conditions(info)]
    assert silent == []
    # What always acts has no other condition.
    for _, name, info in config.fields():
        assert ALWAYS not in conditions(info) or conditions(info) == [ALWAYS], name


def test_every_field_acts_in_some_preset_or_beside_some_choice() -> None:
    choices: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in config.preset_names()]
    choices += [
        ("cartpole", {"actors": 2}),
        ("cartpole", {"redo_every": 1000, "shrink_every": 1000}),
        ("MinAtar/Breakout-v1", {}),
        ("cartpole-rainbow", {"final_learning_rate": 0.0, "optimizer": "rmsprop"}),
        ("cartpole", {"noise_schedule": "cosine"}),
        ("cartpole", {"noise_target": 0.05, "sigma_penalty": 1.0, "penalty_high": 500.0}),
    ]
    loaded = [config.load(name, overrides) for name, overrides in choices]
    for _, name, _ in config.fields():
        assert any(one.why_unused(name) is None for one in loaded), name


def test_the_reason_is_one_line_and_there_is_none_where_a_field_acts() -> None:
    chosen = config.load("cartpole")
    assert chosen.why_unused("n_step") is None
    reasons = [chosen.why_unused(name) for _, name, _ in config.fields()]
    assert all(one is None or (one and "\n" not in one) for one in reasons)
    assert chosen.why_unused("rollout_steps") is not None
