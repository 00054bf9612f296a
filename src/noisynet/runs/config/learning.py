"""The algorithm and its updates: the section `learning` of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .agreement import Fits, needs_q_values, needs_replay
from .changes import MAY_CHANGE, SPANS_THE_RUN, Spans
from .conditions import ALWAYS, OF_Q_VALUES, OF_REPLAY, WITHOUT_MUNCHAUSEN, Acts, Sections
from .section import Count, Fraction, PositiveFloat, PositiveInt, Real, Section

BESIDE_PLAY = Acts(
    lambda config: config.learns_beside_play,
    lambda config: config.why_not_beside_play,
)
WITHOUT_DISTRIBUTIONS = Acts(
    lambda config: not (config.network.atoms or config.network.quantiles),
    lambda _: "values are distributions, which have a loss of their own",
)
WITH_MUNCHAUSEN = Acts(
    lambda config: config.learning.munchausen > 0,
    lambda _: "munchausen is 0, targets are greedy",
)
WITH_PRIORITIES = Acts(lambda config: config.learning.prioritised, lambda _: "prioritised is false")
WITH_FALLING_STEP_SIZE = Acts(
    lambda config: config.learning.final_learning_rate is not None,
    lambda _: "final_learning_rate is empty, the step size is constant",
)
WITH_ADAM = Acts(
    lambda config: config.learning.optimizer in ("adam", "radam"),
    lambda config: f"optimizer is {config.learning.optimizer}",
)
WITH_RMSPROP = Acts(
    lambda config: config.learning.optimizer == "rmsprop",
    lambda config: f"optimizer is {config.learning.optimizer}",
)


def _munchausen(config: Sections) -> str | None:
    weight, atoms = config.learning.munchausen, config.network.atoms
    if not weight or not atoms:
        return None
    return (
        f"munchausen: got {weight:g}, expected 0 with atoms {atoms}: its targets are for Q-values "
        "and quantiles"
    )


def _entropy_temperature(config: Sections) -> str | None:
    learning = config.learning
    if not learning.munchausen or learning.entropy_temperature is not None:
        return None
    return (
        "entropy_temperature: got nothing, expected a number above 0 with munchausen "
        f"{learning.munchausen:g} (its paper's, for rewards of ±1: 0.03): targets follow the "
        "softmax of the values over it"
    )


def _warmup(config: Sections) -> str | None:
    learning = config.learning
    if not learning.has_replay or learning.warmup_steps >= learning.batch_size:
        return None
    return (
        f"warmup_steps: got {learning.warmup_steps}, expected at least batch_size "
        f"({learning.batch_size}): the first update needs a batch"
    )


def _replay(config: Sections) -> str | None:
    learning = config.learning
    if not learning.has_replay or learning.replay_capacity >= learning.batch_size:
        return None
    return (
        f"replay_capacity: got {learning.replay_capacity}, expected at least batch_size "
        f"({learning.batch_size})"
    )


def _replay_device(config: Sections) -> str | None:
    if config.learns_beside_play or config.learning.replay_device != "device":
        return None
    return f"--replay-device: got device, expected auto: {config.why_not_beside_play}"


class LearningSection(Section):
    """The update: which agent, target, loss, optimizer, replay, and how often."""

    algorithm: Annotated[Literal["q_learning", "pqn", "a2c", "a3c"], ALWAYS] = Field(
        default="q_learning",
        description="q_learning: Q-values from a replay; pqn: Q-values from rollouts; a2c, a3c: "
        "actor-critic from rollouts",
    )
    double: Annotated[bool, OF_REPLAY, WITHOUT_MUNCHAUSEN, MAY_CHANGE] = Field(
        default=True,
        description="double Q-learning: the online network chooses the next action, "
        "the target network values it",
    )
    munchausen: Annotated[
        Fraction,
        OF_REPLAY,
        needs_replay("munchausen", "learning"),
        Fits(_munchausen),
        Fits(_entropy_temperature),
        MAY_CHANGE,
    ] = Field(
        default=0.0,
        description="α of Munchausen targets (arXiv 2007.14430: 0.9), which add the log-policy to "
        "the reward and follow the softmax policy; 0: greedy targets",
    )
    entropy_temperature: Annotated[PositiveFloat | None, OF_REPLAY, WITH_MUNCHAUSEN, MAY_CHANGE] = (
        Field(
            default=None,
            description="τ of Munchausen's softmax policy, in the unit of returns (arXiv "
            "2007.14430: 0.03)",
        )
    )
    log_policy_least: Annotated[
        Real, Field(le=0, allow_inf_nan=False), OF_REPLAY, WITH_MUNCHAUSEN, MAY_CHANGE
    ] = Field(default=-1.0, description="lower bound of τ times the log-policy")
    n_step: Annotated[PositiveInt, OF_REPLAY, MAY_CHANGE] = Field(
        default=1, description="number of rewards summed before bootstrapping"
    )
    discount: Annotated[Fraction, ALWAYS, MAY_CHANGE] = Field(
        default=0.99, description="γ, the discount per step"
    )
    reward_clip: Annotated[PositiveFloat | None, ALWAYS] = Field(
        default=None, description="clip rewards to ± this for learning; none: no clipping"
    )
    batch_size: Annotated[PositiveInt, OF_REPLAY, MAY_CHANGE] = Field(
        default=32, description="transitions in an update"
    )
    optimizer: Annotated[Literal["adam", "radam", "rmsprop"], ALWAYS] = Field(
        default="adam", description="the optimizer; radam: arXiv 1908.03265"
    )
    learning_rate: Annotated[PositiveFloat, ALWAYS, MAY_CHANGE] = Field(
        default=1e-4, description="the optimizer's step size"
    )
    final_learning_rate: Annotated[
        Real | None,
        ALWAYS,
        MAY_CHANGE,
        Spans(lambda config: config.learning.learning_rate_steps is None),
    ] = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="step size to which the learning rate falls linearly; none: it is constant",
    )
    learning_rate_steps: Annotated[PositiveInt | None, WITH_FALLING_STEP_SIZE, MAY_CHANGE] = Field(
        default=None,
        description="agent step at which final_learning_rate is reached; none: the run's last",
    )
    adam_epsilon: Annotated[PositiveFloat, WITH_ADAM, MAY_CHANGE] = Field(
        default=1e-8, description="ε of Adam and RAdam"
    )
    rmsprop_decay: Annotated[Fraction, WITH_RMSPROP, MAY_CHANGE] = Field(
        default=0.95, description="decay of RMSProp's mean square (Mnih et al. 2015)"
    )
    rmsprop_epsilon: Annotated[PositiveFloat, WITH_RMSPROP, MAY_CHANGE] = Field(
        default=0.01, description="ε of RMSProp, added to the root of the mean square"
    )
    rmsprop_centred: Annotated[bool, WITH_RMSPROP] = Field(
        default=True,
        description="RMSProp divides by the gradient's standard deviation, not by "
        "the root of its mean square",
    )
    loss: Annotated[Literal["huber", "squared"], OF_Q_VALUES, WITHOUT_DISTRIBUTIONS, MAY_CHANGE] = (
        Field(default="huber", description="loss of the TD error")
    )
    max_gradient_norm: Annotated[PositiveFloat | None, ALWAYS, MAY_CHANGE] = Field(
        default=10.0,
        description="norm to which larger gradients are scaled down; none: no clipping",
    )
    warmup_steps: Annotated[Count, OF_REPLAY, Fits(_warmup)] = Field(
        default=10_000, description="uniformly random steps before learning starts"
    )
    update_every: Annotated[PositiveInt, OF_REPLAY] = Field(
        default=4, description="steps between updates"
    )
    target_every: Annotated[PositiveInt, OF_REPLAY] = Field(
        default=2_000,
        description="steps between copies of the online network into the target network",
    )
    replay_capacity: Annotated[PositiveInt, OF_REPLAY, Fits(_replay)] = Field(
        default=100_000, description="transitions that the replay holds"
    )
    replay_device: Annotated[
        Literal["auto", "host", "device"],
        BESIDE_PLAY,
        Fits(_replay_device),
        MAY_CHANGE,
    ] = Field(
        default="auto",
        description="where batches are assembled; host: in main memory; device: from a copy of "
        "the frames in the GPU's memory; auto: host",
    )
    prioritised: Annotated[bool, OF_Q_VALUES, needs_q_values("prioritised", "learning")] = Field(
        default=False,
        description="sample by error (arXiv 1511.05952) instead of uniformly, from a replay or "
        "for the minibatches of pqn",
    )
    priority_exponent: Annotated[Fraction, OF_Q_VALUES, WITH_PRIORITIES] = Field(
        default=0.5, description="α: 0 samples uniformly, 1 in proportion to the error"
    )
    priority_beta: Annotated[Fraction, OF_REPLAY, WITH_PRIORITIES, MAY_CHANGE, SPANS_THE_RUN] = (
        Field(
            default=0.4,
            description="β of the importance weights at the start; it rises to 1 at the last step",
        )
    )
    priority_epsilon: Annotated[PositiveFloat, OF_Q_VALUES, WITH_PRIORITIES] = Field(
        default=1e-6, description="constant added to an error, so that no transition is forgotten"
    )

    @property
    def is_actor_critic(self) -> bool:
        """Whether the agent is an actor-critic; the others learn Q-values."""
        return self.algorithm in ("a2c", "a3c")

    @property
    def has_replay(self) -> bool:
        """Whether the agent learns from a replay; the others learn from rollouts."""
        return self.algorithm == "q_learning"
