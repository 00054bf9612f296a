"""From an id to environments."""

from noisynet.envs.atari import AtariEnvironments, AtariPreprocessing, atari_ids
from noisynet.envs.control import ControlEnvironments, registered_ids
from noisynet.envs.environments import Environments, UnusableEnvironment, unknown_id


def make(
    environment_id: str,
    count: int,
    *,
    seed: int,
    threads: int = 1,
    atari: AtariPreprocessing | None = None,
) -> Environments:
    """Make `count` environments of an id: `ALE/<Game>-v5`, or any with vector observations.

    Environment i is seeded with `seed + i`. `threads` is how many threads step Atari games; the
    trajectory does not depend on it, and other environments use one. `atari` is how Atari games
    are shown, by default `AtariPreprocessing()`.

    Raises UnusableEnvironment for an unknown id, for spaces that no agent here takes, for a
    package that is missing, and for `atari` given to anything else.
    """
    if environment_id.startswith("ALE/"):
        return AtariEnvironments(
            environment_id, count, seed=seed, threads=threads, preprocessing=atari
        )
    known = registered_ids()
    if environment_id not in known:
        raise unknown_id(environment_id, [*known, *_games_if_installed()])
    if atari is not None:
        raise UnusableEnvironment(
            f"{environment_id}: atari: got {atari}, expected None for what is no Atari game"
        )
    return ControlEnvironments(environment_id, count, seed=seed)


def _games_if_installed() -> list[str]:
    try:
        return atari_ids()
    except UnusableEnvironment:  # without ale-py there are no games to suggest
        return []
