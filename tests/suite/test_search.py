"""Optuna's search repeats itself, whatever the order in which its points end."""

import sys
from pathlib import Path
from typing import Any

import pytest

from noisynet.cluster.errors import ScaleError
from noisynet.suite.plan import plan
from noisynet.suite.runner import Ended
from noisynet.suite.search import SearchSource
from noisynet.suite.trials import Trial

optuna = pytest.importorskip("optuna", reason="Optuna is in the extra ray")

TEXT = """
environments: [Chain-6]
seeds: 2
overrides: {steps: 300}
search:
  trials: 12
  concurrent: 3
  seed: 5
  space:
    learning_rate: {low: 1e-5, high: 1e-1, log: true}
    n_step: {low: 1, high: 5}
    torso_hidden: {choices: [[32], [64, 64]]}
"""


def source(folder: Path, text: str = TEXT) -> SearchSource:
    file = folder / "search.yaml"
    file.write_text(text)
    found = plan(str(file), folder / "out").source
    assert isinstance(found, SearchSource)
    return found


def score(trial: Trial) -> float:
    """Be best at a learning rate of 0.01 and two hidden layers."""
    rate, layers = trial.config.learning.learning_rate, len(trial.config.network.torso_hidden)
    return layers - abs(rate - 0.01) + trial.seed


def result(mean: float) -> dict[str, Any]:
    return {"evaluations": {"off": {"mean": mean}}}


def search(folder: Path, pick: int, dead: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """Run a search whose open trials end in another order: the first, or the last of them."""
    one, ended = source(folder), Ended()
    waiting: list[Trial] = []
    most = 0
    while True:
        while given := one.more(ended):
            waiting += given
            ended.trials |= {trial.name: trial for trial in given}
        most = max(most, len({trial.label for trial in waiting}))
        if not waiting:
            assert most == 3
            return one.table(ended)
        trial = waiting.pop(pick)
        if trial.name in dead:
            ended.failures[trial.name] = "dead"
        else:
            ended.results[trial.name] = result(score(trial))


def test_a_search_repeats_itself_whatever_ends_first(tmp_path: Path) -> None:
    first, second = (search(tmp_path, pick) for pick in (0, -1))
    assert first == second
    assert len(first) == 12
    scores = [row["score"] for row in first]
    assert scores == sorted(scores, reverse=True)
    assert all(len(row["trials"].split()) == 2 for row in first)
    assert all(1 <= row["n_step"] <= 5 and type(row["n_step"]) is int for row in first)
    assert all(1e-5 <= row["learning_rate"] <= 1e-1 for row in first)
    assert {tuple(row["torso_hidden"]) for row in first} == {(32,), (64, 64)}
    # The mean over the two seeds.
    best = first[0]
    layers = len(best["torso_hidden"])
    assert best["score"] == pytest.approx(layers - abs(best["learning_rate"] - 0.01) + 0.5)


def test_a_failed_trial_leaves_its_point_without_a_score(tmp_path: Path) -> None:
    name = search(tmp_path, 0)[0]["trials"].split()[1]
    table = search(tmp_path, 0, frozenset([name]))
    assert len(table) == 12
    assert table[-1]["score"] is None
    assert name in table[-1]["trials"]
    assert all(row["score"] is not None for row in table[:-1])


def test_a_point_whose_values_do_not_go_together_does_not_end_the_search(tmp_path: Path) -> None:
    text = TEXT.partition("  space:")[0]
    ranges = "batch_size: {low: 32, high: 512}, warmup_steps: {low: 32, high: 600}"
    one, ended = source(tmp_path, f"{text}  space: {{{ranges}}}\n"), Ended()
    while given := one.more(ended):
        ended.trials |= {trial.name: trial for trial in given}
        ended.results |= {trial.name: result(1.0) for trial in given}
    table = one.table(ended)
    together = [row["warmup_steps"] >= row["batch_size"] for row in table]
    assert [row["score"] is not None for row in table] == together
    assert len(table) == 12
    assert len(ended.failures) == together.count(False) > 0
    for name, reason in ended.failures.items():
        assert name.startswith("point ")
        assert "warmup_steps: got" in reason


def test_the_first_points_are_those_of_tpe_with_the_searchs_seed(tmp_path: Path) -> None:
    """Told nothing yet, Optuna's sampler draws from the space alone."""
    asked = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=5))
    space = {
        "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
        "n_step": optuna.distributions.IntDistribution(1, 5),
        "torso_hidden": optuna.distributions.CategoricalDistribution([0, 1]),
    }
    one, ended = source(tmp_path), Ended()
    for _ in range(3):
        values = asked.ask(space).params
        first, second = (trial.config for trial in one.more(ended))
        assert first.learning.learning_rate == values["learning_rate"]
        assert first.learning.n_step == values["n_step"]
        assert first.network.torso_hidden == ((32,), (64, 64))[values["torso_hidden"]]
        assert (first.training.seed, second.training.seed) == (0, 1)
    assert one.more(ended) == []


def test_a_search_needs_no_ray_and_names_the_extra_without_optuna(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert len(source(tmp_path).first) == 2
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ScaleError, match=r"search needs optuna: pip install '.*\[ray\]'"):
        source(tmp_path)
