"""The agents that the package brings: small, whole, and of a card that their files bear out."""

from __future__ import annotations

from pathlib import Path

import pytest

import noisynet
from noisynet.runs import RunError, config, open_run
from noisynet.runs.pretrained import AGENTS, agent_cards, names, pretrained

MOST_BYTES = 6_000_000


@pytest.mark.parametrize("name", names())
def test_an_agent_is_a_run_that_holds_the_network_that_acts_alone(name: str) -> None:
    found = open_run(pretrained(name)).trained()
    families = {one.partition(".")[0] for one in found.arrays}
    assert families - {"noise"} in ({"online"}, {"network"})
    assert {str(one.dtype) for one in found.arrays.values()} <= {"float16", "int64", "float64"}


@pytest.mark.parametrize("name", names())
def test_a_card_names_the_preset_the_commit_and_games_by_every_noise(name: str) -> None:
    card = agent_cards()[name]
    assert card.config.preset in config.preset_names()
    assert card.command.startswith(f"noisynet train {card.config.preset}")
    plain = card.to_json()
    assert plain["commit"]
    assert plain["seed"] == card.config.training.seed
    assert list(plain["scores"]) == ["off", "on", "mean:8"]
    assert all(one.step == card.step for one in card.evaluations)
    assert all(len(one.returns) >= 30 for one in card.evaluations)


def test_the_page_has_a_row_for_each_agent() -> None:
    page = (Path(__file__).parents[2] / "docs" / "pretrained.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [
        "| "
        + " | ".join(
            [
                f"`{name}`",
                f"`{card.config.environment.environment}`",
                f"`{card.config.preset}`",
                str(card.config.training.seed),
                f"{card.step:,}",
                *card.scores.values(),
            ]
        )
        + " |"
        for name, card in agent_cards().items()
    ]


def test_all_of_them_are_small() -> None:
    files = [one for one in AGENTS.rglob("*") if one.is_file()]
    assert sum(one.stat().st_size for one in files) < MOST_BYTES


def test_a_name_that_there_is_not_gets_the_nearest() -> None:
    with pytest.raises(RunError, match=r"got 'cartpol', expected one of .*did you mean cartpole\?"):
        pretrained("cartpol")


def test_an_agent_cannot_be_resumed_and_nothing_is_left_in_the_package() -> None:
    with pytest.raises(RunError, match="cartpole: got a pretrained agent, expected a run"):
        noisynet.resume(pretrained("cartpole"), steps=400_000)
    assert not (AGENTS / "cartpole" / "run.lock").exists()


def test_what_cannot_be_used_is_named() -> None:
    with pytest.raises(RunError, match=r"torso: got 3, expected a torch\.nn\.Module"):
        noisynet.train("cartpole", torso=3, steps=100)
    agent = noisynet.load(pretrained("cartpole"))
    with pytest.raises(ValueError, match=r"^observation: got shape \(3,\), its own space says"):
        agent.predict([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="observation: got nan, expected one of the environment's"):
        agent.predict(float("nan"))
