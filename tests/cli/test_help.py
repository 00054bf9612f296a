"""What the program and `train` say of themselves: at once, and with a preset's own values."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

import pytest

import noisynet
from noisynet.cli import main
from noisynet.cli.commands import COMMANDS
from noisynet.cli.fields import FIRST
from noisynet.runs import config

# None of these is needed to explain the program, and torch alone takes seconds.
PROBE = """
import sys
from noisynet.cli import main
status = main(sys.argv[1:])
heavy = {"torch", "pydantic", "yaml", "numpy", "gymnasium", "rich", "scipy"} & sys.modules.keys()
print(status, sorted(heavy), file=sys.stderr)
"""
WITHOUT = """
import sys
for name in ("pydantic", "yaml", "numpy", "gymnasium", "rich", "scipy", "tensorboard"):
    sys.modules[name] = None
"""


def probe(*arguments: str, before: str = "") -> tuple[str, str, float]:
    """Run the program in a process of its own; give its output, its errors, and its CPU seconds."""

    def used() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    began = used()
    done = subprocess.run(
        [sys.executable, "-c", before + PROBE, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr, used() - began


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("--debug", "--help")])
def test_the_program_is_explained_at_once(arguments: tuple[str, ...]) -> None:
    output, errors, seconds = probe(*arguments)
    assert errors == "0 []\n"
    assert seconds < 0.5
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} .*{re.escape(command.does)}$", output, re.MULTILINE)
    assert "--print-completion" in output
    assert "arXiv 1706.10295" in output


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_base_install_has_version_and_help(option: str) -> None:
    output, errors, _ = probe(option, before=WITHOUT)
    assert output.startswith(f"noisynet {noisynet.__version__}")
    assert errors.startswith("0 ")


def test_a_typo_in_a_base_install_is_told_too() -> None:
    _, errors, _ = probe("trian", before=WITHOUT)
    assert errors.startswith("noisynet: trian: no such command; did you mean train? ")


def test_the_help_of_train_needs_no_torch() -> None:
    _, errors, _ = probe("train", "cartpole", "--help-all")
    assert errors.startswith("0 ")
    assert "torch" not in errors


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([name, "--help"])
    except SystemExit as left:
        status = left.code
    assert status == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: noisynet {name} ")
    parser = COMMANDS[name].parser()
    assert parser.description
    assert "--debug" in output
    # What is printed at the end can be had as JSON, by the same option everywhere.
    assert "--json" in output


def test_names_are_not_broken_at_their_hyphens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--help-all"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith("-")] == []


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Give the help of `train` as one line: it is broken anywhere."""
    assert main(["train", *arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_first_options_with_choices_and_the_preset_s_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = helped(capsys, "cartpole", "--help")
    assert "--exploration noise|epsilon|both|none" in said
    assert "--n-step N number of rewards summed before bootstrapping (default: 10)" in said
    assert "--steps N agent steps after which training ends (default: 80000)" in said
    assert len(FIRST) == 10
    assert set(FIRST) < set(config.SECTION_OF)
    shown = {
        name
        for name, takes in config.ACCEPTED.items()
        if f" {config.option_name(name)} {takes.placeholder} " in said
    }
    assert shown == set(FIRST)
    assert "noisynet train cartpole --help-all" in said


def test_the_values_of_another_preset_and_what_was_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = helped(capsys, "--help", "pong", "--n-step", "7")
    assert f"(default: {config.load('pong').training.steps})" in said
    assert "rewards summed before bootstrapping (given)" in said
    # Without a preset those of what is trained then.
    assert "the defaults of pqn-pong" in helped(capsys, "--help")


def test_all_options_by_section_and_those_without_effect_say_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = helped(capsys, "cartpole", "--help-all")
    for name in config.SECTION_OF:
        assert f" {config.option_name(name)}" in said, name
    for section in config.SECTIONS:
        assert f" {config.about(section)}: --" in said, section
    double = "double Q-learning: the online network chooses the next action, the target network"
    assert f"--double, --no-double {double} values it (default: true)" in said
    assert "(no effect: algorithm is q_learning, which has no rollouts)" in said
    assert (
        "--reward-clip X clip rewards to ± this for learning; none: no clipping (default: none)"
        in (said)
    )
    assert "--torso-hidden N,N,… mlp torso: sizes of its hidden layers (default: 128)" in said
    assert "None" not in said


def test_a_flag_is_said_in_three_ways_and_leaves_the_preset_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for given, value in (
        (["cartpole", "--no-double"], False),
        (["--no-double", "cartpole"], False),
        (["cartpole", "--double"], True),
        (["cartpole", "--double", "false"], False),
        (["--double", "false", "cartpole"], False),
        (["--double=no", "cartpole"], False),
    ):
        assert overridden(*given) == ("cartpole", {"double": value})
    # A flag before the preset does not swallow it.
    assert overridden("--dueling", "cartpole") == ("cartpole", {"dueling": True})
    assert overridden("--steps", "-5", "cartpole") == ("cartpole", {"steps": -5})


def test_american_options_are_those_of_our_fields() -> None:
    given = ("pong", "--prioritized", "--no-standardize-frames", "--noise-kind", "factorized")
    _, fields = overridden(*given)
    assert fields == {"prioritised": True, "standardise_frames": False, "noise_kind": "factorized"}
    assert overridden("pong", "--no-prioritized")[1] == {"prioritised": False}
    assert config.load("pong", fields).exploration.noise_kind == "factorised"


def overridden(*arguments: str) -> tuple[str | None, dict[str, object]]:
    """Give the preset and the fields that arguments of `train` name."""
    from noisynet.cli.fields import overrides, restore_preset

    parsed = COMMANDS["train"].parser().read(arguments)
    restore_preset(parsed)
    return parsed.preset, overrides(parsed)
