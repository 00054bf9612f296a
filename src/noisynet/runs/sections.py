"""The sections of a run's configuration: frozen, each field documented and validated.

Field names are unique over the sections, so that the command line can take each by its bare name
(`--learning-rate`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from . import conflicts
from .changes import MAY_CHANGE, SPANS_THE_RUN, Spans
from .conditions import (
    ALWAYS,
    BESIDE_PLAY,
    OF_A3C,
    OF_ACTOR_CRITIC,
    OF_FRAGMENTS,
    OF_ONE_LEARNER,
    OF_OUR_NETWORK,
    OF_PQN,
    OF_Q_VALUES,
    OF_REPLAY,
    OF_ROLLOUTS,
    ON_ATARI,
    ON_ATARI_OR_MINATAR,
    ON_MINATAR,
    ON_VECTORS,
    OVERLAPPING,
    WITH_ACTORS,
    WITH_ADAM,
    WITH_ATOMS,
    WITH_DOUBLE,
    WITH_EPSILON,
    WITH_FALLING_STEP_SIZE,
    WITH_IMPALA,
    WITH_LAYER_NORM,
    WITH_MUNCHAUSEN,
    WITH_NOISE,
    WITH_NOISE_SCHEDULE,
    WITH_NOISE_TARGET,
    WITH_PRIORITIES,
    WITH_QUANTILES,
    WITH_REDO,
    WITH_RMSPROP,
    WITH_SHRINKING,
    WITH_SIGMA_PENALTY,
    WITHOUT_DISTRIBUTIONS,
    WITHOUT_MUNCHAUSEN,
)
from .seeds import SEEDS, stream
from .spelling import kind_as_ours


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "expected a number")
    return value


_Int = Annotated[int, BeforeValidator(_no_bool)]
_Float = Annotated[float, BeforeValidator(_no_bool)]
Fraction = Annotated[_Float, Field(ge=0, le=1, allow_inf_nan=False)]
PositiveFloat = Annotated[_Float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[_Float, Field(ge=0, allow_inf_nan=False)]
# Up to what a C int holds: further on, ale-py and torch answer with errors of their own.
PositiveInt = Annotated[_Int, Field(ge=1, le=2**31 - 1)]
Count = Annotated[_Int, Field(ge=0, le=2**31 - 1)]
Seed = Annotated[_Int, Field(ge=0, lt=SEEDS)]
FewThousand = Annotated[_Int, Field(ge=0, le=4096)]


class Section(BaseModel):
    """A part of the configuration: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_TORSOS = (
    "auto", "nature", "dqn2013", "data-efficient", "patches", "impala", "minatar", "mlp",
)  # fmt: skip
# What is the user's own: where it can be imported, or the name of an object of the program's.
_OWN = r"[\w.]+:\w+|<.+>"


class EnvironmentSection(Section):
    """What the agent plays, and every choice of preprocessing."""

    environment: Annotated[str, ALWAYS] = Field(
        max_length=500,
        description="environment id, such as ALE/Pong-v5, MinAtar/Breakout-v1, DeepSea-10 or "
        "CartPole-v1, or module:function for your own",
    )
    environments: Annotated[FewThousand, ALWAYS] = Field(
        default=8, ge=1, description="how many are stepped side by side"
    )
    frame_skip: Annotated[PositiveInt, ON_ATARI] = Field(
        default=4, description="Atari: frames that an action is repeated for"
    )
    max_pool: Annotated[bool, ON_ATARI] = Field(
        default=True, description="Atari: show the brighter of a step's last two frames"
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
        default=True, description="Atari: frames are grey, the only kind the networks take"
    )
    sticky_actions: Annotated[Fraction, ON_ATARI_OR_MINATAR] = Field(
        default=0.0,
        description="Atari, MinAtar: probability that a game repeats the former action",
    )
    max_noops: Annotated[FewThousand, ON_ATARI] = Field(
        default=30, description="Atari: no-op actions at a game's start, at most"
    )
    fire_on_reset: Annotated[bool, ON_ATARI] = Field(
        default=False, description="Atari: press FIRE at a game's start where the game has it"
    )
    life_loss: Annotated[bool, ON_ATARI] = Field(
        default=True, description="Atari: a lost life ends bootstrapping (the game goes on)"
    )
    full_action_space: Annotated[bool, ON_ATARI] = Field(
        default=False, description="Atari: all 18 actions in every game"
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


class NetworkSection(Section):
    """The network: its torso and its head."""

    torso: Annotated[str, OF_OUR_NETWORK] = Field(
        default="auto",
        max_length=500,
        pattern=rf"^({'|'.join(_TORSOS)}|{_OWN})$",
        examples=[*_TORSOS, "module:function"],
        description="nature: the CNN for stacked frames; dqn2013: the smaller one before it; "
        "data-efficient: the smallest; patches: as small, and sees the whole frame; impala: the "
        "residual one; minatar: for small images; mlp: for vectors; auto: by shape; "
        "module:function: your own, a torch module made by a function of an observation's shape",
    )
    own_network: Annotated[
        Annotated[str, Field(max_length=500, pattern=rf"^({_OWN})$")] | None,
        OF_Q_VALUES,
        conflicts.OWN_NETWORK,
    ] = Field(
        default=None,
        examples=["module:function"],
        description="a whole network of Q-values of your own, which is made noisy: a torch module "
        "made by a function of an observation's shape and the number of actions; none: torso and "
        "head",
    )
    torso_width: Annotated[_Float, Field(ge=0.0625, le=64, allow_inf_nan=False), WITH_IMPALA] = (
        Field(
            default=1.0,
            description="impala torso: factor of its 16, 32 and 32 filters (arXiv 2411.03820: 2)",
        )
    )
    torso_pooling: Annotated[FewThousand, WITH_IMPALA] = Field(
        default=6,
        description="impala torso: squares each way that adaptive max pooling leaves; 0: no such "
        "pooling",
    )
    spectral_norm: Annotated[bool, WITH_IMPALA, conflicts.SPECTRAL_NORM] = Field(
        default=False,
        description="impala torso: residual convolutions have spectral norm (arXiv 1802.05957)",
    )
    standardise_frames: Annotated[bool, OF_OUR_NETWORK] = Field(
        default=False,
        description="torsos of frames: show how a frame differs from the mean frame of random "
        "play, in its deviations",
    )
    layer_norm: Annotated[bool, OF_OUR_NETWORK] = Field(
        default=False,
        description="normalise what every layer but the last gives, before its ReLU, as PQN does",
    )
    layer_norm_in: Annotated[Literal["all", "head"], WITH_LAYER_NORM] = Field(
        default="all", description="layers normalised: the torso's and the head's; head: its alone"
    )
    torso_hidden: Annotated[tuple[PositiveInt, ...], OF_OUR_NETWORK, ON_VECTORS] = Field(
        default=(), description="mlp torso: sizes of its (plain) hidden layers"
    )
    head_hidden: Annotated[PositiveInt, OF_OUR_NETWORK] = Field(
        default=512, description="size of the head's hidden layer"
    )
    dueling: Annotated[
        bool, OF_Q_VALUES, OF_OUR_NETWORK, conflicts.needs_q_values("dueling", "network")
    ] = Field(default=False, description="a value and an advantage stream (arXiv 1511.06581)")
    atoms: Annotated[
        FewThousand, OF_REPLAY, conflicts.needs_replay("atoms", "network"), conflicts.ATOMS
    ] = Field(
        default=0,
        description="atoms of the value's distribution (arXiv 1707.06887: 51); 0: its mean alone",
    )
    value_min: Annotated[_Float, OF_REPLAY, WITH_ATOMS, conflicts.SUPPORT] = Field(
        default=-10.0, allow_inf_nan=False, description="value of the lowest atom"
    )
    value_max: Annotated[_Float, OF_REPLAY, WITH_ATOMS] = Field(
        default=10.0, allow_inf_nan=False, description="value of the highest atom"
    )
    quantiles: Annotated[
        FewThousand, OF_REPLAY, conflicts.needs_replay("quantiles", "network"), conflicts.QUANTILES
    ] = Field(
        default=0,
        description="IQN: quantiles that an update predicts, at random fractions (arXiv "
        "1806.06923; arXiv 2411.03820: 8); 0: no quantiles",
    )
    target_quantiles: Annotated[FewThousand, OF_REPLAY, WITH_QUANTILES] = Field(
        default=8, ge=1, description="IQN: quantiles of the target net in an update"
    )
    acting_quantiles: Annotated[FewThousand, OF_REPLAY, WITH_QUANTILES] = Field(
        default=8, ge=1, description="IQN: quantiles whose mean is the value that chooses an action"
    )
    cosines: Annotated[FewThousand, OF_REPLAY, WITH_QUANTILES] = Field(
        default=64, ge=1, description="IQN: cosines of a fraction that its embedding sees"
    )

    @property
    def is_torso_ours(self) -> bool:
        """Whether the torso is one of this package's."""
        return self.torso in _TORSOS


class ExplorationSection(Section):
    """How the agent explores: by learned noise, by ε-greedy, by both, or not at all."""

    exploration: Annotated[
        Literal["noise", "epsilon", "both", "none"], ALWAYS, conflicts.EXPLORATION
    ] = Field(
        default="noise", description="what explores: learned noise, ε-greedy, both, or neither"
    )
    noise_kind: Annotated[
        Literal["factorised", "independent"], BeforeValidator(kind_as_ours), WITH_NOISE
    ] = Field(default="factorised", description="kind of noise in the head's layers")
    sigma0: Annotated[_Float | None, WITH_NOISE] = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="initial σ; none: the paper's for the kind",
    )
    noise_in: Annotated[Literal["head", "last", "all"], WITH_NOISE] = Field(
        default="head",
        description="noisy layers: all of the head (IQN's embedding stays plain), those of the "
        "outputs, or the torso's too; of an own_network all linear ones, the last of these, or all "
        "kinds",
    )
    redraw: Annotated[
        Literal["step", "update", "episode"], WITH_NOISE, conflicts.REDRAW, MAY_CHANGE
    ] = Field(
        default="update",
        description="when the acting noise is drawn anew; of rollouts, update is after each",
    )
    draw_per_environment: Annotated[bool, WITH_NOISE] = Field(
        default=True, description="an acting draw for each environment; false: all share one"
    )
    learned_sigma: Annotated[bool, WITH_NOISE] = Field(
        default=True,
        description="σ is learned; false: it keeps its initial value, and the scale alone moves",
    )
    noise_scale: Annotated[NonNegativeFloat, WITH_NOISE] = Field(
        default=1.0, description="what σ ⊙ ε is multiplied by, at the start"
    )
    noise_schedule: Annotated[
        Literal["constant", "linear", "exponential", "cosine"],
        WITH_NOISE,
        conflicts.NOISE_SCHEDULE,
        Spans(
            lambda config: (
                config.exploration.noise_schedule != "constant"
                and config.exploration.noise_scale_steps is None
            )
        ),
    ] = Field(
        default="constant",
        description="how the scale goes from noise_scale to noise_scale_end: constant (it stays), "
        "linear, exponential (as QeRL, arXiv 2510.11696), cosine",
    )
    noise_scale_end: Annotated[NonNegativeFloat, WITH_NOISE, WITH_NOISE_SCHEDULE] = Field(
        default=0.1, description="the scale from noise_scale_steps on"
    )
    noise_scale_steps: Annotated[PositiveInt | None, WITH_NOISE, WITH_NOISE_SCHEDULE] = Field(
        default=None,
        description="agent step at which the scale is there; none: the run's last",
    )
    noise_target: Annotated[
        Annotated[_Float, Field(gt=0, lt=1, allow_inf_nan=False)] | None,
        WITH_NOISE,
        conflicts.NOISE_TARGET,
    ] = Field(
        default=None,
        description="effective ε to hold by moving the scale: the share of greedy actions that the "
        "noise changes; none: nothing is held",
    )
    noise_target_every: Annotated[PositiveInt, WITH_NOISE, WITH_NOISE_TARGET, MAY_CHANGE] = Field(
        default=64,
        description="agent steps between two measurements of it, over 64 observations; on images "
        "one takes as long as some updates",
    )
    sigma_penalty: Annotated[
        NonNegativeFloat,
        WITH_NOISE,
        OF_Q_VALUES,
        conflicts.needs_q_values("sigma_penalty", "exploration"),
        conflicts.SIGMA_PENALTY,
        MAY_CHANGE,
    ] = Field(
        default=0.0,
        description="weight of the outputs' mean |σ| in the loss once the mean return is "
        "penalty_high (arXiv 2006.10980); 0: none",
    )
    penalty_low: Annotated[_Float, WITH_NOISE, WITH_SIGMA_PENALTY, MAY_CHANGE] = Field(
        default=0.0,
        allow_inf_nan=False,
        description="mean return up to which that weight is 0",
    )
    penalty_high: Annotated[_Float | None, WITH_NOISE, WITH_SIGMA_PENALTY, MAY_CHANGE] = Field(
        default=None,
        allow_inf_nan=False,
        description="mean return from which on it is whole",
    )
    choice_draw: Annotated[
        bool, WITH_NOISE, OF_REPLAY, WITH_DOUBLE, WITHOUT_MUNCHAUSEN, MAY_CHANGE
    ] = Field(
        default=True,
        description="double: a draw of its own chooses the next action; false: the online net's",
    )
    epsilon_start: Annotated[Fraction, WITH_EPSILON, MAY_CHANGE] = Field(
        default=1.0, description="ε at the end of the warm-up"
    )
    epsilon_end: Annotated[Fraction, WITH_EPSILON, MAY_CHANGE] = Field(
        default=0.01, description="ε from epsilon_steps on"
    )
    epsilon_steps: Annotated[PositiveInt, WITH_EPSILON, MAY_CHANGE] = Field(
        default=100_000,
        description="steps over which ε falls linearly, counted from the warm-up's end",
    )
    epsilon_until: Annotated[PositiveInt | None, WITH_EPSILON, MAY_CHANGE] = Field(
        default=None, description="agent step from which ε is 0; none: never"
    )

    @property
    def has_noise(self) -> bool:
        """Whether the head's layers are noisy."""
        return self.exploration in ("noise", "both")

    @property
    def has_epsilon(self) -> bool:
        """Whether some actions are drawn uniformly."""
        return self.exploration in ("epsilon", "both")


class LearningSection(Section):
    """The update: which agent, target, loss, optimizer, replay, and how often."""

    algorithm: Annotated[Literal["q_learning", "pqn", "a2c", "a3c"], ALWAYS] = Field(
        default="q_learning",
        description="q_learning: values from a replay; pqn: values from rollouts; a2c, a3c: "
        "actor-critic from rollouts",
    )
    double: Annotated[bool, OF_REPLAY, WITHOUT_MUNCHAUSEN, MAY_CHANGE] = Field(
        default=True, description="the online net chooses, the target net values"
    )
    munchausen: Annotated[
        Fraction,
        OF_REPLAY,
        conflicts.needs_replay("munchausen", "learning"),
        conflicts.MUNCHAUSEN,
        conflicts.ENTROPY_TEMPERATURE,
        MAY_CHANGE,
    ] = Field(
        default=0.0,
        description="α of Munchausen targets (arXiv 2007.14430: 0.9), which add the log-policy to "
        "the reward and follow the softmax policy; 0: greedy targets",
    )
    entropy_temperature: Annotated[PositiveFloat | None, OF_REPLAY, WITH_MUNCHAUSEN, MAY_CHANGE] = (
        Field(
            default=None,
            description="τ of the softmax policy, in the unit of returns (arXiv 2007.14430: 0.03)",
        )
    )
    log_policy_least: Annotated[
        _Float, Field(le=0, allow_inf_nan=False), OF_REPLAY, WITH_MUNCHAUSEN, MAY_CHANGE
    ] = Field(default=-1.0, description="the log-policy, times τ, counts as no less than this")
    n_step: Annotated[PositiveInt, OF_REPLAY, MAY_CHANGE] = Field(
        default=1, description="rewards summed before bootstrapping"
    )
    discount: Annotated[Fraction, ALWAYS, MAY_CHANGE] = Field(
        default=0.99, description="γ, per step"
    )
    reward_clip: Annotated[PositiveFloat | None, ALWAYS] = Field(
        default=None, description="rewards are cut to ±this for learning; none: as they are"
    )
    batch_size: Annotated[PositiveInt, OF_REPLAY, MAY_CHANGE] = Field(
        default=32, description="transitions in an update"
    )
    optimizer: Annotated[Literal["adam", "radam", "rmsprop"], ALWAYS] = Field(
        default="adam", description="adam, radam (arXiv 1908.03265), rmsprop"
    )
    learning_rate: Annotated[PositiveFloat, ALWAYS, MAY_CHANGE] = Field(
        default=1e-4, description="the optimizer's step size"
    )
    final_learning_rate: Annotated[
        _Float | None,
        ALWAYS,
        MAY_CHANGE,
        Spans(lambda config: config.learning.learning_rate_steps is None),
    ] = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="step size at the last step, where it falls linearly; none: constant",
    )
    learning_rate_steps: Annotated[PositiveInt | None, WITH_FALLING_STEP_SIZE, MAY_CHANGE] = Field(
        default=None,
        description="agent step at which it has fallen that far; none: the run's last",
    )
    adam_epsilon: Annotated[PositiveFloat, WITH_ADAM, MAY_CHANGE] = Field(
        default=1e-8, description="Adam's and RAdam's ε"
    )
    rmsprop_decay: Annotated[Fraction, WITH_RMSPROP, MAY_CHANGE] = Field(
        default=0.95, description="RMSProp's decay of the mean square (Mnih et al. 2015)"
    )
    rmsprop_epsilon: Annotated[PositiveFloat, WITH_RMSPROP, MAY_CHANGE] = Field(
        default=0.01, description="RMSProp's ε (Mnih et al. 2015), beside the root"
    )
    rmsprop_centred: Annotated[bool, WITH_RMSPROP] = Field(
        default=True, description="RMSProp divides by the deviation, not by the mean square"
    )
    loss: Annotated[Literal["huber", "squared"], OF_Q_VALUES, WITHOUT_DISTRIBUTIONS, MAY_CHANGE] = (
        Field(default="huber", description="of the TD error")
    )
    max_gradient_norm: Annotated[PositiveFloat | None, ALWAYS, MAY_CHANGE] = Field(
        default=10.0, description="larger gradients are scaled down; none: no gradient is"
    )
    warmup_steps: Annotated[Count, OF_REPLAY, conflicts.WARMUP] = Field(
        default=10_000, description="uniformly random steps before learning starts"
    )
    update_every: Annotated[PositiveInt, OF_REPLAY] = Field(
        default=4, description="steps between updates"
    )
    target_every: Annotated[PositiveInt, OF_REPLAY] = Field(
        default=2_000, description="steps between copies of the online net into the target net"
    )
    replay_capacity: Annotated[PositiveInt, OF_REPLAY, conflicts.REPLAY] = Field(
        default=100_000, description="transitions the replay holds"
    )
    replay_device: Annotated[
        Literal["auto", "host", "device"],
        BESIDE_PLAY,
        conflicts.REPLAY_DEVICE,
        MAY_CHANGE,
    ] = Field(
        default="auto",
        description="where samples are put together: host; device: a copy of the frames stays in "
        "its memory; auto: host",
    )
    prioritised: Annotated[
        bool, OF_Q_VALUES, conflicts.needs_q_values("prioritised", "learning")
    ] = Field(
        default=False,
        description="sample by error (arXiv 1511.05952) and not uniformly, from a replay or for "
        "pqn's minibatches",
    )
    priority_exponent: Annotated[Fraction, OF_Q_VALUES, WITH_PRIORITIES] = Field(
        default=0.5, description="α: 0 samples uniformly, 1 in proportion to the error"
    )
    priority_beta: Annotated[Fraction, OF_REPLAY, WITH_PRIORITIES, MAY_CHANGE, SPANS_THE_RUN] = (
        Field(
            default=0.4, description="β of the importance weights at the start; 1 at the last step"
        )
    )
    priority_epsilon: Annotated[PositiveFloat, OF_Q_VALUES, WITH_PRIORITIES] = Field(
        default=1e-6, description="what is added to an error, so that none is forgotten"
    )

    @property
    def is_actor_critic(self) -> bool:
        """Whether the agent is an actor-critic; the others learn Q-values."""
        return self.algorithm in ("a2c", "a3c")

    @property
    def has_replay(self) -> bool:
        """Whether the agent learns from a replay; the others learn from rollouts."""
        return self.algorithm == "q_learning"


class RolloutsSection(Section):
    """Rollouts, and how pqn learns from them (arXiv 2407.04811)."""

    rollout_steps: Annotated[PositiveInt, OF_ROLLOUTS, MAY_CHANGE] = Field(
        default=5, description="steps of each environment in a rollout (arXiv 1602.01783: 5)"
    )
    return_lambda: Annotated[Fraction, OF_PQN, MAY_CHANGE] = Field(
        default=0.65,
        description="λ of the returns; 0: bootstrap after a step, 1: at the rollout's end",
    )
    epochs: Annotated[PositiveInt, OF_PQN, MAY_CHANGE] = Field(
        default=2, description="how often a rollout is learned"
    )
    minibatches: Annotated[PositiveInt, OF_PQN, conflicts.MINIBATCHES, MAY_CHANGE] = Field(
        default=32, description="updates in an epoch, each from as many of the rollout's steps"
    )
    learning_draw: Annotated[
        Literal["fresh", "rows", "acted"], OF_PQN, WITH_NOISE, conflicts.LEARNING_DRAW, MAY_CHANGE
    ] = Field(
        default="fresh",
        description="noise that an update learns under: a draw of its own, one of its own for each "
        "step of the minibatch, or of each step the one that acted",
    )
    target_draw: Annotated[Literal["acted", "fresh", "means"], OF_PQN, WITH_NOISE, MAY_CHANGE] = (
        Field(
            default="acted",
            description="noise that makes the targets: the draw that acted, one of their own, or "
            "none",
        )
    )


class ActorCriticSection(Section):
    """The actor-critic's own: advantages, losses, workers."""

    gae_lambda: Annotated[Fraction, OF_ACTOR_CRITIC, MAY_CHANGE] = Field(
        default=1.0, description="λ of the advantages (arXiv 1506.02438); 1: n-step returns"
    )
    value_coefficient: Annotated[PositiveFloat, OF_ACTOR_CRITIC, MAY_CHANGE] = Field(
        default=0.5, description="weight of the value's loss beside the policy's"
    )
    entropy_bonus: Annotated[
        _Float, Field(ge=0, allow_inf_nan=False), OF_ACTOR_CRITIC, conflicts.ENTROPY, MAY_CHANGE
    ] = Field(default=0.0, description="weight of the policy's entropy; 0: no bonus")
    lstm_size: Annotated[FewThousand, OF_ACTOR_CRITIC, conflicts.LSTM] = Field(
        default=0, description="units of an LSTM before policy and value; 0: none"
    )
    workers: Annotated[FewThousand, OF_ACTOR_CRITIC, OF_A3C, MAY_CHANGE] = Field(
        default=2, ge=1, description="a3c: processes, each with all of `environments` for itself"
    )


class PlasticitySection(Section):
    """What keeps the network able to learn; intervals are updates, and 0 is never."""

    redo_every: Annotated[
        Count,
        OF_ONE_LEARNER,
        conflicts.needs_one_learner("redo_every"),
        conflicts.REDO,
        MAY_CHANGE,
    ] = Field(
        default=0,
        description="updates between searches for dormant units, which are drawn anew (ReDo, arXiv "
        "2302.12902: 1,000); 0: none",
    )
    dormant_threshold: Annotated[_Float, OF_ONE_LEARNER, WITH_REDO, MAY_CHANGE] = Field(
        default=0.025,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="activity up to which a unit is dormant, as a share of its layer's mean",
    )
    shrink_every: Annotated[
        Count,
        OF_ONE_LEARNER,
        conflicts.needs_one_learner("shrink_every"),
        conflicts.SHRINK,
        MAY_CHANGE,
    ] = Field(
        default=0,
        description="updates between moves of all weights towards new initial ones (shrink and "
        "perturb, arXiv 1910.08475); 0: none",
    )
    shrink_factor: Annotated[_Float, OF_ONE_LEARNER, WITH_SHRINKING, MAY_CHANGE] = Field(
        default=0.5,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="share of a weight that stays (BBF, arXiv 2305.19452: 0.5)",
    )
    reset_every: Annotated[
        Count, OF_ONE_LEARNER, conflicts.needs_one_learner("reset_every"), MAY_CHANGE
    ] = Field(
        default=0,
        description="updates between resets of all behind the torso (BBF: 40,000); 0: none",
    )


class ScaleSection(Section):
    """Sampler actors: more environments than one process steps."""

    actors: Annotated[Annotated[FewThousand, Field(ge=1)] | None, ALWAYS, conflicts.ACTORS] = Field(
        default=None,
        description="sampler actors, each with all of `environments` for itself; none: the "
        "run plays in its own process",
    )
    backend: Annotated[Literal["ray", "in-process"], WITH_ACTORS, MAY_CHANGE] = Field(
        default="ray", description="where actors live: ray; in-process: one after the other"
    )
    replay_shards: Annotated[FewThousand, WITH_ACTORS, OF_FRAGMENTS, conflicts.SHARDS] = Field(
        default=0,
        description="replays in actors of their own, each fed by a share of the samplers; 0: the "
        "learner's process holds the one replay",
    )
    fragment_steps: Annotated[PositiveInt, WITH_ACTORS, OF_FRAGMENTS] = Field(
        default=16, description="steps of each environment that a sampler sends at a time"
    )
    weights_every: Annotated[PositiveInt, WITH_ACTORS, OF_FRAGMENTS, MAY_CHANGE] = Field(
        default=16, description="updates between weights that are sent to samplers, at least"
    )
    max_staleness: Annotated[Count | None, WITH_ACTORS, MAY_CHANGE] = Field(
        default=None,
        description="updates that the weights behind a fragment may be old when it arrives; "
        "a2c, pqn: rollouts played ahead (none: 0); q_learning, none: what two fragments of "
        "every sampler take",
    )


class TrainingSection(Section):
    """How long, with which seed, on what, and what is kept."""

    steps: Annotated[PositiveInt, ALWAYS, MAY_CHANGE] = Field(
        default=1_000_000, description="agent steps after which training ends"
    )
    seed: Annotated[Seed, ALWAYS] = Field(
        default=0, description="seed of everything that is random"
    )
    solved_return: Annotated[_Float | None, ALWAYS, MAY_CHANGE] = Field(
        default=None,
        allow_inf_nan=False,
        description="training ends when the last solved_games games reach this mean",
    )
    solved_games: Annotated[PositiveInt, ALWAYS, MAY_CHANGE] = Field(
        default=100, description="games that solved_return is a mean of"
    )
    device: Annotated[str, ALWAYS, conflicts.DEVICE, MAY_CHANGE] = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        examples=["auto", "cpu", "cuda", "cuda:1"],
        description="where the networks are; cuda: a GPU; auto: a GPU where there is one",
    )
    precision: Annotated[Literal["auto", "float32", "bfloat16"], ALWAYS, MAY_CHANGE] = Field(
        default="auto", description="of the products; auto: the faster one, measured at the start"
    )
    threads: Annotated[FewThousand, ALWAYS, MAY_CHANGE] = Field(
        default=0, description="CPU threads of torch and environments; 0: all cores"
    )
    execution: Annotated[
        Literal["auto", "plain", "graph"],
        OVERLAPPING,
        conflicts.EXECUTION,
        MAY_CHANGE,
    ] = Field(
        default="auto",
        description="of updates: plain, each step of it launched by itself; graph: from buffers "
        "that stay in place, a GPU runs the whole as one CUDA graph; auto: graph on a GPU where it "
        "can be captured, else plain",
    )
    overlap: Annotated[
        bool,
        OVERLAPPING,
        MAY_CHANGE,
    ] = Field(
        default=False,
        description="environments step on a thread while updates are done: an action then comes "
        "from the network before the updates that its vector step made due; pqn learns a rollout "
        "while the next is played",
    )
    log_every: Annotated[PositiveInt, ALWAYS, MAY_CHANGE] = Field(
        default=100, description="updates between lines of figures"
    )
    checkpoint_every: Annotated[PositiveInt, ALWAYS, MAY_CHANGE] = Field(
        default=10_000, description="steps between checkpoints"
    )

    def solved_by(self, games: int, mean_return: float | None) -> bool:
        """Return whether a run is solved after so many games, by the mean of the last ones."""
        goal, enough = self.solved_return, games >= self.solved_games
        return goal is not None and mean_return is not None and enough and mean_return >= goal

    def stream(self, name: str) -> int:
        """Return the seed of one named source of randomness, independent of all others."""
        return stream(self.seed, name)
