"""A suite's file: what it means, and everything that is wrong with one, said at once."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from noisynet.cluster.connection import Cluster
from noisynet.cluster.errors import ScaleError
from noisynet.runs import RunFolder
from noisynet.suite import plan as suite_plan
from noisynet.suite.display import SuiteDisplay
from noisynet.suite.file import SuiteErrors, ready_suites
from noisynet.suite.plan import Plan, plan
from noisynet.suite.trials import SearchSpace


def planned(text: str, folder: Path) -> Plan:
    file = folder / "mine.yaml"
    file.write_text(text)
    return plan(str(file), folder / "out")


def problems(text: str, folder: Path) -> list[str]:
    with pytest.raises(SuiteErrors) as caught:
        planned(text, folder)
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


GRID = """
environments: [CartPole-v1, Chain-6]
variants:
  noise: {}
  epsilon: {exploration: epsilon, epsilon_steps: 200}
grid:
  learning_rate: [1.0e-3, 1e-4]
seeds: 2
overrides: {steps: 500}
resources: {cpus: 2}
"""


def test_a_grid_is_every_combination_and_names_say_which(tmp_path: Path) -> None:
    found = planned(GRID, tmp_path)
    assert len(found.trials) == 2 * 2 * 2 * 2
    assert found.steps == 16 * 500
    names = [trial.name for trial in found.trials]
    assert names[0] == "cartpole-v1-noise-learning_rate=0.001-seed0"
    assert names[-1] == "chain-6-epsilon-learning_rate=1e-4-seed1"
    last = found.trials[-1].config
    assert last.environment.environment == "Chain-6"
    assert last.exploration.exploration == "epsilon"
    assert (last.learning.learning_rate, last.training.seed) == (1e-4, 1)
    assert last.training.threads == 2
    # The base for each kind of environment: Chain's has n_step 1, CartPole's 10.
    assert (last.learning.n_step, found.trials[0].config.learning.n_step) == (1, 10)


def test_a_name_stays_when_the_suite_grows(tmp_path: Path) -> None:
    small = {trial.name: trial.config for trial in planned(GRID, tmp_path).trials}
    grown = GRID.replace("seeds: 2", "seeds: 4").replace("Chain-6", "Chain-6, Acrobot-v1")
    large = {trial.name: trial.config for trial in planned(grown, tmp_path).trials}
    assert len(large) == 48
    assert {name: large[name] for name in small} == small


def test_fields_may_stand_under_their_former_names(tmp_path: Path) -> None:
    variants = "variants: {a: {noise: independent}, b: {noise_kind: factorised}}"
    found = planned(f"environments: [Chain-6]\n{variants}", tmp_path)
    kinds = [trial.config.exploration.noise_kind for trial in found.trials]
    assert kinds == ["independent", "factorised"]
    grid = planned("environments: [Chain-6]\ngrid: {noise: [independent]}", tmp_path)
    assert grid.trials[0].config.exploration.noise_kind == "independent"
    # American ones are read as well.
    grid = planned("environments: [Chain-6]\ngrid: {prioritized: [true]}", tmp_path)
    assert grid.trials[0].config.learning.prioritised


def test_presets_may_name_their_own_game_and_games_are_ataris(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="Atari is an extra")
    own = planned("presets: [pong, pong-epsilon]\nseeds: [7]", tmp_path)
    assert [trial.name for trial in own.trials] == ["pong-pong-seed7", "pong-pong-epsilon-seed7"]
    games = planned("games: [ms_pacman]\npresets: [noisy-dqn]", tmp_path)
    assert [(trial.name, trial.game) for trial in games.trials] == [
        ("ms_pacman-noisy-dqn-seed0", "ALE/MsPacman-v5")
    ]


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = problems(
        """
games: [pongg]
environments: [CartPoel-v1, Chain-6]
presets: [auto, pongg]
variants: {a: {epsilon_steps: 3}, b: {discount: 2}}
overrides: {lerning_rate: 1, batch_size: many, n_step: 0}
seeds: [0, 1, 0]
retry: 3
""",
        tmp_path,
    )
    said = [
        "unknown key 'retry'; did you mean retries?",
        "seeds: got 0 twice",
        "games: got 'pongg'",
        "overrides: unknown key 'lerning_rate'; did you mean learning_rate?",
        "PRESET: got 'pongg'",
        "--batch-size: got 'many'",
        "--n-step: got 0",
        "--discount: got 2",
        "a: --epsilon-steps: would do nothing",
        "CartPoel-v1: unknown environment; nearest: CartPole-v1",
    ]
    for part in said:
        assert any(part in problem for problem in found), (part, found)
    assert len(found) == len(said), found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: 3", "games, environments: got none"),
        ("games: [pongg]", "games: got 'pongg', expected names of Atari's 57"),
        ("environments: [Chain-6]\nseeds: 0", "got 0, expected a list, or from 1 to 4096"),
        ("environments: [Chain-6]\nseeds: []", "seeds: got [], expected at least one"),
        ("environments: [Chain-6]\npresets: auto", "presets: got 'auto', expected a list"),
        ("environments: [Chain-6]\nvariants: {a: null}", "variants.a: got None, expected settings"),
        ("environments: [Chain-6]\nevaluation: 3", "evaluation: got 3, expected settings"),
        ("environments: [Chain-6]\ngrid: {n_step: []}", "grid.n_step"),
        ("environments: [Chain-6]\ngrid: {n_step: [1, 1]}", "grid.n_step: got 1 twice"),
        ("environments: [Chain-6, Chain-6]", "environments: got 'Chain-6' twice"),
        ("environments: [Chain-6]\nseeds: 1\nseeds: 2", "'seeds' is given twice (again in line 3)"),
        ("environments: [Chain-6]\noverrides: {seed: 3}", "seed is set by `seeds`"),
        ("environments: [Chain-6]\nresources: {cpu: 3}", "did you mean cpus?"),
        ("environments: [Chain-6]\nevaluation: {noise: [loud]}", "evaluation.noise.0"),
        ("environments: [Chain-6]\noverrides: {warmup_steps: 3}", "warmup_steps: got 3"),
        ("environments: [Chain-6]\noverrides: {actors: 2}", "Chain-6: actors: got 2, expected"),
        ("[1, 2]", "got list, expected settings"),
        ("environments: [", "not valid YAML"),
        (
            "environments: [Chain-6]\nvariants: {a b: {}, a-b: {}}",
            "two trials would share the folder chain-6-a-b-seed0",
        ),
        (
            "environments: [Chain-6, Chain-7]\nsearch: {space: {n_step: {low: 1, high: 3}}}",
            "search: got 2 different cells",
        ),
        (
            "environments: [Chain-6]\nsearch: {space: {n_step: {low: 3, high: 1}}}",
            "got low 3 and high 1, expected low < high",
        ),
        (
            "environments: [Chain-6]\nsearch: {space: {n_step: {low: 0, high: 3}}}",
            "--n-step: got 0",
        ),
        (
            "environments: [Chain-6]\nsearch: {space: {n_steps: {low: 1, high: 3}}}",
            "search.space: unknown key 'n_steps'; did you mean n_step?",
        ),
        *(
            (f"environments: [Chain-6]\nsearch: {{space: {space}}}", said)
            for space, said in (
                ("{learning_rate: {choices: [2024-01-01]}}", "--learning-rate: got datetime.date"),
                ("{learning_rate: {choices: [!!set {a}]}}", "--learning-rate: got {'a'}"),
                ("{n_step: {choices: [1, 1]}}", "search.space.n_step.choices: got 1 twice"),
                ("{n_step: {low: true, high: 3}}", "n_step.low: got True, expected a number"),
                ("{n_step: {low: 1, high: x}}", "n_step.high: got 'x', expected a number"),
                ("{n_step: {low: 1, high: 3.0}}", "--n-step: got 1.763932"),
            )
        ),
        ("environments: [Chain-6]\nnull: 3", "None: got None, Keys should be strings"),
        (
            "environments: [Chain-6]\nsearch: {space: {n_step: {low: 0, choices: [1, 2]}}}",
            "search.space.n_step: expected low and high, or choices alone",
        ),
        (
            "environments: [Chain-6]\nsearch: {space: {n_step: {log: true, choices: [1, 2]}}}",
            "search.space.n_step: expected low and high, or choices alone",
        ),
    ],
)
def test_a_mistake_is_named(text: str, said: str, tmp_path: Path) -> None:
    found = problems(text, tmp_path)
    assert any(said in problem for problem in found), found


LONG = "x" * 100_000
TEN = ", ".join(str(number) for number in range(1, 11))
BILLION = "environments: [CartPole-v1]\ngrid:\n" + "".join(
    f"  {name}: [{TEN}]\n"
    for name in (
        "n_step", "batch_size", "head_hidden", "update_every", "target_every", "log_every",
        "checkpoint_every", "solved_games", "epsilon_steps",
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BILLION, "got 1,000,000,000 trials, expected at most 20,000"),
        (f"environments: [CartPole-v1, {LONG}]", "xxx…: PRESET: got 'xxx"),
        (f"games: [{LONG}]", "games: got 'xxx"),
        (f"? {LONG}\n: 3\n", "unknown key 'xxx"),
        (f"environments: [CartPole-v1]\noverrides: {{? {LONG} : 3}}", "unknown key 'xxx"),
        (f"environments: [CartPole-v1]\noverrides: {{n_step: {LONG}}}", "--n-step: got 'xxx"),
        (f"environments: [CartPole-v1]\npresets: [{LONG}]", "PRESET: got 'xxx"),
        (f"environments: [Chain-6, {LONG}, {LONG}]", "environments: got 'xxx"),
        (f"seeds: {LONG}", "seeds: got 'xxx"),
        (
            f"environments: [Chain-6]\ngrid:\n  torso_hidden: [[{', '.join(['64'] * 100)}]]",
            "…: a name of 326 characters, expected at most 240",
        ),
    ],
)
def test_what_is_long_is_neither_built_nor_echoed_whole(
    text: str, said: str, tmp_path: Path
) -> None:
    found = problems(text, tmp_path)
    assert any(said in one for one in found), found
    assert all(len(one.replace(str(tmp_path), "")) < 700 for one in found)


def test_of_many_problems_the_first_are_said(tmp_path: Path) -> None:
    found = problems("".join(f"k{number}: 1\n" for number in range(300)), tmp_path)
    assert len([one for one in found if "unknown key" in one]) == 100
    assert any(one.endswith(": and 200 more") for one in found)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SuiteErrors, match=r"nowhere\.yaml: cannot be read: No such file"):
        plan(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(SuiteErrors, match=r"got 'clasic', .*; did you mean classic"):
        plan("clasic")


def test_a_folder_with_another_run_in_it_is_named(tmp_path: Path) -> None:
    first = planned("environments: [Chain-6]\noverrides: {steps: 500}", tmp_path)
    trial = first.trials[0]
    chosen = trial.config.replaced(device="cpu", precision="float32", learning_rate=0.5)
    RunFolder.create(first.folder / "runs" / trial.name, chosen.to_yaml()).close()
    (found,) = problems("environments: [Chain-6]\noverrides: {steps: 500}", tmp_path)
    # What was left to the machine is no difference.
    assert "was started with learning_rate 0.5 (the suite: 0.001): choose another" in found


@pytest.mark.parametrize("asked", ["cpus: 3", "gpus: 0.5"])
def test_what_no_node_has_is_not_waited_for(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Cluster("this machine", 1, cpus=4, largest=2, gpus=0)
    monkeypatch.setattr(suite_plan, "connect", lambda *_, **__: nullcontext(node))
    one = planned(f"environments: [Chain-6]\nresources: {{{asked}}}", tmp_path)
    with pytest.raises(ScaleError, match=f"resources.{asked.replace(':', ': got')}, and no node"):
        suite_plan.run(one, None, SuiteDisplay(Console()))


@pytest.mark.parametrize(
    ("name", "trials"), [("atari100k", 60), ("classic", 40), ("minatar", 50), ("pong-study", 6)]
)
def test_ready_suites_are_right(name: str, trials: int, tmp_path: Path) -> None:
    for package in ("ale_py", "minatar"):
        pytest.importorskip(package, reason="the games are extras")
    assert len(plan(name, tmp_path).trials) == trials


@pytest.mark.slow
def test_atari57_has_the_papers_frames(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="Atari is an extra")
    found = plan("atari57", tmp_path)
    assert len(found.trials) == 57 * 4 * 3
    assert {
        trial.config.training.steps * trial.config.environment.frame_skip for trial in found.trials
    } == {200_000_000}


def test_the_ready_suites_are_those_of_the_docs() -> None:
    assert ready_suites() == ["atari100k", "atari57", "classic", "minatar", "pong-study"]
    page = (Path(__file__).parents[2] / "docs" / "suite.md").read_text()
    assert all(f"`{name}`" in page for name in ready_suites())


def test_a_points_name_follows_from_its_values(tmp_path: Path) -> None:
    found = planned(
        "environments: [Chain-6]\nseeds: 2\n"
        "search: {space: {learning_rate: {low: 1e-5, high: 1e-2, log: true}}}",
        tmp_path,
    )
    space = SearchSpace(found.suite)
    names = [[trial.name for trial in space.trials({"learning_rate": one})] for one in (0.1, 0.2)]
    assert [name.rpartition("-")[2] for name in names[0]] == ["seed0", "seed1"]
    assert not set(names[0]) & set(names[1])
    assert [trial.name for trial in space.trials({"learning_rate": 0.1})] == names[0]
