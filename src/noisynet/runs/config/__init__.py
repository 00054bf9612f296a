"""The configuration of a run: a file for each section, the whole config, and how it is loaded."""

from .loading import can_be_preset, first_comment, from_yaml, load, preset_names
from .schema import (
    ACCEPTED,
    MAY_BE_OWN,
    SECTION_OF,
    SECTIONS,
    Config,
    about,
    fields,
    may_change,
    option_name,
    with_present_names,
)

__all__ = [
    "ACCEPTED",
    "MAY_BE_OWN",
    "SECTIONS",
    "SECTION_OF",
    "Config",
    "about",
    "can_be_preset",
    "fields",
    "first_comment",
    "from_yaml",
    "load",
    "may_change",
    "option_name",
    "preset_names",
    "with_present_names",
]
