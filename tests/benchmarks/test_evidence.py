"""The evidence: faulty agents have their faults, series go on, the page is that of its files."""

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.study import (
    atari100k,
    cartpole,
    compare,
    components,
    evidence,
    faults,
    faulty,
    minatar,
    part,
    verdict,
)
from benchmarks.study import run as study

from noisynet.agents import QLearning
from noisynet.agents.q_learning import Draws
from noisynet.assemble import build_agent, make_environments
from noisynet.diagnostics import Diagnosis
from noisynet.evaluation.examine_run import _values  # pyright: ignore[reportPrivateUsage]
from noisynet.layers import Draw, noisy_layers
from noisynet.runs import config
from noisynet.runs.config import Config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "does-it-pay.md").read_text()


COPIES, OTHERS = "ε copied into the target", "one layer as others have it"
FROZEN = "frozen noise: one draw for the whole run"


# The faults


def agent_with(arm: str) -> tuple[Config, QLearning]:
    """The agent of CartPole with one fault, as a run has it."""
    kind = None if arm == faults.RIGHT else faults.FAULTS[arm].agent
    chosen = config.load(*study.settings_of(study.TASKS["CartPole"], arm, 0, faults.ARMS))
    with faulty.agents_of(kind):
        agent = build_agent(chosen, (4,), 2)
    assert isinstance(agent, QLearning)
    return chosen, agent


@cache
def diagnosis(arm: str) -> Diagnosis:
    """What the doctor finds in that agent, in the way it acts and learns."""
    chosen, agent = agent_with(arm)
    environments = make_environments(chosen)
    try:
        return _values(chosen, agent, environments, 5_000)
    finally:
        environments.close()


@pytest.mark.parametrize(
    ("arm", "check", "said"),
    [
        (FROZEN, "redraw between updates", "is the same after an update"),
        ("acting without noise", "acting", "noise is off"),
        ("loss without noise", "noise in the loss", "without noise: σ cannot learn"),
        ("one draw for all environments", "rows", "one draw for all 8 rows"),
        ("ε″ = ε", "draws in the loss", "action choice uses the gradient's own draw"),
        (OTHERS, "rows", "one draw for all 8 rows"),
        (OTHERS, "draws in the loss", "action choice uses the gradient's own draw"),
        ("bias σ over √q", "initial sigma", "the bias's σ is σ0/√q"),
        (
            "factorised σ, independent draws",
            "initial sigma",
            "independent draws with a factorised layer's initial σ = 0.0442",
        ),
    ],
)
def test_the_doctor_finds_the_fault(arm: str, check: str, said: str) -> None:
    finding = diagnosis(arm)[check]
    assert finding.status in ("warn", "fail")
    assert said in finding.message


def test_the_agent_beside_them_has_none() -> None:
    found = diagnosis(faults.RIGHT)
    assert [str(one) for one in found if one.status in ("warn", "fail")] == []


def values(drawn: Draw | None) -> torch.Tensor:
    """All numbers of a draw, layer by layer."""
    assert drawn is not None
    return torch.cat([drawn.flat(slot) for slot in drawn.slots])


def rounds(arm: str) -> tuple[Draws, Draws, Draws]:
    """The draws of two updates, and of one after a copy."""
    _, agent = agent_with(arm)
    first = agent.draws()
    assert agent.noise is not None
    agent.noise.after_update()
    second = agent.draws()
    agent.copy_to_target()
    agent.noise.after_update()
    return first, second, agent.draws()


@pytest.mark.parametrize("arm", [COPIES, OTHERS])
def test_the_target_has_an_old_draw_of_the_online_net_s(arm: str) -> None:
    first, second, third = rounds(arm)
    assert torch.equal(values(first[1]), values(second[1]))
    assert not torch.equal(values(first[0]), values(second[0]))
    # What was copied is the newest ε.
    assert torch.equal(values(third[1]), values(second[0]))
    own_choice = not torch.equal(values(third[2]), values(third[0]))
    assert own_choice == (arm == COPIES)


def test_frozen_noise_acts_and_learns_under_one_draw() -> None:
    first, second, third = rounds(FROZEN)
    for which in range(3):
        assert torch.equal(values(first[which]), values(second[which]))
        assert torch.equal(values(first[which]), values(third[which]))
    assert torch.equal(values(first[0]), values(first[2]))
    assert not torch.equal(values(first[0]), values(first[1]))


@pytest.mark.parametrize("arm", [COPIES, OTHERS])
def test_a_run_that_goes_on_has_what_was_copied(arm: str) -> None:
    _, agent = agent_with(arm)
    agent.draws()
    agent.copy_to_target()
    agent.draws()
    arrays, plain = agent.state()
    _, other = agent_with(arm)
    other.restore({name: np.array(array) for name, array in arrays.items()}, plain)
    assert torch.equal(values(agent.draws()[1]), values(other.draws()[1]))
    agent.copy_to_target()
    other.copy_to_target()
    assert torch.equal(values(agent.draws()[1]), values(other.draws()[1]))


def test_independent_layers_have_the_factorised_layer_s_means_too() -> None:
    _, agent = agent_with("factorised σ, independent draws")
    for network in (agent.online, agent.target):
        for layer in noisy_layers(network).values():
            bound = 1 / layer.weight.shape[1] ** 0.5
            assert layer.noise == "independent"
            assert 0.95 * bound < float(layer.weight.detach().abs().max()) <= bound


def test_a_fault_ends_with_its_runs() -> None:
    with faulty.agents_of(faulty.FrozenNoise):
        pass
    assert type(agent_with(faults.RIGHT)[1]) is QLearning


# The runs


def line(task: str, arm: str, seed: int, area: float) -> dict[str, Any]:
    figures = {"final": 2 * area, "area": area, "wall_seconds": 60.0, "effective_epsilon": None}
    return {"task": task, "arm": arm, "seed": seed, **figures, "commit": "c", "machine": "m"}


def made(task: str, arm: str, seed: int) -> dict[str, Any] | None:
    if seed == 9:
        raise RuntimeError("it diverged")
    return None if arm == "interrupted" else line(task, arm, seed, float(seed))


def test_a_series_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = tmp_path / "new" / "runs.jsonl"
    mine = part.Part(
        file=file,
        arms={"a": ("x", "interrupted"), "b": ("x",), "asked": ("x",)},
        seeds={"a": 2, "b": 1, "asked": 0},
        run=made,
        minutes={"a": 2.0, "b": 5.0},
        table=lambda records: f"{len(records)} runs\n",
    )
    assert mine.missing() == [
        ("a", "x", 0),
        ("a", "interrupted", 0),
        ("b", "x", 0),
        ("a", "x", 1),
        ("a", "interrupted", 1),
    ]
    assert mine.minutes_left() == 4 * 2.0 + 5.0
    after: list[int] = []
    part.run_all(
        mine.missing()[:3], made, file, {"commit": "abc"}, at_once=1, after=lambda: after.append(1)
    )
    assert len(after) == 2
    with file.open("a") as lines:
        lines.write('{"task": "a", "arm": "x", "se')  # cut short by a kill
    assert mine.missing() == [("a", "interrupted", 0), ("a", "x", 1), ("a", "interrupted", 1)]
    assert mine.minutes_left() == 3 * 1.0  # as the one that was timed
    part.run_all([("a", "x", 1)], made, file, {"commit": "abc"}, at_once=1)
    assert [one["seed"] for one in mine.records()] == [0, 0, 1]
    assert {one["commit"] for one in mine.records()} == {"abc"}
    # One that fails keeps no other from being run.
    with pytest.raises(SystemExit, match=r"\('a', 'x', 9\): it diverged"):
        part.run_all([("a", "x", 9), ("b", "x", 0)], made, file, {"commit": "abc"}, at_once=1)
    assert mine.records()[-1]["task"] == "b"
    mine.write()
    assert file.with_suffix(".md").read_text() == "4 runs\n"


def test_a_run_is_trained_with_its_fault_and_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(study.TASKS["CartPole"], steps=1_600, games=2)
    monkeypatch.setitem(study.TASKS, "CartPole", task)
    right, fault = (faults.run("CartPole", arm, 0) for arm in (faults.RIGHT, FROZEN))
    assert (fault["task"], fault["arm"], fault["seed"], fault["steps"]) == (
        "CartPole",
        FROZEN,
        0,
        1_600,
    )
    # The warm-up is the same, and what follows is not.
    assert right["curve"][:60] == fault["curve"][:60]
    assert right["curve"] != fault["curve"]


def test_every_run_that_is_planned_has_a_valid_config() -> None:
    for task, names in minatar.PART.arms.items():
        for arm in names:
            arms = minatar.arms_of(task)
            chosen = config.load(*study.settings_of(minatar.TASKS[task], arm, 3, arms))
            assert chosen.training.seed == 3
            assert (chosen.exploration.noise_target is not None) == (arm == minatar.TARGET)
    for task in components.PART.arms:
        for arm in components.ARMS:
            setting = study.settings_of(components.TASKS[task], arm, 2, components.ARMS)
            assert config.load(*setting).exploration.has_noise == (
                arm != components.BOTH_BY_EPSILON
            )
    for task in faults.SEEDS:
        for arm in faults.ARMS:
            chosen = config.load(*study.settings_of(study.TASKS[task], arm, 1, faults.ARMS))
            assert chosen.exploration.sigma0 == (None if "independent" in arm else 0.5)


def test_the_arm_beside_the_suite_s_is_the_authors_under_another_name() -> None:
    pytest.importorskip("ale_py", reason="Atari is an extra")
    others = atari100k.trial_of("ALE/MsPacman-v5", atari100k.OTHERS, 2)
    authors = atari100k.trial_of("ALE/MsPacman-v5", atari100k.AUTHORS, 2)
    assert (others.name, authors.name) == (
        "ms_pacman-der-others-seed2",
        "ms_pacman-der-sigma-0.1-seed2",
    )
    assert others.config == authors.config
    epsilon = atari100k.trial_of("ALE/MsPacman-v5", atari100k.EPSILON, 2).config
    fallen = epsilon.learning.warmup_steps + epsilon.exploration.epsilon_steps
    assert fallen / epsilon.training.steps == atari100k.EPSILON_SHARE
    assert set(atari100k.ARMS) == {*atari100k.suite().variants, atari100k.OTHERS}
    planned = [task for task, seeds in atari100k.PART.seeds.items() if seeds]
    assert len(planned) == 5
    assert len(list(atari100k.PART.jobs())) == 5 * 5 * 3


# The tables


def test_arms_are_compared_seed_by_seed() -> None:
    records = [line("a", "x", seed, area) for seed, area in enumerate([2.0, 4.0, 9.0, 99.0])]
    records += [line("a", "y", seed, 1.0 + seed) for seed in range(3)]
    found = compare.paired(records, "a", "x", "y", "area")
    # Differences 1, 2, 6: mean 3, deviation √7, Student's t of two degrees of freedom 4.303.
    assert (found.seeds, found.ours, found.theirs, found.difference) == (3, 5.0, 2.0, 3.0)
    half = 4.302652729696142 * (7 / 3) ** 0.5
    assert found.interval == pytest.approx((3 - half, 3 + half))
    assert found.sign == 0
    assert compare.cell(found) == "+3 [−3.57, +9.57] (n = 3)"
    assert compare.ratios(records, "a", "x", "y", "area") == [2.0, 2.0, 3.0]
    assert compare.paired(records, "b", "x", "y", "area") is None
    assert compare.ratios(records, "b", "x", "y", "area") == []


def test_a_run_that_was_suspended_does_not_decide_how_long_runs_take() -> None:
    assert compare.iqm_cell([1.0, 1.1, 1.2, 1.3, 90.0]).startswith("1.2 [")
    assert compare.iqm_cell([1.0]) == "n = 1"
    assert compare.iqm_cell([]) == "n = 0"


@pytest.mark.parametrize(
    ("areas", "shown"),
    [
        ([-5.0], "n = 1: no interval"),
        ([-5.0, -5.1], "**−5.05 [−5.69, −4.41] (n = 2)**"),
        ([0.0, 0.0], "0 [0, 0] (n = 2)"),
        ([1999.0, 2001.0, 2000.0], "**+2,000 [+1,998, +2,002] (n = 3)**"),
    ],
)
def test_a_cell_says_no_more_than_its_seeds(areas: list[float], shown: str) -> None:
    records = [line("a", "x", seed, area) for seed, area in enumerate(areas)]
    records += [line("a", "y", seed, 0.0) for seed in range(len(areas))]
    assert compare.cell(compare.paired(records, "a", "x", "y", "area")) == shown


def test_tables_are_right_with_no_run_and_with_some() -> None:
    for series in evidence.SERIES.values():
        assert "nan" not in series.part.table([])
    runs = [line("CartPole", arm, seed, 100.0 + seed - 50 * (arm == FROZEN))
            for arm in (faults.RIGHT, FROZEN) for seed in range(2)]  # fmt: skip
    rows = {row.split(" | ")[0]: row for row in faults.table(runs).splitlines()[2:]}
    assert f"| {faults.RIGHT}" in rows
    assert "−50 [−50, −50] (n = 2)" in faults.table(runs)
    games = [line("ALE/Boxing-v5", arm, seed, 3.0) | {"final_with_noise": 5.0}
             for arm in atari100k.ARMS for seed in range(3)]  # fmt: skip
    table = atari100k.table(games)
    assert "| Boxing | ε-greedy | 6 [6, 6] (n = 3) | – | – | 0.2 | 4.8 |" in table
    # (6 − 0.1) / 12 of human.
    assert "| ε-greedy | 1 | 3 | 49.2 [49.2, 49.2] |" in table
    assert "| ε-greedy | 1 [1, 1] (n = 3) | – |" in table


def test_one_seed_of_the_parts_is_not_shown() -> None:
    game = "MinAtar Asterix"
    runs = [line(game, "IQN", seed, 2.0 + seed) for seed in range(2)]
    assert game not in components.table(runs[:1])
    assert f"| {game} | final |" in components.table(runs)


def test_where_noise_is_behind_comes_first() -> None:
    def of(task: str, difference: float) -> Any:
        interval = (difference - 1, difference + 1)
        one = compare.Compared(2, difference, 0.0, difference, interval, 0.01)
        none = compare.Compared(2, 0.0, 0.0, 0.0, (-1.0, 1.0), 0.5)
        return verdict.Row(task, none, one, one, [1.5, 1.5, 1.5])

    rows = sorted([of("a", 0.5), of("b", 3.0), of("c", -3.0)], key=lambda row: row.sign)
    table = verdict.table(rows)
    assert [row.split(" | ")[:2] for row in table.splitlines()[2:5]] == [
        ["| c", "behind"], ["| a", "not told"], ["| b", "ahead"]
    ]  # fmt: skip
    assert table.splitlines()[2].endswith("| 1.5 [1.5, 1.5] (n = 3) |")
    said = "3 tasks: 1 behind, 1 not told, 1 ahead. With a false discovery rate of 5 %, "
    assert table.endswith(f"{said}4 of the 4 bold differences remain.\n")


def test_the_area_while_epsilon_falls_does_not_decide() -> None:
    none, more = (
        compare.Compared(2, 1.0, 0.0, 1.0, interval, 0.01) for interval in ((-1, 3), (0.5, 1.5))
    )
    assert verdict.Row("a", none, more, none, [1.0]).sign == 0
    assert verdict.Row("a", none, none, more, [1.0]).sign == 1
    assert verdict.Row("a", more, None, None, [1.0]).sign == 1
    assert verdict._later([0.0] * 25 + [2.0] * 75, 0.25) == 2.0


def test_differences_that_chance_explains_are_named() -> None:
    def of(task: str, p_value: float | None) -> Any:
        interval = (0.0, 0.0) if p_value is None else (0.5, 1.5) if p_value < 0.05 else (-1.0, 3.0)
        one = compare.Compared(5, 1.0, 0.0, 1.0, interval, p_value)
        return verdict.Row(task, one, None, None, [1.0])

    # Benjamini and Hochberg: 0.04 is above 2/4 of 0.05, and 0.001 below 1/4; equal runs count out.
    rows = [of("a", 0.001), of("b", 0.04), of("c", 0.3), of("d", 0.9), of("e", None)]
    assert verdict.doubtful(rows) == (2, ["b (final)"])
    assert verdict.table(rows).endswith("1 of the 2 bold differences remain: all but b (final).\n")
    assert verdict.doubtful([]) == (0, [])


def test_the_presets_that_are_compared_differ_in_exploration_alone() -> None:
    for pair in cartpole.TWINS.items():
        noisy, greedy = (config.load(preset).model_dump() for preset in pair)
        kinds = [one.pop("exploration")["exploration"] for one in (noisy, greedy)]
        assert kinds == ["noise", "epsilon"]
        names = [one.pop("preset") for one in (noisy, greedy)]
        assert names == list(pair)
        assert noisy == greedy
    (ours,) = (row for row in verdict.rows() if row.task == "CartPole, `cartpole`")
    low, high = ours.final.interval
    page = " ".join((ROOT / "docs" / "agents.md").read_text().split())
    assert f"by {ours.final.difference:.0f} ({low:.0f} to {high:.0f}); its σ0" in page


def test_the_p_value_is_that_of_the_interval() -> None:
    # Differences 1, 2, 6: t = 3/√(7/3) = 1.964; at two degrees of freedom p = 1 − t/√(2 + t²).
    records = [line("a", "x", seed, area) for seed, area in enumerate([2.0, 4.0, 9.0])]
    records += [line("a", "y", seed, 1.0 + seed) for seed in range(3)]
    t = 3 / (7 / 3) ** 0.5
    found = compare.paired(records, "a", "x", "y", "area")
    assert found.p_value == pytest.approx(1 - t / (2 + t * t) ** 0.5)
    assert compare.paired(records, "a", "x", "x", "area").p_value is None


@pytest.mark.parametrize("name", evidence.SERIES)
def test_tables_are_those_of_their_runs(name: str) -> None:
    series = evidence.SERIES[name]
    file = series.part.file.with_suffix(".md")
    assert file.read_text() == series.part.table(series.part.records())


def test_the_verdict_and_the_state_are_those_of_the_runs() -> None:
    assert verdict.TABLE.read_text() == verdict.table(verdict.rows())
    assert evidence.STATE.read_text() == evidence.state()


def test_kept_runs_are_compact_and_none_counts_twice() -> None:
    for series in evidence.SERIES.values():
        kept = part.read_lines(series.part.file)
        keys = [(one["task"], one["arm"], one["seed"]) for one in series.part.records()]
        assert len(keys) == len(set(keys))
        assert all(len(json.dumps(one)) < 3_000 for one in kept)
        assert all(one["commit"] and one["machine"] for one in kept)


def test_the_page_includes_each_table() -> None:
    for file in (verdict.TABLE, evidence.STATE, faults.FILE, minatar.FILE, atari100k.FILE,
                 components.FILE):  # fmt: skip
        name = file.with_suffix(".md").name
        assert f"{{include}} ../benchmarks/results/study/{name}" in PAGE


def test_what_the_page_says_of_minatar_by_pqn() -> None:
    records = minatar.PART.records()
    text = " ".join(PAGE.split())

    def mean(task: str, arm: str, figure: str) -> float:
        return float(np.mean([one[figure] for one in records
                              if (one["task"], one["arm"]) == (task, arm)]))  # fmt: skip

    by_pqn = [task for task in minatar.TASKS if task.endswith("by PQN")]

    def told(arm: str, figure: str, sign: int) -> list[str]:
        pairs = {task: compare.paired(records, task, arm, "epsilon", figure) for task in by_pqn}
        return [task.removesuffix(" by PQN") for task, one in pairs.items() if one.sign == sign]

    assert f"behind on {' and '.join(told('noise', 'final', -1))}, with an interval" in text
    assert "By area the two cannot be told apart on any." in text
    assert not told("noise", "final", 1)
    assert not told("noise", "area", 1)
    assert not told("noise", "area", -1)
    assert len(told(minatar.SHARED_DRAW, "final", -1)) == 4
    assert "with intervals that leave 0 out on four" in text
    assert all(
        mean(task, minatar.SHARED_DRAW, "final") < mean(task, "epsilon", "final") for task in by_pqn
    )
    of_arms = ("noise", "epsilon", minatar.SHARED_DRAW)
    seaquest = tuple(mean("Seaquest by PQN", arm, "final") for arm in of_arms)
    assert "{:.1f} against {:.1f} of ε-greedy, and {:.1f} with one draw".format(*seaquest) in text
    noise, epsilon = (
        sorted(one["final"] for one in records
               if (one["task"], one["arm"]) == ("Seaquest by PQN", arm))
        for arm in ("noise", "epsilon")
    )  # fmt: skip
    assert round(noise[0]) == 3
    assert noise[3] < 7.0
    assert pytest.approx(epsilon[0], abs=0.05) == 5.5
    assert epsilon[1] > 20.5
    assert f"Four of its five seeds return 3 to 7, and one {noise[4]:.1f}" in text
    root = Path(__file__).parents[2]
    page_of_pqn = " ".join((root / "docs" / "agents" / "pqn.md").read_text().split())
    assert f"on Seaquest it returns {seaquest[0]:.1f}, and four of its five seeds" in page_of_pqn
    assert (
        "it returned {2:.1f} after a million steps, the twin {1:.1f}".format(*seaquest)
        in page_of_pqn
    )
    behind = " and ".join(told("noise", "final", -1))
    assert f"and behind on {behind}, and probably on Seaquest." in " ".join(
        (root / "README.md").read_text().split()
    )

    held = [one for one in records if one["task"] in by_pqn and one["arm"] == minatar.TARGET]
    nothing = Counter(one["task"].partition(" ")[0] for one in held if one["final"] == 0)
    assert (len(held), nothing) == (25, {"Freeway": 2, "Seaquest": 3, "SpaceInvaders": 1})
    learned = {one["seed"]: one["area"] for one in held
               if one["task"] == "Freeway by PQN" and one["final"]}  # fmt: skip
    plain = [one["area"] for one in records if one["seed"] in learned
             and (one["task"], one["arm"]) == ("Freeway by PQN", "noise")]  # fmt: skip
    areas = float(np.mean(list(learned.values()))), float(np.mean(plain))
    assert "have an area of {:.1f} there, and {:.1f} under noise".format(*areas) in text


def test_what_the_page_says_of_minatar_by_dqn() -> None:
    records = minatar.PART.records()
    by_dqn = [task for task in minatar.TASKS if not task.endswith("by PQN")]
    runs = Counter((one["task"], one["arm"]) for one in records if one["task"] in by_dqn)
    assert set(runs.values()) == {5}

    def told(arm: str, other: str, figure: str) -> dict[str, int]:
        pairs = {task: compare.paired(records, task, arm, other, figure) for task in by_dqn}
        return {task.removeprefix("MinAtar "): one.sign for task, one in pairs.items() if one.sign}

    assert told("noise", "epsilon", "final") == {"Asterix": 1}
    ahead = dict.fromkeys(("Breakout", "Freeway", "Seaquest", "SpaceInvaders"), 1)
    assert told("noise", "epsilon", "area") == ahead
    for rivals in records:
        rivals["later"] = float(np.mean(rivals["curve"][25:]))
        rivals["last"] = float(np.mean(rivals["curve"][75:]))
    assert told("noise", "epsilon", "later") == {"Freeway": 1, "Seaquest": 1}
    last = compare.paired(records, "MinAtar SpaceInvaders", "noise", "epsilon", "last")
    text = " ".join(PAGE.split())
    low, high = (-end for end in last.interval)
    assert f"return {-last.difference:.1f} less ({high:.1f} to {low:.1f})" in text
    still = [one["effective_epsilon"][-1] for one in records
             if (one["task"], one["arm"]) == ("MinAtar SpaceInvaders", "noise")]  # fmt: skip
    assert 0.2 < np.mean(still) < 0.3
    assert told(minatar.TARGET, "noise", "final") == {}
    assert told(minatar.TARGET, "noise", "area") == {"SpaceInvaders": 1}


def test_the_page_names_every_difference_that_iqn_and_munchausen_make_on_small_tasks() -> None:
    head, _, *rows = components.FILE.with_suffix(".md").read_text().splitlines()
    arms = [cell.strip() for cell in head.split("|")[4:-1]]
    bold: set[tuple[str, ...]] = set()
    for row in rows:
        task, figure, _, *cells = (cell.strip() for cell in row.split("|")[1:-1])
        if task in components.SHARED:
            named = zip(arms, cells, strict=True)
            bold |= {(task, figure, arm, cell[2]) for arm, cell in named if cell.startswith("**")}
    assert bold == {
        ("CartPole", "final", "Munchausen − DQN", "+"),
        ("DeepSea-8", "area", "Munchausen − DQN", "−"),
        ("Chain-10", "area", "IQN − DQN", "+"),
        ("CartPole", "area", "both − DQN", "−"),
        ("Chain-10", "area", "both − DQN", "+"),
        ("Chain-10", "area", "both: noise − ε", "+"),
    }


def test_what_the_page_says_of_iqn_and_munchausen_on_minatar() -> None:
    rows = [row.split("|") for row in components.FILE.with_suffix(".md").read_text().splitlines()]
    told = {tuple(part.strip() for part in row[1:3]): [cell.strip() for cell in row[4:-1]]
            for row in rows if len(row) > 1 and "MinAtar" in row[1]}  # fmt: skip
    cells = [cell for row in told.values() for cell in row]
    assert {cell.strip("*")[-4:] for cell in cells} == {"= 2)", "= 3)"}
    signs = {"**+": 1, "**−": -1}
    bold = {(task.split()[1], figure): [signs.get(cell[:3], 0) for cell in row]
            for (task, figure), row in told.items() if "**" in "".join(row)}  # fmt: skip
    # IQN, Munchausen and both, each minus DQN; noise minus ε beside both.
    assert bold == {
        ("Asterix", "final"): [1, 1, 0, 0],
        ("Asterix", "area"): [1, 0, 1, 0],
        ("Breakout", "final"): [0, 0, 0, -1],
        ("Freeway", "final"): [1, 1, 0, 0],
        ("Seaquest", "final"): [1, 0, 0, 0],
    }
    assert sum(cell.startswith("**") for cell in cells) == 8
    assert len(cells) == 40
    assert "Eight of the 40 differences there are bold" in " ".join(PAGE.split())


def test_what_the_page_says_of_faults() -> None:
    records = faults.PART.records()
    text = " ".join(PAGE.split())
    found = {(task, arm, figure): compare.paired(records, task, arm, faults.RIGHT, figure)
             for task in ("CartPole", "DeepSea-8") for arm in faults.FAULTS
             for figure in ("area", "final")}  # fmt: skip
    assert {one.seeds for one in found.values()} == {10}
    assert len(found) == 36
    assert "Of these 36 differences" in text
    told = {key: one.sign for key, one in found.items() if one.sign}
    acting, shared = "acting without noise", "one draw for all environments"
    assert told == {
        ("CartPole", FROZEN, "area"): -1,
        ("CartPole", FROZEN, "final"): -1,
        ("DeepSea-8", FROZEN, "area"): -1,
        ("DeepSea-8", FROZEN, "final"): -1,
        ("CartPole", acting, "area"): 1,
        ("CartPole", acting, "final"): 1,
        ("DeepSea-8", acting, "area"): -1,
        ("DeepSea-8", shared, "area"): -1,
        ("CartPole", OTHERS, "final"): 1,
        ("DeepSea-8", OTHERS, "area"): -1,
        ("DeepSea-8", "bias σ over √q", "area"): -1,
    }
    assert f"these return {-found['CartPole', FROZEN, 'final'].difference:.0f} less" in text

    def lost(arm: str) -> float:
        one = found["DeepSea-8", arm, "area"]
        return -one.difference / one.theirs

    assert 1 / 3 < lost(acting) < 2 / 5  # more than a third
    assert 0.29 < lost(shared) < 1 / 3  # almost a third
    assert abs(lost(OTHERS) - lost(shared)) < 0.05  # as much
    assert f"costs {100 * lost('bias σ over √q'):.0f} % of the area" in text
    assert f"cost {100 * lost(shared):.0f} to {100 * lost('bias σ over √q'):.0f} %" in text

    def without_treasure(arm: str) -> int:
        return sum(one["final"] < 0.5 for one in records
                   if (one["task"], one["arm"]) == ("DeepSea-8", arm))  # fmt: skip

    failed = {arm: without_treasure(arm) for arm in faults.ARMS}
    assert {arm: count for arm, count in failed.items() if count} == {
        FROZEN: 10, acting: 3, shared: 3, OTHERS: 3, "bias σ over √q": 1
    }  # fmt: skip
