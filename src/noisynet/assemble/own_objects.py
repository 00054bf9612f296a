"""Environments, torsos and networks that a program gives as objects, registered under names.

A config holds only names. A function or class that can be imported is called `module:function`;
anything else is called by its own name in angle brackets, `<Match>`, which only this process knows.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from torch import nn

from ..envs import Environments, GymnasiumEnvironments, UnusableEnvironment, imported_function
from ..envs.raised import raised

_GIVEN: dict[str, Any] = {}


def name_of(thing: object) -> str:
    """Return a name for an object in a config, and register the object under it."""
    name = _place_of(thing)
    if name is None:
        base = name = f"<{_own_name(thing)}>"
        count = 1
        while _GIVEN.get(name, thing) is not thing:
            count += 1
            name = f"{base[:-1]}-{count}>"
    give(name, thing)
    return name


def give(name: str, thing: object) -> None:
    """Register an object under a name in a config."""
    _GIVEN[name] = thing


def found(name: str) -> Any:
    """Return the object registered under a name; None if there is none."""
    return _GIVEN.get(name)


def missing(field: str, name: str) -> str:
    """Return the message for an object that only the program which trained had, with the cure."""
    return (
        f"{name}: was given to noisynet.train as an object, which nothing can make again: "
        f"noisynet.load and noisynet.resume take it (noisynet.load(FOLDER, {field}=…)), or set "
        f"{field} in the run's config.yaml to module:function"
    )


def is_object(name: str) -> bool:
    """Return whether a name is known only in the process that registered it."""
    return name.startswith("<")


def maker(field: str, name: str) -> Callable[..., nn.Module]:
    """Return a function that builds the torso or network of a name, or copies it if it is a module.

    Raises ValueError if it was given in another process or cannot be imported. The function raises
    ValueError if the user's code fails or returns something other than a module.
    """
    given = found(name)
    if given is None and is_object(name):
        raise ValueError(missing(field, name))
    make = imported_function(name) if given is None else given
    return partial(_built, field, name, make)


def _built(field: str, name: str, make: Any, *arguments: object) -> nn.Module:
    try:
        made = copy.deepcopy(make).cpu() if isinstance(make, nn.Module) else make(*arguments)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{field}: {name} raised {raised(error)}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"{field}: {name} returned {type(made).__name__}, expected a module")
    return made


def environment_name(environment: Any) -> str:
    """Return the name in a config for a gymnasium.Env, or for a function that makes one.

    An environment just as `gymnasium.make(id)` returns it is called by that id.
    """
    import gymnasium

    if not isinstance(environment, gymnasium.Env):
        return name_of(environment)
    spec = environment.spec
    if spec is not None and spec.kwargs.get("render_mode") != "human":
        options = {key: one for key, one in spec.kwargs.items() if key != "render_mode"}
        if replace(spec, kwargs=options) == gymnasium.registry.get(spec.id):
            return spec.id
    return name_of(environment)


def environments_of(name: str, environment: Any, count: int, *, seed: int) -> Environments:
    """Return `Environments` around one environment given as an object, which stays open."""
    import gymnasium

    class LeftOpen(gymnasium.Wrapper[Any, Any, Any, Any]):
        def close(self) -> None: ...

    if count != 1:
        raise UnusableEnvironment(
            f"environments: got {count} of one object, {name}, expected 1: give a function that "
            "returns a new environment at each call"
        )
    return GymnasiumEnvironments(name, [LeftOpen(environment)], seed=seed)


def can_be_environment(thing: object) -> bool:
    """Return whether this is an environment, or a function that can make some."""
    import gymnasium

    return callable(thing) or isinstance(thing, gymnasium.Env)


def is_environment(name: str) -> bool:
    """Return whether a name stands for one environment, not for a function that makes them."""
    return is_object(name) and not callable(found(name))


def _own_name(thing: object) -> str:
    # An environment is called by the class below its wrappers.
    inside = thing if isinstance(thing, type) else getattr(thing, "unwrapped", thing)
    said = getattr(inside, "__qualname__", type(inside).__qualname__)
    return re.sub(r"\W", "", said.rpartition(".")[2]) or "object"


def _place_of(thing: object) -> str | None:
    """Return `module:function` if other processes can import the object by it, else None."""
    name = getattr(thing, "__qualname__", "")
    module = getattr(thing, "__module__", None)
    if module is None or not name.isidentifier() or isinstance(thing, nn.Module):
        return None
    if getattr(sys.modules.get(module), name, None) is not thing:
        return None
    module = _script() if module == "__main__" else module
    return None if module is None else f"{module}:{name}"


def _script() -> str | None:
    """Return the name by which other processes can import the running script, or None."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m module
        return main.__spec__.name
    file = getattr(main, "__file__", None)
    if file is None or not (stem := Path(file).stem).isidentifier():
        return None
    spec = PathFinder.find_spec(stem)
    same = spec is not None and spec.origin is not None and Path(spec.origin).samefile(file)
    return stem if same else None
