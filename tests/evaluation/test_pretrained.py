"""Pretrained agents play as their cards say, at the command line and in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from noisynet.cli import main
from noisynet.evaluation.agent import TrainedAgent
from noisynet.evaluation.conditions import environments_for, on_this_machine
from noisynet.runs import open_run
from noisynet.runs.pretrained import agent_cards, names, pretrained


@pytest.mark.parametrize("name", names())
def test_each_chooses_among_the_actions_of_its_game(name: str) -> None:
    chosen = on_this_machine(open_run(pretrained(name)).config)
    with environments_for(chosen, count=1, seed=0) as environments:
        agent = TrainedAgent.load(pretrained(name))
        observation = environments.reset()
        for noise in (0, 1, 8):
            agent.begin(np.ones(1, np.bool_))
            (action,) = agent.act(observation, noise=noise)
            assert 0 <= action < environments.action_count


def test_it_plays_the_games_of_its_card_and_leaves_the_package_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = pretrained("cartpole")
    before = sorted(folder.rglob("*")), (folder / "evaluations.jsonl").read_bytes()
    arguments = ["evaluate", "--pretrained", "cartpole", "--episodes", "8", "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    card = agent_cards()["cartpole"]
    assert result["returns"] == list(card.evaluations[0].returns[:8])
    assert result["step"] == card.step
    assert (sorted(folder.rglob("*")), (folder / "evaluations.jsonl").read_bytes()) == before


def test_a_film_of_it_goes_to_the_folder_at_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["watch", "--pretrained", "cartpole", "--steps", "5"]) == 0
    (film,) = tmp_path.iterdir()
    assert film.stem == "cartpole"
    assert f"Video: {film}" in capsys.readouterr().out


def test_the_doctor_says_that_it_keeps_no_optimizer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(pretrained("cartpole"))]) == 2
    assert "cartpole: got a pretrained agent, expected a run: it keeps no optimizer" in (
        capsys.readouterr().err
    )


def test_presets_list_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("agent "))
    listed = lines[head + 1 : lines.index("", head)]
    assert [line.split()[0] for line in listed] == names()
    assert main(["presets", "--json"]) == 0
    presets = json.loads(capsys.readouterr().out)
    told = {name: card for one in presets.values() for name, card in one["pretrained"].items()}
    assert told == {name: card.to_json() for name, card in agent_cards().items()}
