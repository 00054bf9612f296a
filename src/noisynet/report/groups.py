"""Variants: runs that have the same config except for the seed, on one game or on several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..runs.config import SECTION_OF, Config
from ..runs.record import RunRecord

# Fields that may differ between the runs of one variant: the game, the seed, and those that
# depend on the machine or have no effect on what is learned.
_FREE = {
    "environment", "seed", "device", "threads", "precision", "execution", "replay_device",
    "log_every", "checkpoint_every", "backend",
}  # fmt: skip

_TELLING = (
    "exploration", "learning", "network", "plasticity", "rollouts", "actor_critic", "scale",
    "training", "environment",
)  # fmt: skip
"""The sections, ordered by how much their fields tell about how two agents differ."""

_LONGEST_LABEL = 60


@dataclass(frozen=True)
class Variant:
    """One way of training: a config without game and seed, and its runs."""

    label: str
    settings: dict[str, Any]
    """The fields that affect what is learned, by name; see `settings`."""
    runs: tuple[RunRecord, ...]

    @property
    def config(self) -> Config:
        """The config of its first run; those of the others differ in fields such as the seed."""
        return self.runs[0].config

    @property
    def has_noise(self) -> bool:
        """Whether its agents have noisy layers."""
        return self.config.exploration.has_noise

    def games(self) -> list[str]:
        """Return the games that the variant was trained on."""
        return list(dict.fromkeys(run.game for run in self.runs))

    def on(self, game: str) -> list[RunRecord]:
        """Return the variant's runs on one game, which differ in their seed."""
        return [run for run in self.runs if run.game == game]


def explores_by(config: Config) -> str:
    """Return what an agent explores by, in words: `noise`, `ε-greedy` and so on."""
    words = {
        "noise": "noise",
        "epsilon": "ε-greedy",
        "both": "noise and ε-greedy",
        "none": "nothing added",
    }
    word = words[config.exploration.exploration]
    if config.learning.is_actor_critic and config.actor_critic.entropy_bonus > 0:
        return "entropy bonus" if word == "nothing added" else f"{word}, entropy bonus"
    return word


def settings(config: Config) -> dict[str, Any]:
    """Return the fields that affect what is learned, by name, except the game and the seed."""
    return {
        name: value
        for section in config.by_section().values()
        for name, value in section.items()
        if name not in _FREE and config.why_unused(name) is None
    }


def variants(runs: Sequence[RunRecord]) -> list[Variant]:
    """Group runs into variants, those with noise first, and give each a short, unique label."""
    members: dict[str, list[RunRecord]] = {}
    for run in runs:
        members.setdefault(repr(sorted(settings(run.config).items())), []).append(run)
    found = [Variant("", settings(these[0].config), tuple(these)) for these in members.values()]
    found.sort(key=lambda one: not one.has_noise)
    return [
        replace(
            one, label=label, runs=tuple(sorted(one.runs, key=lambda run: (run.game, run.seed)))
        )
        for label, one in zip(_labels(found), found, strict=True)
    ]


def differences(all_settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the fields whose values differ, or that only some of the settings have."""
    names = dict.fromkeys(name for one in all_settings for name in one)
    missing = object()
    return [
        name for name in names if len({repr(one.get(name, missing)) for one in all_settings}) > 1
    ]


def _labels(found: Sequence[Variant]) -> list[str]:
    """Label each variant by what sets it apart from those that play the same games."""
    short = [
        _label(one, [other for other in found if set(one.games()) & set(other.games())])
        for one in found
    ]
    labels = [
        f"{label}, {one.games()[0]}" if short.count(label) > 1 and len(one.games()) == 1 else label
        for label, one in zip(short, found, strict=True)
    ]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{label} [{number}]" for number, label in enumerate(labels, start=1)]


def _label(one: Variant, rivals: Sequence[Variant]) -> str:
    """Return the exploration, the preset or the fields that differ: the first that is unique."""
    word, preset = explores_by(one.config), one.config.preset
    alike = [other for other in rivals if explores_by(other.config) == word]
    if len(alike) == 1:
        return word
    named = preset and "/" not in preset
    if named and [other.config.preset for other in rivals].count(preset) == 1:
        return preset
    different = sorted(
        differences([other.settings for other in alike]),
        key=lambda name: _TELLING.index(SECTION_OF[name]),
    )
    fields = ", ".join(f"{name}={one.settings[name]}" for name in different if name in one.settings)
    label = f"{word} ({fields})" if fields else word
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
