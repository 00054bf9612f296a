"""From an id to environments."""

from noisynet.envs.atari import AtariEnvironments, AtariPreprocessing, atari_ids
from noisynet.envs.custom import make_custom
from noisynet.envs.environments import Environments, UnusableEnvironment, unknown_id
from noisynet.envs.generic import make_registered, registered_ids
from noisynet.envs.minatar import GAMES, MinAtarEnvironments, MinAtarRules
from noisynet.envs.toy import TOYS, make_toy, toy_of


def make(
    environment_id: str,
    count: int,
    *,
    seed: int,
    threads: int = 1,
    atari: AtariPreprocessing | None = None,
    minatar: MinAtarRules | None = None,
) -> Environments:
    """Make `count` environments of an id.

    - `ALE/<Game>-v5`: an Atari game, shown as `atari` says, by default `AtariPreprocessing()`.
    - `MinAtar/<Game>-v1`: played as `minatar` says, by default `MinAtarRules()`.
    - `Chain-<N>`, `DeepSea-<N>`: the toy of that size.
    - `module:function`: the user's own, see `make_custom`.
    - Any other id that is registered with Gymnasium: with discrete actions, and vectors or images
      as observations.

    Environment i is seeded with `seed + i`. `threads` is how many threads step Atari games; the
    trajectory does not depend on it, and other environments use one.

    Raises UnusableEnvironment for an unknown id, for spaces that no agent here takes, for a
    package that is missing, and for `atari` or `minatar` given to anything else.
    """
    is_atari, is_minatar = (environment_id.startswith(name) for name in ("ALE/", "MinAtar/"))
    if is_atari and minatar is None:
        return AtariEnvironments(
            environment_id, count, seed=seed, threads=threads, preprocessing=atari
        )
    if is_minatar and atari is None:
        return MinAtarEnvironments(environment_id, count, seed=seed, rules=minatar)
    for option, kind, value in (("atari", "Atari", atari), ("minatar", "MinAtar", minatar)):
        if value is not None:
            raise UnusableEnvironment(
                f"{environment_id}: {option}: got {value}, expected None for what is no {kind} game"
            )
    if ":" in environment_id:
        return make_custom(environment_id, count, seed=seed)
    if toy_of(environment_id) is not None:
        return make_toy(environment_id, count, seed=seed)
    known = registered_ids()
    if environment_id in known:
        return make_registered(environment_id, environment_id, count, seed=seed)
    toys = [f"{toy.name}-10" for toy in TOYS]
    raise unknown_id(environment_id, [*known, *_games_if_installed(), *GAMES, *toys])


def _games_if_installed() -> list[str]:
    try:
        return atari_ids()
    except UnusableEnvironment:  # without ale-py there are no games to suggest
        return []
