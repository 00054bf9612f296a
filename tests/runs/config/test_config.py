"""Configs: presets, files, overrides, and what bad ones are told."""

import json
from pathlib import Path

import pytest
import yaml

from noisynet.runs import config
from noisynet.runs.errors import RunError


def test_every_preset_loads_and_names_itself() -> None:
    for name in config.preset_names():
        assert config.load(name).preset == name


def test_pong_explores_by_noise_alone_and_its_rival_by_epsilon_alone() -> None:
    noise, rival = config.load("pong"), config.load("pong-epsilon")
    assert noise.exploration.has_noise
    assert not noise.exploration.has_epsilon
    assert rival.exploration.has_epsilon
    assert not rival.exploration.has_noise
    # The same otherwise: nothing but the exploration differs.
    assert noise.environment == rival.environment
    assert noise.network == rival.network
    assert noise.learning == rival.learning
    assert noise.training == rival.training


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
    assert noise.exploration.noise_kind == ("independent" if name == "a3c" else "factorised")


def test_field_names_are_unique_over_the_sections() -> None:
    names = [name for _, name, _ in config.fields()]
    assert len(names) == len(set(names))
    assert all(info.description for _, _, info in config.fields())


def test_every_field_is_read_by_something() -> None:
    folder = Path(config.__file__).parent
    rest = "".join(
        path.read_text()
        for path in folder.parents[1].rglob("*.py")
        if path.parent != folder and path.parent.name != "cli"
    )
    own = "".join(path.read_text() for path in folder.glob("*.py"))
    unread = [
        name
        for _, name, _ in config.fields()
        if f".{name}" not in rest and f"self.{name}" not in own
    ]
    assert unread == []


def test_an_environment_id_gets_the_preset_of_its_kind() -> None:
    atari, control = config.load("ALE/Breakout-v5"), config.load("Acrobot-v1")
    assert atari.environment.environment == "ALE/Breakout-v5"
    assert atari.learning.reward_clip == 1.0
    assert control.environment.environment == "Acrobot-v1"
    assert control.learning.reward_clip is None


def test_overrides_win_over_files_and_files_over_the_preset_they_extend(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: cartpole\nlearning:\n  n_step: 5\n  batch_size: 16\n")
    chosen = config.load(str(file), {"batch_size": 8})
    assert chosen.learning.n_step == 5
    assert chosen.learning.batch_size == 8
    assert chosen.learning.discount == config.load("cartpole").learning.discount


def test_american_spellings_are_ours(tmp_path: Path) -> None:
    american = {"prioritized": True, "standardize_frames": True, "noise_kind": "factorized"}
    british = {"prioritised": True, "standardise_frames": True, "noise_kind": "factorised"}
    loaded = config.load("pong", american)
    assert loaded == config.load("pong", british)
    assert "factorized" not in loaded.to_yaml()
    assert loaded.replaced(prioritized=False).learning.prioritised is False
    path = tmp_path / "mine.yaml"
    path.write_text("extends: pong\nlearning:\n  prioritized: true\n")
    assert config.load(str(path)).learning.prioritised is True
    # An override is the same field, however both are spelt.
    assert config.load(str(path), {"prioritised": False}).learning.prioritised is False
    path.write_text("extends: pong\nlearning:\n  prioritized: true\n  prioritised: false\n")
    with pytest.raises(
        RunError, match=r"unknown key 'learning\.prioritized'; did you mean priorit"
    ):
        config.load(str(path))


def test_yaml_round_trip_and_training_again_from_a_run_s_config(tmp_path: Path) -> None:
    chosen = config.load("pong", {"seed": 7, "sigma0": 0.4, "learning_rate": 1e-4})
    for text in (
        chosen.to_yaml(),
        '"format": 1\n' + chosen.to_yaml(),
        json.dumps({"format": 1, **chosen.model_dump(mode="json")}),
    ):
        assert config.from_yaml(text, "config.yaml") == chosen
    file = tmp_path / "config.yaml"
    file.write_text("format: 1\n" + chosen.to_yaml())
    again = config.load(str(file))
    assert again.model_copy(update={"preset": "pong"}) == chosen


@pytest.mark.parametrize("field", ["seed", "device", "format"])
def test_a_number_that_python_does_not_write_out_is_one_line(field: str) -> None:
    digits = "0x" + "f" * 5000
    text = f"environment:\n  environment: CartPole-v1\ntraining:\n  {field}: {digits}\n"
    if field == "format":
        text = f"format: {digits}\n"
    with pytest.raises(RunError, match=rf"{field}:? (got )?0xff\w+…") as caught:
        config.from_yaml(text, "config.yaml")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"learning_rate": "fast"}, ["--learning-rate: got 'fast', expected a number above 0 ("]),
        ({"learning_rate": -1}, ["--learning-rate: got -1, expected a number above 0 ("]),
        ({"steps": 1.5}, ["--steps: got 1.5, expected a whole number from 1 to 2147483647 ("]),
        (
            {"exploration": "boltzmann"},
            ["--exploration: got 'boltzmann', expected noise, epsilon, both or none ("],
        ),
        (
            {"sigma0": float("nan")},
            ["--sigma0: got nan, expected a number of at least 0, or none ("],
        ),
        ({"sigma0": -0.5}, ["--sigma0", "-0.5"]),
        ({"batch_size": 20000}, ["warmup_steps", "10000", "20000"]),
        ({"replay_capacity": 10}, ["replay_capacity", "10", "64"]),
        ({"device": "tpu"}, ["--device", "'tpu'"]),
        ({"grayscale": False}, ["--grayscale: got False, expected true ("]),
        ({"steps": True}, ["--steps", "True", "number"]),
        ({"seed": 2**31}, ["--seed", "2147483648", "from 0 to 1999999999"]),
        ({"threads": 10**12}, ["--threads", "4096"]),
        ({"epsilon_end": 0.1}, ["--epsilon-end", "would do nothing", "there is no ε"]),
        ({"exploration": "epsilon", "sigma0": 0.4}, ["--sigma0", "no layer is noisy"]),
        ({"torso_hidden": [64]}, ["--torso-hidden", "torso of images"]),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_it_takes(
    overrides: dict[str, object], said: list[str]
) -> None:
    with pytest.raises(RunError) as caught:
        config.load("pong", overrides)
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning:\n  learning_rat: 1\n", "did you mean learning_rate"),
        ("lerning:\n  n_step: 1\n", "did you mean learning"),
        ("learning_rate: 1\n", "'learning_rate': its place is learning.learning_rate"),
        ("training:\n  n_step: 1\n", "'training.n_step': its place is learning.n_step"),
        ("- a list\n", "got list"),
        ("a: [1\n", "not valid YAML"),
        ("extends: nothing\n", "extends: got 'nothing'"),
        ("training:\n  seed: 1\n", "environment"),
        ("extends: pong\ntraining: 3\n", "got 3"),
        ("training:\n  seed: 2021-13-45\n", "not valid YAML"),
    ],
)
def test_a_preset_file_with_a_mistake(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(RunError) as caught:
        config.load(str(file))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_offers_the_nearest_names() -> None:
    with pytest.raises(RunError, match="nearest: pong"):
        config.load("pongg")
    with pytest.raises(RunError, match="cannot be read: No such file"):
        config.load("nowhere.yaml")


def test_options_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(
        RunError, match="--sticky-actions: would do nothing: CartPole-v1 has no such choice"
    ):
        config.load("cartpole", {"sticky_actions": 0.25})
    assert config.load("pong", {"sticky_actions": 0.25}).environment.sticky_actions == 0.25
    assert config.load("cartpole", {"environments": 2}).environment.environments == 2


def test_an_empty_section_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: cartpole\ntraining:\n")
    assert config.load(str(file), {"seed": 4}).training.seed == 4


def test_streams_of_one_seed_are_apart_and_repeat() -> None:
    one, other = config.load("pong").training, config.load("pong", {"seed": 1}).training
    seeds = [training.stream(name) for training in (one, other) for name in ("acting", "replay")]
    assert len(set(seeds)) == 4
    assert one.stream("acting") == config.load("pong").training.stream("acting")


def test_a_config_is_frozen() -> None:
    chosen = config.load("pong")
    with pytest.raises(ValueError, match="frozen"):
        chosen.training.seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_numbers_in_a_file_are_read_as_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: cartpole\ntraining: {steps: 1e6}\nlearning: {learning_rate: 1e-4}\n"
        "network: {torso_hidden: '64,64'}\n"
    )
    found = config.load(str(file))
    assert (found.training.steps, found.learning.learning_rate) == (1_000_000, 1e-4)
    assert found.network.torso_hidden == (64, 64)
    file.write_text("extends: pong\ntraining: {solved_return: none}\n")
    assert config.load(str(file)).training.solved_return is None
    file.write_text("extends: cartpole\ntraining: {steps: 1.5e0}\n")
    with pytest.raises(RunError, match=r"--steps: got 1\.5, expected a whole"):
        config.load(str(file))


def test_numbers_in_the_presets_are_numbers_and_not_text() -> None:
    # YAML 1.1 reads 1e-4 as text; pydantic would let it pass.
    folder = Path(config.__file__).parents[1] / "presets"
    for file in folder.glob("*.yaml"):
        for section in yaml.safe_load(file.read_text()).values():
            for name, value in section.items() if isinstance(section, dict) else ():
                assert not (isinstance(value, str) and value[0].isdigit()), (file.name, name)


LONG = "x" * 100_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"extends: {LONG}", "extends: got 'xxx"),
        (f"extends: cartpole\n? {LONG}\n: {{}}", "unknown key 'xxx"),
        (f"environment: {{environment: {LONG}}}", "--environment: got 'xxx"),
        (f"extends: cartpole\nlearning: {{optimizer: {LONG}}}", "--optimizer: got 'xxx"),
        (f"extends: cartpole\nlearning: {{n_step: [{'1, ' * 20_000}]}}", "--n-step: got [1, 1, "),
        (f"a: !{LONG} 3", "could not determine a constructor for the tag '!xxx"),
        (f"a: *{LONG}", "*xxx"),
        (f"{{? {LONG} : 1, ? {LONG} : 2}}", "the key 'xxx"),
    ],
)
def test_what_is_long_is_not_echoed_whole(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(RunError) as caught:
        config.load(str(file))
    assert said in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 700


def test_a_long_name_is_not_echoed_whole() -> None:
    for name in (LONG, f"{LONG}/x", f"{LONG}.yaml"):
        with pytest.raises(RunError) as caught:
            config.load(name)
        assert len(str(caught.value)) < 11_000


def test_an_unknown_field_is_named_with_the_nearest() -> None:
    with pytest.raises(RunError) as caught:
        config.load("control", {"stepz": 1})
    assert str(caught.value) == (
        "config: got 'stepz', expected the name of a field; did you mean steps?"
    )


def test_an_error_names_the_file_unless_the_value_stood_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: cartpole\nlearning: {n_step: 0}\n")
    with pytest.raises(RunError, match=rf"^{file}: --n-step: got 0, expected a whole number"):
        config.load(str(file))
    with pytest.raises(RunError, match=r"^--n-step: got 0, expected a whole number"):
        config.load("cartpole", {"n_step": 0})


def test_schedules_that_end_with_the_run_are_known() -> None:
    assert config.load("cartpole").spanning() == ["final_learning_rate"]
    assert config.load("cartpole", {"final_learning_rate": None}).spanning() == []
    # Their step sizes fall until a step of their own.
    assert config.load("pong").spanning() == []
    assert config.load("pong-fast").spanning() == ["priority_beta"]
    assert config.load("a2c").spanning() == ["final_learning_rate"]
    falling = {"noise_schedule": "linear"}
    assert config.load("pong", falling).spanning() == ["noise_schedule"]
    assert config.load("pong", {**falling, "noise_scale_steps": 1000}).spanning() == []
