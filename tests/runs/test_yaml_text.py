"""YAML that is read: no key twice, no alias, no end of it, whatever the file."""

import os
from pathlib import Path

import pytest

from noisynet.runs import RunError, config, yaml_text
from noisynet.runs.folder import RunFolder
from noisynet.suite.file import SuiteErrors, read_suite

BOMB = "a: &a [1, 2]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


def test_a_key_that_stands_twice_is_named_with_both_lines() -> None:
    with pytest.raises(ValueError, match=r"line 3: the key 'training' stands twice, .* line 1$"):
        yaml_text.load("training: {steps: 500}\nnetwork: {}\ntraining: {seed: 3}\n")
    with pytest.raises(ValueError, match="line 4: the key 'seed' stands twice, first in line 2"):
        yaml_text.load("training:\n  seed: 1\n  steps: 5\n  seed: 2\n")
    assert yaml_text.load("a: {a: 1}\nb: [{a: 1}, {a: 2}]") == {
        "a": {"a": 1},
        "b": [{"a": 1}, {"a": 2}],
    }


def test_an_alias_is_refused_before_it_grows() -> None:
    with pytest.raises(ValueError, match=r"line 2: \*a: aliases are not accepted"):
        yaml_text.load(BOMB)


def test_presets_configs_and_suites_all_read_it_so(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: cartpole\n" + BOMB)
    with pytest.raises(RunError, match=r"mine.yaml: not valid YAML: line 3: \*a: aliases"):
        config.load(str(file))
    with pytest.raises(SuiteErrors) as caught:
        read_suite(str(file))
    assert "aliases are not accepted" in str(caught.value)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("format: 1\n" + BOMB)
    with pytest.raises(RunError, match=r"config.yaml: damaged: line 3: \*a: aliases"):
        RunFolder.open(run)
    file.write_text("extends: cartpole\ntraining: {steps: 500}\ntraining: {seed: 3}\n")
    with pytest.raises(RunError, match=r"line 3: the key 'training' stands twice"):
        config.load(str(file))


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xef\xbb\xbfextends: cartpole\n")
    assert config.load(str(file)).environment.environment == "CartPole-v1"


def test_a_file_without_an_end_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "mine.yaml"
    os.mkfifo(fifo)
    with pytest.raises(RunError, match="no regular file"):
        config.load(str(fifo))
    large = tmp_path / "large.yaml"
    large.write_text("a" * (yaml_text.MOST_BYTES + 1))
    with pytest.raises(RunError, match=r"got 262,145 bytes, expected at most 262,144"):
        config.load(str(large))


@pytest.mark.parametrize("value", ["!!bool maybe", "!!timestamp soon", "!!int ''", "!!set [1]"])
def test_a_value_that_does_not_fit_its_tag_is_one_line(value: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: cartpole\npreset: {value}\n")
    with pytest.raises(RunError, match=r"mine.yaml: not valid YAML: a value does not fit its tag$"):
        config.load(str(file))
