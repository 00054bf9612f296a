"""What the agent plays: the section `environment` of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .conditions import ALWAYS, Acts, Sections
from .section import FewThousand, Fraction, PositiveInt, Section


def _no_such_choice(config: Sections) -> str:
    return f"{config.environment.environment} has no such choice"


ON_ATARI = Acts(lambda config: config.environment.is_atari, _no_such_choice)
ON_MINATAR = Acts(lambda config: config.environment.is_minatar, _no_such_choice)
ON_ATARI_OR_MINATAR = Acts(
    lambda config: config.environment.is_atari or config.environment.is_minatar, _no_such_choice
)


class EnvironmentSection(Section):
    """What the agent plays, and every choice of preprocessing."""

    environment: Annotated[str, ALWAYS] = Field(
        max_length=500,
        description="environment id, such as ALE/Pong-v5, MinAtar/Breakout-v1, DeepSea-10 or "
        "CartPole-v1, or module:function for your own",
    )
    environments: Annotated[FewThousand, ALWAYS] = Field(
        default=8, ge=1, description="number of environments that step side by side"
    )
    frame_skip: Annotated[PositiveInt, ON_ATARI] = Field(
        default=4, description="Atari: frames for which an action is repeated"
    )
    max_pool: Annotated[bool, ON_ATARI] = Field(
        default=True, description="Atari: show the pixel-wise maximum of a step's last two frames"
    )
    frame_stack: Annotated[PositiveInt, ON_ATARI] = Field(
        default=4, description="Atari: frames in an observation"
    )
    frame_height: Annotated[PositiveInt, ON_ATARI] = Field(
        default=84, description="Atari: rows of a frame"
    )
    frame_width: Annotated[PositiveInt, ON_ATARI] = Field(
        default=84, description="Atari: columns of a frame"
    )
    grayscale: Annotated[Literal[True], ON_ATARI] = Field(
        default=True, description="Atari: grey frames, the only kind that the networks accept"
    )
    sticky_actions: Annotated[Fraction, ON_ATARI_OR_MINATAR] = Field(
        default=0.0,
        description="Atari, MinAtar: probability that the game repeats the previous action",
    )
    max_noops: Annotated[FewThousand, ON_ATARI] = Field(
        default=30, description="Atari: largest number of no-op actions at the start of a game"
    )
    fire_on_reset: Annotated[bool, ON_ATARI] = Field(
        default=False, description="Atari: press FIRE at the start of a game that has it"
    )
    life_loss: Annotated[bool, ON_ATARI] = Field(
        default=True, description="Atari: a lost life ends bootstrapping, while the game goes on"
    )
    full_action_space: Annotated[bool, ON_ATARI] = Field(
        default=False, description="Atari: use all 18 actions in every game"
    )
    max_frames: Annotated[PositiveInt, ON_ATARI_OR_MINATAR] = Field(
        default=108_000,
        description="Atari, MinAtar: frames after which a game is truncated (Atari: 30 minutes)",
    )
    difficulty_ramping: Annotated[bool, ON_MINATAR] = Field(
        default=True, description="MinAtar: games become harder as they go on"
    )

    @property
    def is_atari(self) -> bool:
        """Whether this is an Atari game."""
        return self.environment.startswith("ALE/")

    @property
    def is_minatar(self) -> bool:
        """Whether this is a MinAtar game."""
        return self.environment.startswith("MinAtar/")
