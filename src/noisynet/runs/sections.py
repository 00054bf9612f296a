"""The sections of a run's configuration: frozen, each field documented and validated.

Field names are unique over the sections, so that the command line can take each by its bare name
(`--learning-rate`).
"""

from __future__ import annotations

import zlib
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

SEEDS = 2_000_000_000
"""Seeds are below this: ale-py keeps them in a C int, and counts up from them."""


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "expected a number")
    return value


_Int = Annotated[int, BeforeValidator(_no_bool)]
_Float = Annotated[float, BeforeValidator(_no_bool)]
Fraction = Annotated[_Float, Field(ge=0, le=1, allow_inf_nan=False)]
PositiveFloat = Annotated[_Float, Field(gt=0, allow_inf_nan=False)]
# Up to what a C int holds: further on, ale-py and torch answer with errors of their own.
PositiveInt = Annotated[_Int, Field(ge=1, le=2**31 - 1)]
Count = Annotated[_Int, Field(ge=0, le=2**31 - 1)]
Seed = Annotated[_Int, Field(ge=0, lt=SEEDS)]
FewThousand = Annotated[_Int, Field(ge=0, le=4096)]


class Section(BaseModel):
    """Be a part of the configuration: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EnvironmentSection(Section):
    """What the agent plays, and every choice of preprocessing."""

    environment: str = Field(description="environment id, such as ALE/Pong-v5 or CartPole-v1")
    environments: FewThousand = Field(
        default=8, ge=1, description="how many are stepped side by side"
    )
    frame_skip: PositiveInt = Field(
        default=4, description="Atari: frames that an action is repeated for"
    )
    max_pool: bool = Field(
        default=True, description="Atari: show the brighter of a step's last two frames"
    )
    frame_stack: PositiveInt = Field(default=4, description="Atari: frames in an observation")
    frame_height: PositiveInt = Field(default=84, description="Atari: rows of a frame")
    frame_width: PositiveInt = Field(default=84, description="Atari: columns of a frame")
    grayscale: Literal[True] = Field(
        default=True, description="Atari: frames are grey, the only kind the networks take"
    )
    sticky_actions: Fraction = Field(
        default=0.0, description="Atari: probability that the emulator repeats the former action"
    )
    max_noops: FewThousand = Field(
        default=30, description="Atari: no-op actions at a game's start, at most"
    )
    fire_on_reset: bool = Field(
        default=False, description="Atari: press FIRE at a game's start where the game has it"
    )
    life_loss: bool = Field(
        default=True, description="Atari: a lost life ends bootstrapping (the game goes on)"
    )
    full_action_space: bool = Field(
        default=False, description="Atari: all 18 actions in every game"
    )
    max_frames: PositiveInt = Field(
        default=108_000,
        description="Atari: frames after which a game is truncated (30 minutes of play)",
    )

    @property
    def is_atari(self) -> bool:
        """Tell whether this is an Atari game, which the other fields are about."""
        return self.environment.startswith("ALE/")


class NetworkSection(Section):
    """The Q-network."""

    torso: Literal["auto", "nature", "mlp"] = Field(
        default="auto",
        description="nature: the CNN for stacked frames; mlp: for vectors; auto: by shape",
    )
    torso_hidden: tuple[PositiveInt, ...] = Field(
        default=(), description="mlp torso: sizes of its (plain) hidden layers"
    )
    head_hidden: PositiveInt = Field(default=512, description="size of the head's hidden layer")
    dueling: bool = Field(
        default=False, description="a value and an advantage stream (arXiv 1511.06581)"
    )


class ExplorationSection(Section):
    """How the agent explores: by learned noise, by ε-greedy, by both, or not at all."""

    exploration: Literal["noise", "epsilon", "both", "none"] = Field(
        default="noise", description="noise, epsilon, both, none"
    )
    noise: Literal["factorised", "independent"] = Field(
        default="factorised", description="kind of noise in the head's layers"
    )
    sigma0: _Float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="initial σ; empty: the paper's for the kind",
    )
    epsilon_start: Fraction = Field(default=1.0, description="ε at the end of the warm-up")
    epsilon_end: Fraction = Field(default=0.01, description="ε from epsilon_steps on")
    epsilon_steps: PositiveInt = Field(
        default=100_000,
        description="steps over which ε falls linearly, counted from the warm-up's end",
    )

    @property
    def has_noise(self) -> bool:
        """Tell whether the head's layers are noisy."""
        return self.exploration in ("noise", "both")

    @property
    def has_epsilon(self) -> bool:
        """Tell whether some actions are drawn uniformly."""
        return self.exploration in ("epsilon", "both")


class LearningSection(Section):
    """The update: target, loss, optimizer, and how often."""

    double: bool = Field(default=True, description="the online net chooses, the target net values")
    n_step: PositiveInt = Field(default=1, description="rewards summed before bootstrapping")
    discount: Fraction = Field(default=0.99, description="γ, per step")
    reward_clip: PositiveFloat | None = Field(
        default=None, description="rewards are cut to ±this for learning; empty: as they are"
    )
    batch_size: PositiveInt = Field(default=32, description="transitions in an update")
    learning_rate: PositiveFloat = Field(default=1e-4, description="Adam's step size")
    final_learning_rate: PositiveFloat | None = Field(
        default=None,
        description="Adam's step size at the last step, where it falls linearly; empty: constant",
    )
    adam_epsilon: PositiveFloat = Field(default=1e-8, description="Adam's ε")
    loss: Literal["huber", "squared"] = Field(default="huber", description="of the TD error")
    max_gradient_norm: PositiveFloat = Field(
        default=10.0, description="larger gradients are scaled down"
    )
    warmup_steps: Count = Field(
        default=10_000, description="uniformly random steps before learning starts"
    )
    update_every: PositiveInt = Field(default=4, description="steps between updates")
    target_every: PositiveInt = Field(
        default=2_000, description="steps between copies of the online net into the target net"
    )
    replay_capacity: PositiveInt = Field(
        default=100_000, description="transitions the replay holds"
    )


class TrainingSection(Section):
    """How long, with which seed, on what, and what is kept."""

    steps: PositiveInt = Field(
        default=1_000_000, description="agent steps after which training ends"
    )
    seed: Seed = Field(default=0, description="seed of everything that is random")
    solved_return: _Float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="training ends when the last solved_games games reach this mean",
    )
    solved_games: PositiveInt = Field(
        default=100, description="games that solved_return is a mean of"
    )
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the products; auto: the faster one, measured at the start"
    )
    threads: FewThousand = Field(
        default=0, description="CPU threads of torch and environments; 0: all cores"
    )
    log_every: PositiveInt = Field(default=100, description="updates between lines of figures")
    checkpoint_every: PositiveInt = Field(default=10_000, description="steps between checkpoints")

    def stream(self, name: str) -> int:
        """Give the seed of one named source of randomness, independent of all others."""
        sequence = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())])
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
