"""What is said of presets: a sentence for each, and figures of those that were measured."""

from pathlib import Path

from noisynet.runs import config
from noisynet.runs.cards import FIGURES, cards
from noisynet.runs.yaml_text import load

ROOT = Path(__file__).parents[2]


def test_every_preset_has_a_sentence_and_figures_are_those_of_presets() -> None:
    found = cards()
    assert list(found) == config.preset_names()
    for name, card in found.items():
        assert card.what, name
        assert "\n" not in card.what
        assert not card.what.endswith((".", "et al"))
        assert (card.time is None) == (card.score is None) == (card.measured_in is None)
        assert card.to_json()["steps"] == config.load(name).training.steps
    assert found["dqn"].what == (
        "DQN (Mnih et al. 2015, extended data table 1), with its ε-greedy exploration"
    )
    figures = load((Path(config.__file__).parents[1] / FIGURES).read_text())
    assert figures.keys() <= found.keys()


def test_figures_are_those_that_are_recorded() -> None:
    """The table that benchmarks wrote has the same steps, medians, extremes and times."""
    place = "benchmarks/results/study/cartpole.md"
    rows = [line.split("|")[1:-1] for line in (ROOT / place).read_text().splitlines()[2:]]
    recorded = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}
    measured = {name: card for name, card in cards().items() if card.measured_in == place}
    assert measured.keys() == recorded.keys()
    for name, card in measured.items():
        _, returns, median, _, seconds = recorded[name]
        each = returns.split(", ")
        spread = "" if len(set(each)) == 1 else f"{each[0]} to {each[-1]}, "
        assert card.score == f"{median} ({spread}{len(each)} seeds)"
        assert card.time == f"{seconds} s"
    for card in cards().values():
        assert card.measured_in is None or (ROOT / card.measured_in).exists()
