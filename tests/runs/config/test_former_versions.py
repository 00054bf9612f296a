"""Configs that former versions wrote: read as this one's, or told what they need."""

from pathlib import Path

import pytest
import yaml

from noisynet.runs import Config, RunError, config


def former(chosen: Config, every: int | None, return_: float | None) -> str:
    """Return a config as former versions wrote it: fields that have moved, or gone since."""
    values = yaml.safe_load(chosen.to_yaml())
    values["learning"] |= {"final_update_every": every, "final_update_return": return_}
    values["actor_critic"]["rollout_steps"] = values.pop("rollouts")["rollout_steps"]
    return yaml.safe_dump(values)


@pytest.mark.parametrize("preset", ["cartpole", "cartpole-noisy-a2c"])
def test_a_config_without_what_is_gone_is_read(preset: str, tmp_path: Path) -> None:
    chosen = config.load(preset)
    chosen = chosen if chosen.learning.has_replay else chosen.replaced(rollout_steps=9)
    text = former(chosen, None, None)
    assert config.from_yaml(text, "config.yaml") == chosen
    file = tmp_path / "config.yaml"
    file.write_text("format: 1\n" + text)
    assert config.load(str(file)).model_copy(update={"preset": preset}) == chosen


@pytest.mark.parametrize(
    ("every", "return_", "said"),
    [
        (32, 17.0, "run/config.yaml: final_update_every: got 32, "),
        (None, 17.0, "run/config.yaml: final_update_return: got 17.0, "),
    ],
)
def test_a_config_with_what_is_gone_is_told_the_version_that_has_it(
    every: int | None, return_: float | None, said: str
) -> None:
    with pytest.raises(RunError) as caught:
        config.from_yaml(former(config.load("cartpole"), every, return_), "run/config.yaml")
    message = str(caught.value)
    assert message.startswith(said)
    assert "the field is gone; a run that was made with it goes on with git commit " in message
    assert "\n" not in message


def test_a_file_that_extends_a_preset_is_told_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: pong-fast\nlearning:\n  final_update_every: 16\n")
    with pytest.raises(RunError, match=r"final_update_every: got 16, .* the field is gone"):
        config.load(str(file))


@pytest.mark.parametrize("preset", ["cartpole", "noisy-a3c"])
def test_the_kind_of_noise_is_read_by_its_former_name(preset: str, tmp_path: Path) -> None:
    chosen = config.load(preset, {"noise_kind": "independent"})
    text = chosen.to_yaml().replace("noise_kind:", "noise:")
    assert "\n  noise: independent\n" in text
    assert config.from_yaml(text, "config.yaml") == chosen
    file = tmp_path / "mine.yaml"
    # Over a preset that has it by its present name.
    file.write_text(f"extends: {preset}\nexploration:\n  noise: independent\n")
    assert config.load(str(file)).exploration.noise_kind == "independent"
    assert config.load(preset, {"noise": "independent"}).exploration.noise_kind == "independent"


def test_both_names_of_a_field_at_once_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    both = "{noise: independent, noise_kind: factorised}"
    file.write_text(f"extends: cartpole\nexploration: {both}\n")
    with pytest.raises(RunError, match=r"unknown key 'exploration\.noise'; did you mean"):
        config.load(str(file))


def test_a_checkpoint_made_with_the_former_name_is_compared_by_it() -> None:
    chosen = config.load("cartpole")
    made_with = chosen.by_section()
    made_with["exploration"]["noise"] = made_with["exploration"].pop("noise_kind")
    assert chosen.changes_since(made_with) == ([], [])
    made_with["exploration"]["noise"] = "independent"
    refused, _ = chosen.changes_since(made_with)
    assert refused == ["noise_kind was 'independent', is 'factorised'"]


def test_rollouts_by_their_former_place_win_over_the_preset_that_is_extended(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: cartpole-a2c\nactor_critic:\n  rollout_steps: 9\n")
    assert config.load(str(file)).rollouts.rollout_steps == 9
