"""A suite's scores against values worked out by hand, and the paper's against those it prints."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from noisynet.evaluation.scores import ReferenceScores, atari57_games, reference_scores
from noisynet.runs import config
from noisynet.suite.published import PUBLISHED, PublishedName, normalised, published_scores
from noisynet.suite.results import published_overall, suite_scores, to_csv
from noisynet.suite.trials import Trial


def test_the_papers_medians_and_means_are_those_it_prints() -> None:
    rows = published_overall(atari57_games(), "noisynet")
    assert [row["label"] for row in rows] == [
        f"{name} (the paper)" for name in PUBLISHED["noisynet"].agents.values()
    ]
    # DQN, A3C and Dueling, each before its noisy kin: arXiv 1706.10295, table 1.
    medians = [83, 123, 80, 94, 132, 172]
    printed = [319, 379, 293, 347, 524, 633]
    with_its_random_score = [791, 728, 536, 665, 1507, 1610]
    got = [float(str(row["median"])) for row in rows]
    # The table's own entries are rounded: the noisy A3C comes to 92.6 and 348.1.
    assert got == pytest.approx(medians, abs=1.5)
    assert [float(str(row["mean_as_printed"])) for row in rows] == pytest.approx(printed, abs=1.2)
    assert [float(str(row["mean"])) for row in rows] == pytest.approx(
        with_its_random_score, abs=0.6
    )


@pytest.mark.parametrize(("name", "games"), [("noisynet", 57), ("atari100k", 26)])
def test_published_references_are_the_standard_ones(name: PublishedName, games: int) -> None:
    scores = published_scores(name)
    assert len(scores) == games
    for game, row in scores.items():
        assert ReferenceScores(random=row["random"], human=row["human"]) == reference_scores(game)


def test_data_efficient_rainbow_is_as_published() -> None:
    rainbow, curl = published_overall(atari57_games(), "atari100k")
    assert (rainbow["label"], rainbow["games"]) == ("data-efficient Rainbow (published)", 26)
    # arXiv 2004.04136, table 1 prints 0.161 and 0.285.
    assert rainbow["median"] == pytest.approx(16.1, abs=0.05)
    assert rainbow["mean"] == pytest.approx(28.5, abs=0.05)
    assert curl["label"] == "CURL (published)"


def test_video_pinball_alone_is_normalised_in_two_ways() -> None:
    different = [
        game
        for game in atari57_games()
        if normalised(game, 1000.0) != normalised(game, 1000.0, as_printed=True)
    ]
    assert different == ["video_pinball"]


def trial(game: str, label: str, seed: int) -> Trial:
    base = config.load("pong" if game.startswith("ALE/") else "cartpole")
    return Trial(f"{game}-{label}-{seed}", label, base.replaced(environment=game, seed=seed))


def played(**means: float) -> dict[str, object]:
    return {"evaluations": {noise: {"mean": mean} for noise, mean in means.items()}}


def test_scores_are_those_worked_out_by_hand() -> None:
    # Human-normalised: Pong −20.7 to 14.6, Boxing 0.1 to 12.1.
    means = {
        ("ALE/Pong-v5", 0): -20.7, ("ALE/Pong-v5", 1): 14.6,
        ("ALE/Boxing-v5", 0): 12.1, ("ALE/Boxing-v5", 1): 36.1,
    }  # fmt: skip
    trials = {one.name: one for one in (trial(game, "noise", seed) for game, seed in means)}
    results = {name: played(off=means[one.game, one.seed]) for name, one in trials.items()}
    found = suite_scores(trials, results)
    pong, boxing = found["games"]
    assert (pong["runs"], pong["mean"], pong["human_normalised"]) == (
        2,
        pytest.approx(-3.05),
        pytest.approx(50.0),
    )
    assert (pong["published_dqn"], pong["published_noisynet_dqn"]) == (20.0, 21.0)
    assert boxing["human_normalised"] == pytest.approx(200.0)
    (overall,) = found["overall"]
    assert overall["label"] == "noise, noise off"
    assert (overall["games"], overall["runs"]) == (2, 4)
    # Runs at 0, 100 and at 100, 300: games at 50 and 200; the middle half of the runs at 100, 100.
    assert overall["median"] == overall["mean"] == pytest.approx(125.0)
    assert overall["iqm"] == pytest.approx(100.0)
    for name in ("median", "mean", "iqm"):
        low, high = overall[f"{name}_interval"]
        assert 0.0 - 1e-9 <= low <= overall[name] <= high <= 300.0
    # Pong's draws are 0, 50 or 100 and Boxing's 100, 200 or 300: the ends have 1/16 of the chance.
    assert overall["mean_interval"] == (pytest.approx(50.0), pytest.approx(200.0))
    assert len(found["published"]) == 6
    assert found["published"][0]["games"] == 2


def test_one_seed_has_no_interval_and_other_games_have_no_reference() -> None:
    one = trial("CartPole-v1", "noise", 0)
    found = suite_scores({one.name: one}, {one.name: played(off=20.0, on=10.0)})
    assert [(row["noise"], row["mean"], row["iqm_interval"]) for row in found["games"]] == [
        ("off", 20.0, None),
        ("on", 10.0, None),
    ]
    assert found["games"][0]["human_normalised"] is None
    assert found["overall"] == found["published"] == []


def test_what_noise_costs_is_known_beside_the_one_label_without() -> None:
    seconds = {"noise0": 80.0, "noise1": 160.0, "epsilon0": 60.0}
    trials = {name: trial("CartPole-v1", name[:-1], int(name[-1])) for name in seconds}
    plain = trials["epsilon0"].config.replaced(exploration="epsilon")
    trials["epsilon0"] = replace(trials["epsilon0"], config=plain)
    results = dict.fromkeys(seconds, played(off=1.0))
    noise, epsilon = suite_scores(trials, results, seconds)["games"]
    assert (noise["minutes"], noise["noise_share"]) == (2.0, 0.5)
    assert (epsilon["minutes"], epsilon["noise_share"]) == (1.0, None)
    alone = {name: one for name, one in trials.items() if name != "epsilon0"}
    (noise,) = suite_scores(alone, results, seconds)["games"]
    assert (noise["minutes"], noise["noise_share"]) == (2.0, None)


def test_a_game_that_nobody_published_is_normalised_all_the_same() -> None:
    one = trial("ALE/Tennis-v5", "noise", 0)
    found = suite_scores({one.name: one}, {one.name: played(off=-23.8)}, published="atari100k")
    assert found["games"][0]["human_normalised"] == pytest.approx(0.0)
    assert found["games"][0]["published_curl"] is None
    assert found["published"] == []
    assert len(found["overall"]) == 1


def test_a_trial_without_a_result_is_left_out() -> None:
    done, failed = trial("CartPole-v1", "noise", 0), trial("CartPole-v1", "noise", 1)
    trials = {one.name: one for one in (done, failed)}
    (row,) = suite_scores(trials, {done.name: played(off=20.0)})["games"]
    assert (row["runs"], row["mean"]) == (1, 20.0)


def test_csv_holds_every_figure_exactly() -> None:
    rows = [{"label": "a, b", "mean": 1 / 3, "iqm_interval": (0.1, 0.2)}, {"label": "c"}]
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [row["label"] for row in read] == ["a, b", "c"]
    assert float(read[0]["mean"]) == np.float64(1 / 3)
    assert (read[0]["iqm_interval_low"], read[0]["iqm_interval_high"]) == ("0.1", "0.2")
    assert read[1]["mean"] == ""
