"""Numbers of a comparison, by hand and against SciPy; and what it says of runs that do not fit."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from noisynet.cli import main
from noisynet.evaluation.scores import (
    bootstrap_interval,
    interquartile_mean,
    interquartile_means,
    probability_of_improvement,
)
from noisynet.report.comparison import compare
from noisynet.report.groups import variants
from noisynet.report.tables import score_table
from noisynet.runs.record import read_run


def compared(*paths: Path) -> dict:
    return compare(variants([read_run(path) for path in paths]))


# The statistics


def test_probability_of_improvement_by_hand() -> None:
    # 3 wins and a draw in 6 pairs, then a game that is always won.
    assert probability_of_improvement([[1.0, 3.0]], [[0.0, 1.0, 4.0]]) == pytest.approx(3.5 / 6)
    assert probability_of_improvement([[1], [9]], [[1], [2]]) == pytest.approx((0.5 + 1) / 2)


def test_repeats_of_a_seed_count_once(write_run) -> None:
    """The seed is 0 unless it is given, so a run that is trained again is the same run."""
    ours = [write_run(f"n{number}", [30.0], seed=0) for number in range(3)]
    theirs = [
        write_run(f"e{number}", [20.0], seed=0, preset="cartpole-epsilon") for number in range(3)
    ]
    found = compared(*ours, *theirs)
    (game,) = found["games"]
    assert [row["interval"] for row in game["variants"]] == [None, None]
    assert [row["scores"] for row in game["variants"]] == [[30], [20]]
    assert game["improvement"] == []
    assert "3 runs, of which 2 repeat another (the same seed and score)" in str(found["notes"])
    # One that ended otherwise is no repeat, and noted.
    found = compared(*ours, write_run("other", [31.0], seed=0))
    assert found["games"][0]["variants"][0]["scores"] == [30, 31]
    assert "noise: several runs have the same seed" in str(found["notes"])


def test_a_narrow_terminal_keeps_the_names_of_variants(
    write_run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [write_run("n", [30.0]), write_run("e", [20.0], preset="cartpole-epsilon")]
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["compare", *map(str, runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    folded = "".join(line[:8].strip() for line in lines)
    assert "ε-greedy" in folded


def test_runs_of_one_name_are_told_apart(write_run, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        write_run("noise/1", [30.0, 31.0], after="half\n"),
        write_run("epsilon/1", [20.0], preset="cartpole-epsilon", after="half\n"),
    ]
    assert main(["compare", *map(str, runs)]) == 0
    said = capsys.readouterr().out
    assert "compared at step 100, the length of epsilon/1" in said
    for name in ("noise/1", "epsilon/1"):
        assert f"Note: {name}: 1 damaged line of metrics.jsonl skipped" in said


def test_an_environment_s_name_is_printed_as_it_is(
    write_run, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run("n", [30.0], preset="control", environment="games:Snake")
    assert main(["compare", str(run)]) == 0
    title, *_, note, _ = capsys.readouterr().out.splitlines()
    assert title.startswith("games:Snake: mean return")
    assert note.startswith("Note: games:Snake: too few seeds")


def test_improvement_and_its_opposite_add_up_to_one() -> None:
    generator = np.random.default_rng(1)
    ours, theirs = generator.integers(0, 5, (2, 3, 7)).astype(float)
    there, back = (
        probability_of_improvement(list(a), list(b)) for a, b in ((ours, theirs), (theirs, ours))
    )
    assert there + back == pytest.approx(1)


@pytest.mark.parametrize(("ours", "theirs"), [([[1.0]], []), ([], []), ([[1.0]], [[]])])
def test_games_that_do_not_match_are_refused(ours: list, theirs: list) -> None:
    with pytest.raises(ValueError, match="expected"):
        probability_of_improvement(ours, theirs)


def test_interquartile_means_are_that_of_each_row() -> None:
    rows = np.random.default_rng(2).normal(size=(5, 11))
    together = interquartile_means(rows[:, :4], rows[:, 4:])
    assert together == pytest.approx([interquartile_mean(row) for row in rows])
    assert together == pytest.approx(scipy.stats.trim_mean(rows, 0.25, axis=1))


def test_the_bootstrap_agrees_with_scipys() -> None:
    generator = np.random.default_rng(3)
    strata = [generator.normal(loc, 1, 12) for loc in (0.0, 3.0)]

    def statistic(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        return scipy.stats.trim_mean(np.concatenate(drawn, axis=axis), 0.25, axis=axis)

    theirs = scipy.stats.bootstrap(
        strata, statistic, n_resamples=20_000, method="percentile", vectorized=True
    ).confidence_interval
    ours = bootstrap_interval(interquartile_means, strata, resamples=20_000)
    # Two such estimates of an end differ by about 0.005 (one deviation, measured over seeds).
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05)


def test_strata_are_drawn_apart() -> None:
    # Were they drawn together, the mean of 0, 0, 1000, 1000 would vary; apart it cannot.
    strata = [[0.0, 0.0], [1000.0, 1000.0]]
    assert bootstrap_interval(interquartile_means, strata) == (500, 500)
    # Were the same places drawn in both, the middle of these could not vary either.
    low, high = bootstrap_interval(interquartile_means, [[0.0, 1.0], [1.0, 0.0]]) or (0.5, 0.5)
    assert low < 0.5 < high
    assert bootstrap_interval(interquartile_means, [[1.0, 2.0], [3.0]]) is None
    assert bootstrap_interval(interquartile_means, [[1.0, 2.0]]) is None


# The comparison


def test_noise_against_its_rival(write_run) -> None:
    paths = [write_run(f"n{seed}", [10.0 + seed] * 120, seed=seed) for seed in range(4)]
    paths += [
        write_run(f"e{seed}", [8.0 + seed] * 120, seed=seed, preset="cartpole-epsilon")
        for seed in range(4)
    ]
    found = compared(*paths)
    (game,) = found["games"]
    assert game["at_step"] == 12_000
    noise, rival = game["variants"]
    assert (noise["label"], rival["label"]) == ("noise", "ε-greedy")
    assert noise["scores"] == [10, 11, 12, 13]
    assert noise["iqm"] == noise["mean"] == 11.5
    low, high = noise["interval"]
    assert 10 <= low < 11.5 < high <= 13
    (pair,) = game["improvement"]
    # Of 16 pairs 13 are won, 2 drawn and 1 lost.
    assert pair["probability"] == pytest.approx((13 + 0.5 * 2) / 16)
    assert pair["interval"][0] < pair["probability"] < pair["interval"][1]
    assert found["notes"] == []
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (2, 2), (2, 4), (3, 3)])
def test_few_seeds_have_neither_interval_nor_probability(write_run, ours: int, theirs: int) -> None:
    found = compared(
        *(write_run(f"n{seed}", [1.0 + seed], seed=seed) for seed in range(ours)),
        *(
            write_run(f"e{seed}", [2.0 + seed], seed=seed, preset="cartpole-epsilon")
            for seed in range(theirs)
        ),
    )
    (game,) = found["games"]
    assert [row["interval"] is not None for row in game["variants"]] == [ours > 2, theirs > 2]
    assert len(game["improvement"]) == (ours > 2 < theirs)
    assert any("too few seeds of noise" in note for note in found["notes"]) == (ours < 3)


def test_seeds_make_a_group_and_other_settings_do_not(write_run) -> None:
    paths = [
        write_run("a", [1.0], seed=0),
        write_run("b", [1.0], seed=1, threads=2),
        write_run("c", [1.0], seed=0, learning_rate=0.01),
        write_run("d", [1.0], seed=2, checkpoint_every=77),
        write_run("e", [1.0], seed=3, execution="plain", replay_device="host"),
    ]
    kinds = variants([read_run(path) for path in paths])
    assert [[run.name for run in kind.runs] for kind in kinds] == [["a", "b", "d", "e"], ["c"]]
    assert "learning_rate=0.01" in kinds[1].label


def test_different_lengths_are_compared_where_all_have_been(write_run) -> None:
    long = write_run("long", [float(number) for number in range(100)])
    short = write_run("short", [5.0] * 40, preset="cartpole-epsilon")
    found = compared(long, short)
    (game,) = found["games"]
    assert game["at_step"] == 4_000
    assert game["variants"][0]["scores"] == [pytest.approx(sum(range(40)) / 40)]
    assert any("different lengths" in note and "short" in note for note in found["notes"])
    assert any("too few seeds of noise, ε-greedy" in note for note in found["notes"])


def test_lengths_far_apart_are_compared_at_the_very_step(write_run) -> None:
    # What is left of the long run are buckets of 512 steps: 2,000 is inside the first of them.
    returns = [float(number) for number in range(1, 10_001)]
    long = write_run("long", returns, every=10, solved_games=1)
    short = write_run("short", returns[:200], preset="cartpole-epsilon", every=10, solved_games=1)
    assert len(read_run(long).curves["game/mean_return"].step) <= 256
    found = compared(long, short)
    (game,) = found["games"]
    assert game["at_step"] == 2_000
    assert [row["scores"] for row in game["variants"]] == [[200], [200]]
    assert any("compared at step 2,000, the length of short" in note for note in found["notes"])


def test_a_first_game_after_the_others_end_sets_the_step(write_run) -> None:
    late = write_run("late", [1.0] * 40, every=1_000)
    short = write_run("short", [5.0] * 5, preset="cartpole-epsilon")
    found = compared(late, short)
    assert found["games"][0]["at_step"] == 1_000
    (note,) = [note for note in found["notes"] if "compared at" in note]
    assert "step 1,000, where late finished its first game" in note


def test_a_solved_run_keeps_its_last_score(write_run) -> None:
    goal = {"solved_return": 20.0, "solved_games": 1}
    solved = write_run("solved", [5.0, 10.0, 20.0], **goal)
    scores = [float(number) for number in range(1, 10)]
    others = [
        write_run(f"other{seed}", scores, seed=seed, preset="cartpole-epsilon", **goal)
        for seed in (0, 1)
    ]
    found = compared(solved, *others)
    (game,) = found["games"]
    assert game["at_step"] == 900
    assert [row["scores"] for row in game["variants"]] == [[20], [9, 9]]
    assert [row["solved_at"] for row in game["variants"]] == [300, None]
    noted = "solved stopped early because solved: its last score counts"
    assert any(noted in note for note in found["notes"])
    assert not any("different lengths" in note for note in found["notes"])


def test_runs_that_were_all_solved_are_compared_at_the_longest(write_run) -> None:
    goal = {"solved_return": 5.0, "solved_games": 2}
    quick = write_run("quick", [1.0, 8.0, 8.0], **goal)
    slow = write_run("slow", [1.0, 1.0, 1.0, 30.0, 30.0], preset="cartpole-epsilon", **goal)
    found = compared(quick, slow)
    (game,) = found["games"]
    assert game["at_step"] == 500
    assert game["variants"][0]["scores"] == [8]
    assert [row["solved_at"] for row in game["variants"]] == [300, 500]
    assert any("quick stopped early because solved" in note for note in found["notes"])


@pytest.mark.parametrize(("solving", "expected"), [(1, None), (2, 300), (3, 300)])
def test_solved_at_is_the_median_of_all_runs(write_run, solving: int, expected: int | None) -> None:
    goal = {"solved_return": 20.0, "solved_games": 1}
    games = [[1.0, 1.0, 20.0 if seed < solving else 1.0] for seed in range(3)]
    paths = [write_run(f"run{seed}", one, seed=seed, **goal) for seed, one in enumerate(games)]
    ((row,),) = [game["variants"] for game in compared(*paths)["games"]]
    assert row["solved_at"] == expected
    assert (">300</td>" in score_table([row])) is bool(expected)
    assert ("solved at step" in score_table([row])) is bool(expected)


def test_windows_that_differ_are_noted(write_run) -> None:
    paths = [
        write_run("a", [1.0], solved_games=10),
        write_run("b", [1.0], solved_games=20, preset="cartpole-epsilon"),
    ]
    (note,) = [note for note in compared(*paths)["notes"] if "solved_games" in note]
    assert note.endswith("10, 20")


def test_alike_variants_of_different_games_each_name_theirs(write_run) -> None:
    paths = [
        write_run("cart", [1.0], learning_rate=0.002),
        write_run("acro", [1.0], preset="Acrobot-v1"),
    ]
    labels = [kind.label for kind in variants([read_run(path) for path in paths])]
    assert sorted(labels) == ["noise, Acrobot-v1", "noise, CartPole-v1"]


def test_different_games_stand_apart_without_reference_scores(write_run) -> None:
    found = compared(
        write_run("cart", [1.0]), write_run("acro", [2.0], preset="Acrobot-v1", seed=1)
    )
    assert {game["environment"] for game in found["games"]} == {"CartPole-v1", "Acrobot-v1"}
    assert found["overall"] is None
    assert any("no reference scores for" in one for one in found["notes"])


def test_atari_games_are_compared_together_by_human_normalised_scores(write_run) -> None:
    paths = [
        write_run(f"{preset}-{game}-{seed}", [float(score)] * 3, preset=preset, seed=seed,
                  environment=f"ALE/{game}-v5", solved_return=None)
        for preset, score in (("pong", 14.6), ("pong-epsilon", -20.7))
        for game in ("Pong", "Freeway")
        for seed in (0, 1)
    ]  # fmt: skip
    paths.append(
        write_run("alone", [9.0] * 3, preset="pong", environment="ALE/Pong-v5", learning_rate=1e-3)
    )
    found = compared(*paths)
    overall = found["overall"]
    assert any("did not play all of them, and is left out" in note for note in found["notes"])
    assert overall["games"] == 2
    noise, rival = overall["variants"]
    # Pong: random -20.7, human 14.6; Freeway: random 0, human 29.6.
    assert noise["mean"] == pytest.approx((100 + 100 * 14.6 / 29.6) / 2)
    assert rival["mean"] == pytest.approx((0 - 100 * 20.7 / 29.6) / 2)
    assert overall["improvement"][0]["probability"] == 1
    assert overall["improvement"][0]["interval"] is None  # every run won: there is no spread


def test_a_run_without_a_finished_game_is_left_out_and_said(write_run) -> None:
    found = compared(write_run("new", []), write_run("old", [1.0, 2.0], seed=1))
    assert found["games"][0]["variants"][0]["scores"] == [1.5]
    assert any("new finished no game yet" in note for note in found["notes"])
    nothing = compared(write_run("none", []))
    assert nothing["games"] == []
    assert any("nothing to compare" in note for note in nothing["notes"])


# Reading runs


def test_a_trained_run_s_record(trained: list[Path]) -> None:
    run = read_run(trained[0])
    assert run.state == "finished"
    assert run.step >= 900
    assert run.games > 3
    assert {"snr/q.0", "sigma/q.2"} <= set(run.curves)


# The commands


def test_compare_and_runs_print_one_json_object(
    trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, trained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in found["games"][0]["variants"]] == ["noise", "ε-greedy"]
    assert main(["runs", str(trained[0].parent), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["explores_by"], run["state"]) for run in listed] == [
        ("ε-greedy", "finished"),
        ("noise", "finished"),
    ]


def test_compare_and_runs_for_people(
    trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, trained)]) == 0
    said = capsys.readouterr().out
    assert "P(noise" not in said
    assert "too few seeds of noise, ε-greedy" in said
    assert main(["runs", str(trained[0].parent)]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("run")


def test_a_run_that_is_named_twice_counts_once(
    write_run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run("long", [1.0] * 3)
    monkeypatch.chdir(path.parent)
    assert main(["compare", "long", str(path), "./long/../long", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["games"][0]["variants"]
    assert row["runs"] == 1


def test_what_is_no_run_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in ("compare", "report", "watch", "runs"):
        assert main([command, str(tmp_path / "missing")]) == 2
        errors = capsys.readouterr().err
        assert len(errors.splitlines()) == 1
        assert "no such folder" in errors


def test_two_hundred_runs_take_seconds(write_run) -> None:
    returns = np.random.default_rng(0).normal(20, 5, 1000).tolist()
    paths = [
        write_run(f"{preset}-{number}", returns, seed=number, preset=preset)
        for preset in ("cartpole", "cartpole-epsilon")
        for number in range(100)
    ]
    began = time.process_time()
    found = compared(*paths)
    assert found["games"][0]["variants"][0]["runs"] == 100
    assert time.process_time() - began < 30
