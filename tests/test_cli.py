"""The command line as a user meets it, mistakes included."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noisynet.cli import main
from noisynet.extras import install_command

TRAIN = [
    "train", "cartpole", "--steps", "700", "--warmup-steps", "200", "--replay-capacity", "600",
    "--seed", "5",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main([*TRAIN, "--out", str(folder)]) == 0
    return folder


Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must end with status 2 and one line on standard error; give the line."""

    def check(*arguments: str) -> str:
        try:
            status = main(list(arguments))
        except SystemExit as left:
            status = left.code
        output, errors = capsys.readouterr()
        assert status == 2
        assert output == ""
        assert len(errors.splitlines()) == 1, errors
        return errors

    return check


def test_train_and_evaluate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--episodes", "5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["episodes"] == len(result["returns"]) == 5
    assert result["mean"] == pytest.approx(sum(result["returns"]) / 5)
    assert result["noise"] == "off"
    assert result["interval"][0] <= result["mean"] <= result["interval"][1]
    assert "human_normalised" not in result


def test_evaluation_repeats_itself_and_noise_changes_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    def returns(*options: str) -> list[float]:
        assert main(["evaluate", str(run), "--episodes", "8", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["returns"]

    assert returns("--seed", "1") == returns("--seed", "1")
    assert returns("--seed", "1") != returns("--seed", "2")
    assert returns("--seed", "1") != returns("--seed", "1", "--noise", "on")


def test_evaluate_by_the_mean_of_draws_and_what_is_kept_of_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "evaluations.jsonl").unlink(missing_ok=True)
    capsys.readouterr()
    printed = []
    for noise in ("off", "mean:3"):
        assert main(["evaluate", str(run), "--episodes", "3", "--json", "--noise", noise]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert [one["noise"] for one in printed] == ["off", "mean:3"]
    lines = (run / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == printed
    assert main(["evaluate", str(run), "--episodes", "2", "--noise", "mean:2"]) == 0
    assert capsys.readouterr().out.startswith("CartPole-v1: 2 games, noise mean:2\n")


@pytest.mark.parametrize("noise", ["mean", "mean:1", "mean:x", "mean:1001", "On", "8", "mean:-2"])
def test_a_noise_that_is_none_is_one_line(fails: Fails, run: Path, noise: str) -> None:
    said = fails("evaluate", str(run), "--noise", noise)
    assert f"--noise: got {noise!r}, expected off, on or mean:K" in said


def test_evaluate_for_people_names_every_return(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--episodes", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "CartPole-v1: 3 games, noise off"
    assert "mean return" in lines[1]
    assert "interval" in lines[1]
    returns = lines[-2].removeprefix("returns: ").split()
    assert len(returns) == 3
    # A step is worth 1.
    assert lines[-1].removeprefix("lengths in steps: ").split() == returns


def test_resume_of_a_finished_run_says_so_and_writes_nothing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[Path, tuple[int, bytes]]:
        held = [one for one in run.rglob("*") if one.is_file() and one.name != "run.lock"]
        return {one: (one.stat().st_mtime_ns, one.read_bytes()) for one in held}

    before = files()
    capsys.readouterr()
    assert main(["resume", str(run)]) == 0
    said = (
        r"Nothing to do: the run ended at step 70\d, mean return [\d.]+\. `noisynet resume .*run "
    )
    assert re.fullmatch(said + r"--steps N` trains it to N steps\.\n", capsys.readouterr().out)
    assert files() == before


def test_without_a_preset_it_trains_pong_by_pqn(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    run = tmp_path / "run"
    assert main(["train", "--steps", "16", "--threads", "1", "--out", str(run)]) == 0
    assert "preset: pqn-pong\n" in (run / "config.yaml").read_text()
    # `make train` says the same.
    makefile = Path(__file__).parents[1] / "Makefile"
    assert "\nPRESET ?= pqn-pong\n" in makefile.read_text()


def test_presets_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    listed = capsys.readouterr().out
    assert all(
        name in listed for name in ("pong ", "pong-epsilon", "cartpole ", "cartpole-epsilon")
    )
    assert main(["presets", "--json"]) == 0
    presets = json.loads(capsys.readouterr().out)
    assert presets["pong"]["exploration"]["exploration"] == "noise"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "pongg"], ["'pongg'", "nearest: pong"]),
        (["train", "ALE/Pnog-v5"], ["ALE/Pnog-v5", "ALE/Pong-v5"]),
        (["train", "CartPoel-v1"], ["CartPoel-v1", "CartPole-v1"]),
        (["train", "--learning-rate", "fast"], ["--learning-rate", "'fast'", "number"]),
        (["train", "--seed", "2021-13-45"], ["--seed", "'2021-13-45'"]),
        (["train", "--steps", "true"], ["--steps", "'true'", "number"]),
        (
            ["train", "cartpole", "--sticky-actions", "0.5"],
            ["--sticky-actions", "would do nothing"],
        ),
        (["train", "--n-step", "0"], ["--n-step: got 0, expected a whole number from 1 to"]),
        (["train", "--seed", "-1"], ["--seed", "-1"]),
        (
            ["train", "--learning-rat", "1"],
            ["noisynet train: --learning-rat: no such option; did you mean --learning-rate?"],
        ),
        (["train", "pong", "--stesp=9"], ["--stesp: no such option; did you mean --steps?"]),
        (["evaluate", "run", "--episode", "9"], ["noisynet evaluate: ", "mean --episodes?"]),
        (
            ["resume", "run", "--qqqqqq"],
            ["noisynet resume: --qqqqqq: no such option (`noisynet resume --help-all`"],
        ),
        (["resume", "run", "more"], ["noisynet resume: got 'more', expected nothing more"]),
        (["train", "--exploration", "greedy"], ["--exploration", "'greedy'"]),
        (["train", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
        (["train", "cartpole", "--out", "/dev/null/run"], ["/dev/null/run"]),
        (["resume", "nowhere"], ["nowhere", "no such folder"]),
        (["evaluate", "nowhere"], ["nowhere", "no such folder"]),
        (["evaluate", "x", "--episodes", "0"], ["--episodes", "'0'", "from 1"]),
        (["evaluate", "x", "--noise", "loud"], ["--noise", "'loud'", "on"]),
        (["trian", "pong"], ["noisynet: trian: no such command; did you mean train?"]),
        (["dance"], ["noisynet: dance: no such command (`noisynet --help` lists them)"]),
        (["--verson"], ["noisynet: --verson: no such option; did you mean --version?"]),
        (["evaluate"], ["noisynet evaluate: RUN: got nothing, expected a run's folder, or --"]),
        (["watch", "x", "--pretrained", "cartpole"], ["--pretrained: got cartpole beside x,"]),
        (["watch", "--pretrained", "cartpol"], ["got 'cartpol'", "did you mean cartpole?"]),
        (["train", "--seed"], ["noisynet train: --seed: got nothing, expected a whole number"]),
        (["evaluate", "x", "--noise"], ["--noise: got nothing, expected off, on or mean:K"]),
        (["train", "--json=4"], ["noisynet train: --json: takes no value, got '4'"]),
        (["train", "--no-double=4"], ["noisynet train: --no-double: takes no value, got '4'"]),
        (["train", "pong", "--duble", "true"], ["--duble: no such option; did you mean --double?"]),
        (["train", "cartpol"], ["PRESET: got 'cartpol', expected a preset", "nearest: cartpole,"]),
        (
            ["train", "pong", "--device", "gpu"],
            ["noisynet train: --device: got 'gpu', expected auto, cpu, cuda or cuda:1 (", "a GPU"],
        ),
        (["train", "pong", "--double", "maybe"], ["--double: got 'maybe', expected true or false"]),
        (
            ["train", "cartpole", "--torso-hidden", "64,x"],
            ["--torso-hidden: got 'x', expected whole numbers", "separated by commas"],
        ),
        (["train", "pong", "--torso", "natur"], ["got 'natur'", "did you mean nature?"]),
        (
            ["train", "pong", "--noise", "independent"],
            ["noisynet train: --noise: here it is --noise-kind; `evaluate` and `watch` take"],
        ),
        (
            ["watch", "x", "--noise", "onn"],
            ["--noise: got 'onn', expected off, on or mean:K", "did you"],
        ),
        (["--print-completion", "fish"], ["got fish, expected bash or zsh"]),
        (["train", ""], ["PRESET: got '', expected a preset"]),
        (["train", "cartpole", "--out", ""], ["--out: got '', expected a path"]),
    ],
)
def test_bad_input_ends_with_one_line_that_says_what_is_wrong(
    fails: Fails,
    arguments: list[str],
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = fails(*arguments)
    for part in said:
        assert part in line
    assert not (tmp_path / "runs").exists()


def test_a_folder_with_something_in_it_is_left_alone(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "not empty" in fails(*TRAIN, "--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_of_a_newer_format_is_refused(fails: Fails, run: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    text = (run / "config.yaml").read_text()
    (newer / "config.yaml").write_text(text.replace("format: 1", "format: 99"))
    for line in (fails("resume", str(newer)), fails("train", str(newer / "config.yaml"))):
        assert "99" in line
        assert "newer" in line


def test_a_run_in_place_of_a_preset_is_named(fails: Fails, run: Path) -> None:
    assert f"PRESET: got the run {run}: `noisynet resume` continues it" in fails("train", str(run))


def test_what_torch_cannot_build_is_not_blamed_on_the_environment(
    fails: Fails, tmp_path: Path
) -> None:
    said = fails("train", "cartpole", "--sigma0", "1e99", "--out", str(tmp_path / "run"))
    assert said.startswith("noisynet train: no agent can be built for CartPole-v1: ")


def test_noise_is_refused_where_there_is_none(fails: Fails, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    plain = ["train", "cartpole-epsilon", *TRAIN[2:], "--out", str(folder)]
    completed = subprocess.run(
        [sys.executable, "-m", "noisynet", *plain], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stderr == ""
    assert "Game 1: return " in completed.stdout
    line = fails("evaluate", str(folder), "--noise", "on")
    assert "--noise" in line
    assert "no noisy layer" in line


def test_windows_is_told_in_a_line(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert "need Linux or macOS (on Windows: WSL)" in fails("train", "cartpole")


def test_a_missing_extra_is_named(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert f"needs pydantic: {install_command('train')}" in fails("presets")
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] == "ale_py"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    assert f"needs ale-py: {install_command('atari')}" in fails("train", "pong")


def test_a_loss_that_diverges_ends_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--learning-rate", "1e30", "--out", str(tmp_path / "run")]) == 1
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    assert "nan_" in errors


def test_the_package_can_be_run_as_a_module() -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "noisynet", "presets"], capture_output=True, text=True, check=True
    )
    assert "pong-epsilon" in completed.stdout


def test_games_that_never_end_count_as_far_as_they_came(
    capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    def played(*options: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["evaluate", str(run), "--episodes", "6", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)

    returns = played()["returns"]
    limit = sorted(returns)[3]
    left = played("--steps", f"{limit:g}")
    assert left["returns"] == [min(one, limit) for one in returns]
    assert (left["cut"], left["unplayed"]) == (sum(one > limit for one in returns), 0)
    assert main(["evaluate", str(run), "--episodes", "10", "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "mean return 2.00" in said
    assert "8 of 8 games reached the limit of 2 steps\nnot played after these: 2 (--steps" in said
