"""Completion as a shell does it: the printed script is sourced by a real bash."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from noisynet.cli import main
from noisynet.cli.commands import COMMANDS
from noisynet.runs import config

BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script() -> str:
    from noisynet.cli.completion import script

    return script("bash")


_SHOW = 'printf "%s\\n" "${COMPREPLY[@]}"'


def completed(script: str, *words: str) -> list[str]:
    """Give what bash offers for the last word."""
    if BASH is None:
        pytest.skip("needs bash")
    typed = " ".join(f"'{word}'" for word in ("noisynet", *words))
    done = subprocess.run(
        [BASH, "--norc", "-c",
         f"{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words)}; _noisynet; {_SHOW}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_options_of_the_program(script: str) -> None:
    assert completed(script, "tr") == ["train"]
    assert set(COMMANDS) < set(completed(script, ""))
    assert completed(script, "--v") == ["--version"]
    assert completed(script, "--print-completion", "") == ["bash", "zsh"]


def test_presets_options_and_values_of_train(script: str) -> None:
    assert completed(script, "train", "pqn-c") == ["pqn-cartpole", "pqn-cartpole-epsilon"]
    assert completed(script, "train", "cartpole", "--noise-k") == ["--noise-kind"]
    assert completed(script, "train", "cartpole", "--noise-kind", "") == [
        "factorised", "independent",
    ]  # fmt: skip
    assert completed(script, "train", "--double", "") == ["true", "false"]
    assert completed(script, "train", "cartpole", "--no-dou") == ["--no-double"]
    assert completed(script, "train", "--dev") == ["--device"]
    options = completed(script, "train", "cartpole", "--")
    assert {config.option_name(name) for name in config.SECTION_OF} < set(options)


def test_other_commands_and_the_fallback_to_files(script: str) -> None:
    assert completed(script, "evaluate", "run", "--noise", "") == ["off", "on"]
    assert completed(script, "evaluate", "run", "--noise", "=") == ["off", "on"]
    assert completed(script, "evaluate", "run", "--noise", "=", "of") == ["off"]
    assert completed(script, "resume", "run", "--st") == ["--steps"]
    assert completed(script, "suite", "atari1") == ["atari100k"]
    for command in ("watch", "evaluate"):
        assert completed(script, command, "--pretrained", "c") == ["cartpole"]
    # Nothing: bash then completes names of files.
    assert completed(script, "evaluate", "ru") == []
    assert "complete -o default -o bashdefault -F _noisynet noisynet" in script


def test_for_zsh_the_same_by_its_own_emulation(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--print-completion", "zsh"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"autoload -Uz bashcompinit && bashcompinit\n{script}")
    zsh = shutil.which("zsh")
    if zsh is not None:  # a shell that has not set up completion itself
        ask = f"{printed}\nprint -r -- $_comps[noisynet]"
        done = subprocess.run([zsh, "-f", "-c", ask], capture_output=True, text=True, check=True)
        assert "_noisynet" in done.stdout
    assert main(["--print-completion=bash"]) == 0
    assert capsys.readouterr().out == script
