"""Environments made from an id, or by a user's own function."""

import importlib
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .arguments import check_count_and_seed, nearest_names, unknown_id
from .atari import AtariEnvironments, AtariPreprocessing, atari_ids
from .generic import (
    GymnasiumEnvironments,
    imported_gymnasium,
    make_registered,
    registered_ids,
)
from .guarded import GuardedEnvironments
from .minatar import GAMES, MinAtarEnvironments, MinAtarRules
from .raised import raised
from .sync import SyncEnvironments, close_all
from .toy import TOYS, make_toy, toy_of
from .vector import Environments, UnusableEnvironment


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
    - `module:function`: the user's own. The module is looked for in the current folder too. The
      function is called without arguments, once for each environment, and returns a new
      gymnasium.Env. One that has parameters `count` and `seed` is called once, with both, and
      returns `Environments`. `module:Name-v0` is an id that the module registers with Gymnasium.
    - Any other id that is registered with Gymnasium: with discrete actions, and observations that
      are vectors, images, or numbers that Gymnasium flattens to a vector.

    Environment i is seeded with `seed + i`. `threads` is how many threads step Atari games; the
    trajectory does not depend on it, and other environments use one.

    Raises UnusableEnvironment for an unknown id, for spaces that no agent here accepts, for a
    package that is missing, for `atari` or `minatar` given for anything else, and if the user's
    module or function fails or returns something that does not fit.
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
        return _make_by_place(environment_id, count, seed=seed)
    if toy_of(environment_id) is not None:
        return make_toy(environment_id, count, seed=seed)
    known = registered_ids()
    if environment_id in known:
        return make_registered(environment_id, environment_id, count, seed=seed)
    toys = [f"{toy.name}-10" for toy in TOYS]
    unknown = unknown_id(environment_id, [*known, *_games_if_installed(), *GAMES, *toys])
    raise UnusableEnvironment(
        f"{unknown}; your own is module:function, or module:{environment_id} where its module "
        "registers it"
    )


def _games_if_installed() -> list[str]:
    try:
        return atari_ids()
    except UnusableEnvironment:  # without ale-py there are no games to suggest
        return []


def _make_by_place(place: str, count: int, *, seed: int) -> Environments:
    """Make environments from `module:function` or `module:Name-v0`; see `make`."""
    count, seed = check_count_and_seed(count, seed)
    module, name = _named(place)
    if not hasattr(module, name) and name in imported_gymnasium().registry:
        return make_registered(place, name, count, seed=seed)
    return make_own(place, _function(place, module, name), count, seed=seed)


def make_own(place: str, function: Callable[..., Any], count: int, *, seed: int) -> Environments:
    """Make environments with a user's function; errors call it `place`. See `make`."""
    count, seed = check_count_and_seed(count, seed)
    if {"count", "seed"} <= _parameters(function):
        return _vector(place, function, count, seed)
    return GymnasiumEnvironments(place, _singles(place, function, count), seed=seed)


def imported_function(place: str) -> Callable[..., Any]:
    """Return the user's own function or class that `module:function` names.

    Raises UnusableEnvironment if there is none, or if its module cannot be imported.
    """
    return _function(place, *_named(place))


def being_imported() -> str | None:
    """Return the `module:function` whose module is being imported now; None if none is."""
    return getattr(_importing, "place", None)


_importing = threading.local()
"""`place` while this thread imports one; other threads may call `train` meanwhile."""


def _named(place: str) -> tuple[ModuleType, str]:
    module_name, _, name = place.partition(":")
    if not name or not all(part.isidentifier() for part in module_name.split(".")):
        raise UnusableEnvironment(f"environment: got {place!r}, expected module:function")
    return _imported(place, module_name), name


def _function(place: str, module: ModuleType, name: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if not callable(function):
        raise UnusableEnvironment(f"{place}: {_why_not(module, name)}")
    return function


def _imported(place: str, name: str) -> ModuleType:
    """Import a module, also from the current folder if Python does not look there by itself."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # it stays: the module may import its neighbours later
    _importing.place = place
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UnusableEnvironment(f"{place}: there is no module {error.name!r}") from error
        raise _import_failed(place, name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(place, name, error) from error
    finally:
        _importing.place = None


def _import_failed(place: str, name: str, error: BaseException) -> UnusableEnvironment:
    return UnusableEnvironment(f"{place}: importing {name} raised {raised(error)}")


def _why_not(module: ModuleType, name: str) -> str:
    if hasattr(module, name):
        kind = type(getattr(module, name)).__name__
        return f"{name} is of type {kind}, expected a function"
    names = [one for one in vars(module) if callable(getattr(module, one))]
    nearest = nearest_names(name, names)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return f"{module.__name__} has no function {name!r}{hint}"


def _parameters(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a function in C, without a signature
        return set()


def _called(place: str, function: Callable[..., Any], **arguments: int) -> Any:
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:
        raise UnusableEnvironment(f"{place}: cannot be made: {raised(error)}") from error


def _vector(place: str, function: Callable[..., Any], count: int, seed: int) -> Environments:
    made = _called(place, function, count=count, seed=seed)
    if not isinstance(made, Environments):
        raise _wrong_type(place, made, "noisynet.envs.Environments")
    # Films need to see the package's own classes, and SyncEnvironments guards each game itself.
    ours = type(made).__module__.startswith(f"{__package__}.")
    if not ours and not isinstance(made, SyncEnvironments):
        try:
            made = GuardedEnvironments(place, made)
        except AttributeError as error:
            raise UnusableEnvironment(f"{place}: {error}") from error
    if made.count != count:
        made.close()
        raise UnusableEnvironment(f"{place}: got {made.count} environments, expected {count}")
    return made


def _singles(place: str, function: Callable[..., Any], count: int) -> list[Any]:
    gymnasium = imported_gymnasium()
    made: list[Any] = []
    try:
        for _ in range(count):
            one = _called(place, function)
            if not isinstance(one, gymnasium.Env):
                raise _wrong_type(place, one, "a gymnasium.Env")
            if any(one is other for other in made):
                raise UnusableEnvironment(
                    f"{place}: returned the same environment twice, expected a new one each time"
                )
            made.append(one)
    except UnusableEnvironment:
        close_all(place, [one.close for one in made])
        raise
    return made


def _wrong_type(place: str, made: object, expected: str) -> UnusableEnvironment:
    return UnusableEnvironment(f"{place}: returned {type(made).__name__}, expected {expected}")
