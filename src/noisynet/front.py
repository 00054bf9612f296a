"""Training agents from Python: `noisynet.train`, `noisynet.resume` and `noisynet.load`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from . import assemble
from .assemble import own_objects
from .envs import being_imported
from .evaluation.agent import TrainedAgent
from .evaluation.conditions import torch_threads_restored
from .runs import RunError, config, default_path, open_run
from .runs.config import MAY_BE_OWN, SECTION_OF, Config
from .runs.errors import shown
from .training import Listener, Outcome
from .training.display import make_display

__all__ = ["TrainedAgent", "load", "resume", "train"]


@torch_threads_restored()
def train(
    environment: Any,
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    progress: bool = True,
    listeners: Iterable[Listener] = (),
    **fields: Any,
) -> TrainedAgent:
    """Train an agent and return it; the run is saved in a folder, as with `noisynet train`.

    Args:
        environment: what to play. The name of a preset, an environment id, `module:function` or a
            YAML file; a function or class that returns a new `gymnasium.Env` at each call, or, with
            the parameters `count` and `seed`, `noisynet.envs.Environments`; or one `gymnasium.Env`,
            which is then the run's only environment.
        out: the run's folder, new or empty; by default `runs/NAME-DATE-TIME`.
        preset: the preset that sets the default of every field, if `environment` is not itself a
            preset; if not given, the one for this kind of environment, `control` for your own.
        progress: whether to show progress on standard error.
        listeners: objects that are told of the run's events; see `noisynet.training.Listener`.
        fields: any field of the config. `torso` and `own_network` also take a `torch.nn.Module`,
            which is copied, or a function that makes one.

    A function or class that other processes can import is recorded in the run as `module:function`,
    so that every command finds it again. Any other object exists in this process alone: pass it
    again to `load` and `resume`.

    Raises RunError, with a one-line message, if the run cannot be trained. An interrupt saves the
    run and then raises KeyboardInterrupt.
    """
    if (place := being_imported()) is not None:
        raise RunError(
            f"noisynet.train was called while {place} was imported: put it under "
            "`if __name__ == '__main__':`"
        )
    for name in ("torso", "own_network"):
        if _is_network(name, fields.get(name)) and not callable(fields[name]):
            raise RunError(
                f"{name}: got {shown(fields[name])}, expected a torch.nn.Module, a function that "
                "makes one, or a name"
            )
    given_fields = {
        name: own_objects.name_of(value) if _is_network(name, value) else value
        for name, value in fields.items()
    }
    name = _environment_name(environment)
    if preset is not None:
        given_fields["environment"] = name
    elif own_objects.is_object(name):
        given_fields["environment"], preset = name, "control"
    if own_objects.is_environment(name):
        given_fields.setdefault("environments", 1)
    chosen = config.load(preset or name, given_fields)
    _check_reach(chosen)
    display = make_display(Console(stderr=True)) if progress else None
    heard = [*listeners] if display is None else [display, *listeners]
    tell = None if display is None else display.preparing
    path = (lambda: default_path(name)) if out is None else Path(out)
    if chosen.scale.actors is not None:
        from . import samplers

        return _agent(samplers.start(chosen, path, heard, tell=tell))
    return _agent(assemble.start(chosen, path, heard, tell=tell))


@torch_threads_restored()
def resume(
    folder: str | Path,
    *,
    steps: int | None = None,
    environment: Any = None,
    torso: Any = None,
    own_network: Any = None,
    progress: bool = True,
    listeners: Iterable[Listener] = (),
    **fields: Any,
) -> TrainedAgent:
    """Continue a run from its newest checkpoint, and return the agent.

    `steps` sets a new last step. `fields` are other fields of the config that may change between
    sessions, such as `device` and `redo_every`; they are written into the run's config.yaml.
    `environment`, `torso` and `own_network` are the objects that `train` was given; pass those that
    other processes cannot import. Everything else is as for `train`.
    """
    path = Path(folder)
    _give_again(path, environment=environment, torso=torso, own_network=own_network)
    heard = [*([make_display(Console(stderr=True))] if progress else []), *listeners]
    changes = fields if steps is None else {**fields, "steps": steps}
    if open_run(path).config.scale.actors is not None:
        from . import samplers

        return _agent(samplers.resume(path, heard, changes=changes))
    return _agent(assemble.resume(path, heard, changes=changes))


@torch_threads_restored()
def load(
    folder: str | Path, *, environment: Any = None, torso: Any = None, own_network: Any = None
) -> TrainedAgent:
    """Load the newest checkpoint's agent from a run, or from what `TrainedAgent.save` wrote.

    `environment`, `torso` and `own_network` are the objects that `train` was given; pass those that
    other processes cannot import. Code that the folder names as `module:function` is imported and
    run. Raises RunError, with a one-line message, if there is no such agent.
    """
    path = Path(folder)
    _give_again(path, environment=environment, torso=torso, own_network=own_network)
    return TrainedAgent.load(path)


def _environment_name(environment: Any) -> str:
    if isinstance(environment, str | Path):
        return str(environment)
    if not own_objects.can_be_environment(environment):
        raise RunError(
            f"environment: got {shown(environment)}, expected a preset, an environment id, a "
            "gymnasium.Env, or a function that returns a new one at each call"
        )
    return own_objects.environment_name(environment)


def _is_network(name: str, value: Any) -> bool:
    return name in ("torso", "own_network") and value is not None and not isinstance(value, str)


def _check_reach(chosen: Config) -> None:
    """Raise RunError if other processes play but cannot import what this process was given."""
    if chosen.learning.algorithm != "a3c" and chosen.scale.actors is None:
        return
    for field, name in _own(chosen).items():
        if own_objects.is_object(name):
            raise RunError(
                f"{field}: got {name}, expected a function or class at the top of a module: other "
                "processes play, and import it"
            )


def _give_again(path: Path, **things: Any) -> None:
    named = _own(open_run(path).config)
    for field, thing in things.items():
        if thing is None:
            continue
        if field not in named:
            raise RunError(f"{field}: got {shown(thing)}, expected none: {path} needs none again")
        own_objects.give(named[field], thing)


def _own(chosen: Config) -> dict[str, str]:
    """Return the fields that name the user's own environment or network, {field: name}."""
    values = chosen.by_section()
    named = {field: values[SECTION_OF[field]][field] for field in MAY_BE_OWN}
    return {
        field: name
        for field, name in named.items()
        if name and (":" in name or own_objects.is_object(name))
    }


def _agent(outcome: Outcome) -> TrainedAgent:
    if outcome.reason == "interrupted":
        raise KeyboardInterrupt(f"the run was saved in {outcome.folder} at step {outcome.step}")
    return TrainedAgent.load(outcome.folder)
