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
