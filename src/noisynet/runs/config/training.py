"""Steps, seed, device and logs of training: the section `training` of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..seeds import stream
from .agreement import Fits
from .changes import MAY_CHANGE
from .conditions import ALWAYS, Acts, Sections
from .section import FewThousand, PositiveInt, Real, Section, Seed

OVERLAPPING = Acts(
    lambda config: config.can_overlap,
    lambda config: config.why_not_overlap,
)


def _device(config: Sections) -> str | None:
    device = config.training.device
    if config.learning.algorithm != "a3c" or device in ("auto", "cpu"):
        return None
    return f"device: got {device}, expected cpu: a3c's processes share the CPU's memory"


def _execution(config: Sections) -> str | None:
    if config.can_overlap or config.training.execution != "graph":
        return None
    return f"--execution: got graph, expected auto: {config.why_not_overlap}"


class TrainingSection(Section):
    """Training as a whole: steps, goal, seed, device, logs and checkpoints."""

    steps: Annotated[PositiveInt, ALWAYS, MAY_CHANGE] = Field(
        default=1_000_000, description="agent steps after which training ends"
    )
    seed: Annotated[Seed, ALWAYS] = Field(default=0, description="seed of all randomness")
    solved_return: Annotated[Real | None, ALWAYS, MAY_CHANGE] = Field(
        default=None,
        allow_inf_nan=False,
        description="training ends when the mean return of the last solved_games games reaches "
        "this; none: no goal",
    )
    solved_games: Annotated[PositiveInt, ALWAYS, MAY_CHANGE] = Field(
        default=100, description="number of games in the mean for solved_return"
    )
    device: Annotated[str, ALWAYS, Fits(_device), MAY_CHANGE] = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        examples=["auto", "cpu", "cuda", "cuda:1"],
        description="device of the networks; cuda: a GPU; auto: a GPU if there is one",
    )
    precision: Annotated[Literal["auto", "float32", "bfloat16"], ALWAYS, MAY_CHANGE] = Field(
        default="auto",
        description="precision of matrix products; auto: the faster one, measured at the start",
    )
    threads: Annotated[FewThousand, ALWAYS, MAY_CHANGE] = Field(
        default=0, description="CPU threads of torch and environments; 0: all cores"
    )
    execution: Annotated[
        Literal["auto", "plain", "graph"],
        OVERLAPPING,
        Fits(_execution),
        MAY_CHANGE,
    ] = Field(
        default="auto",
        description="how updates run; plain: operation by operation; graph: over fixed buffers, "
        "on a GPU as one CUDA graph; auto: graph on a GPU if it can be captured, else plain",
    )
    overlap: Annotated[
        bool,
        OVERLAPPING,
        MAY_CHANGE,
    ] = Field(
        default=False,
        description="step environments on a thread while updates run, so that an action is chosen "
        "without the updates of one vector step; pqn learns a rollout while the next is played",
    )
    log_every: Annotated[PositiveInt, ALWAYS, MAY_CHANGE] = Field(
        default=100, description="updates between records of metrics"
    )
    checkpoint_every: Annotated[PositiveInt, ALWAYS, MAY_CHANGE] = Field(
        default=10_000, description="steps between checkpoints"
    )

    def solved_by(self, games: int, mean_return: float | None) -> bool:
        """Return whether a run is solved after `games` games, by the mean return of the last."""
        goal, enough = self.solved_return, games >= self.solved_games
        return goal is not None and mean_return is not None and enough and mean_return >= goal

    def stream(self, name: str) -> int:
        """Return the seed of one named source of randomness, independent of all others."""
        return stream(self.seed, name)
