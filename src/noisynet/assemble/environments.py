"""The environments that a run's config describes."""

from __future__ import annotations

from ..envs import (
    AtariPreprocessing,
    Environments,
    MinAtarRules,
    UnusableEnvironment,
    make,
    make_own,
)
from ..runs.config import Config
from . import own_objects


def side_by_side(config: Config, wanted: int) -> int:
    """Return how many environments of a run can be stepped side by side, at most `wanted`."""
    return 1 if own_objects.is_environment(config.environment.environment) else wanted


def make_environments(
    config: Config, *, count: int | None = None, seed: int | None = None
) -> Environments:
    """Build the environments, seeded; `count` and `seed` are the config's unless given.

    Raises UnusableEnvironment as `noisynet.envs.make` does, and for an environment that another
    process gave as an object.
    """
    section = config.environment
    count = section.environments if count is None else count
    seed = config.training.seed if seed is None else seed
    if (own := own_objects.found(section.environment)) is not None:
        build = make_own if callable(own) else own_objects.environments_of
        return build(section.environment, own, count, seed=seed)
    if own_objects.is_object(section.environment):
        raise UnusableEnvironment(own_objects.missing("environment", section.environment))
    atari = None
    if section.is_atari:
        atari = AtariPreprocessing(
            frame_skip=section.frame_skip,
            max_pool=section.max_pool,
            stack=section.frame_stack,
            height=section.frame_height,
            width=section.frame_width,
            grayscale=section.grayscale,
            sticky_actions=section.sticky_actions,
            max_noops=section.max_noops,
            fire_on_reset=section.fire_on_reset,
            life_loss=section.life_loss,
            full_action_space=section.full_action_space,
            max_frames=section.max_frames,
        )
    minatar = None
    if section.is_minatar:
        minatar = MinAtarRules(
            sticky_actions=section.sticky_actions,
            difficulty_ramping=section.difficulty_ramping,
            max_frames=section.max_frames,
        )
    return make(
        section.environment,
        count,
        seed=seed,
        threads=max(config.training.threads, 1),
        atari=atari,
        minatar=minatar,
    )
