"""The user's own environments, by `module:function`."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from noisynet.envs.copies import check_count_and_seed
from noisynet.envs.environments import (
    Environments,
    UnusableEnvironment,
    first_line,
    nearest_names,
)
from noisynet.envs.generic import GymnasiumEnvironments, imported_gymnasium, make_registered


def make_custom(place: str, count: int, *, seed: int) -> Environments:
    """Make `count` environments with a function of the user's.

    `place` is `module:function`; the module is looked for in the current folder too. The function
    is called without arguments, once for each environment, and returns a new gymnasium.Env. One
    that has parameters `count` and `seed` is called once, with both, and returns `Environments`.
    `module:Name-v0` is an id that the module registers with Gymnasium.

    Raises UnusableEnvironment where the module, the function or what it returns does not fit.
    """
    count, seed = check_count_and_seed(count, seed)
    module_name, _, name = place.partition(":")
    if not name or not all(part.isidentifier() for part in module_name.split(".")):
        raise UnusableEnvironment(f"environment: got {place!r}, expected module:function")
    module = _imported(place, module_name)
    function = getattr(module, name, None)
    if function is None and name in imported_gymnasium().registry:
        return make_registered(place, name, count, seed=seed)
    if not callable(function):
        raise UnusableEnvironment(f"{place}: {_why_not(module, name)}")
    if {"count", "seed"} <= _parameters(function):
        return _vector(place, function, count, seed)
    return GymnasiumEnvironments(place, _singles(place, function, count), seed=seed)


def _imported(place: str, name: str) -> ModuleType:
    """Import a module, from the current folder where Python does not look there by itself."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # it stays: the module may import its neighbours later
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UnusableEnvironment(f"{place}: there is no module {error.name!r}") from error
        raise _import_failed(place, name, error) from error
    except Exception as error:
        raise _import_failed(place, name, error) from error


def _import_failed(place: str, name: str, error: Exception) -> UnusableEnvironment:
    return UnusableEnvironment(f"{place}: importing {name} raised {first_line(error)}")


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
    except (TypeError, ValueError):  # of C, without a signature
        return set()


def _called(place: str, function: Callable[..., Any], **arguments: int) -> Any:
    try:
        return function(**arguments)
    except Exception as error:
        raise UnusableEnvironment(f"{place}: cannot be made: {first_line(error)}") from error


def _vector(place: str, function: Callable[..., Any], count: int, seed: int) -> Environments:
    made = _called(place, function, count=count, seed=seed)
    if not isinstance(made, Environments):
        raise _wrong_type(place, made, "noisynet.envs.Environments")
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
        for environment in made:
            environment.close()
        raise
    return made


def _wrong_type(place: str, made: object, expected: str) -> UnusableEnvironment:
    return UnusableEnvironment(f"{place}: returned {type(made).__name__}, expected {expected}")
