"""What fields take: by hand for each kind, and read back from a text for any value."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisynet.runs import config
from noisynet.runs.config.accepted import any_of, is_truth
from noisynet.runs.errors import RunError

WORDS = {
    "double": "true or false",
    "grayscale": "true",
    "noise_kind": "factorised or independent",
    "steps": "a whole number from 1 to 2147483647",
    "seed": "a whole number from 0 to 1999999999",
    "environments": "a whole number from 1 to 4096",
    "discount": "a number from 0 to 1",
    "learning_rate": "a number above 0",
    "value_min": "a number",
    "entropy_bonus": "a number of at least 0",
    "sigma0": "a number of at least 0, or none",
    "reward_clip": "a number above 0, or none",
    "noise_target": "a number above 0 and below 1, or none",
    "actors": "a whole number from 1 to 4096, or none",
    "torso_hidden": "whole numbers from 1 to 2147483647, separated by commas",
    "device": "auto, cpu, cuda or cuda:1",
    "environment": "text of at most 500 characters",
}


@pytest.mark.parametrize(("field", "words"), WORDS.items())
def test_what_a_field_takes_in_words(field: str, words: str) -> None:
    assert str(config.ACCEPTED[field]) == words


def test_every_field_has_a_placeholder_and_one_that_lists_values_has_them_all() -> None:
    assert config.ACCEPTED["noise_kind"].placeholder == "factorised|independent"
    assert config.ACCEPTED["double"].placeholder == "true|false"
    assert all(one.placeholder for one in config.ACCEPTED.values())


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("double", "True", True),
        ("double", "off", False),
        ("double", "maybe", "maybe"),
        ("torso_hidden", "64,64", [64, 64]),
        ("torso_hidden", "[64, 32]", [64, 32]),
        ("torso_hidden", "64", [64]),
        ("torso_hidden", "", []),
        ("torso_hidden", "64,x", [64, "x"]),
        ("sigma0", "none", None),
        ("sigma0", "", None),
        ("sigma0", "0.5", 0.5),
        ("exploration", "none", "none"),
        ("steps", "010", 10),
        ("steps", "-1_000", -1000),
        ("learning_rate", "fast", "fast"),
        ("environment", "010", "010"),
    ],
)
def test_what_a_text_means(field: str, text: str, value: object) -> None:
    found = config.ACCEPTED[field].read(text)
    assert found == value
    assert type(found) is type(value)


FIELDS = [(name, section) for section, name, _ in config.fields()]


@given(st.data())
def test_a_value_written_as_the_help_shows_it_is_read_back(data: Any) -> None:
    name, section = data.draw(st.sampled_from(FIELDS))
    takes = config.ACCEPTED[name]
    value = getattr(getattr(config.load("cartpole"), section), name)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    read = takes.read("none" if value is None else text)
    assert (tuple(read) if isinstance(read, list) else read) == value


@given(st.floats(allow_nan=False), st.sampled_from(["discount", "learning_rate", "entropy_bonus"]))
def test_numbers_outside_what_is_said_are_refused_and_those_inside_are_not(
    number: float, field: str
) -> None:
    takes = config.ACCEPTED[field]
    low = number > takes.above if takes.above is not None else number >= (takes.least or 0)
    fits = low and (takes.most is None or number <= takes.most) and math.isfinite(number)
    chosen = config.load("cartpole-a2c")
    try:
        made = chosen.replaced(**{field: number})
    except RunError as error:
        assert not fits
        assert f"expected {takes} (" in str(error)  # noqa: PT017 - which of both is the property
    else:
        assert fits
        assert made.why_unused(field) is None


def test_only_what_is_alike_is_offered() -> None:
    torso = config.ACCEPTED["torso"]
    assert torso.near("natur") == "nature"
    assert torso.near("resnet") is None
    # A GPU is cuda: cpu, the most alike, is the opposite of what was meant.
    assert config.ACCEPTED["device"].near("gpu") is None


def test_choices_and_truths_in_words() -> None:
    assert any_of(["a"]) == "a"
    assert any_of("abc") == "a, b or c"
    assert [is_truth(text) for text in ("true", "No", "maybe", "")] == [True, True, False, False]
