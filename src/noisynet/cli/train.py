"""`noisynet train` and `noisynet resume`."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from .options import as_path, field_value, say
from .trust import add_trust, check_trust


def add_train(commands: Any) -> None:
    """Add `train`, with an option for every field of the config."""
    from ..runs import config, spelling

    train = commands.add_parser(
        "train",
        help="train an agent",
        allow_abbrev=False,
        description="Train an agent and keep the run in a folder.",
        usage="noisynet train [PRESET] [--out FOLDER] [--FIELD VALUE ...]",
    )
    train.add_argument(
        "preset",
        nargs="?",
        default="pqn-pong",
        metavar="PRESET",
        help="a preset's name, an environment id, or a YAML file (default: pqn-pong)",
    )
    train.add_argument(
        "--out", type=as_path, metavar="FOLDER", help="the run's folder, new or empty"
    )
    _add_ray(train)
    groups: dict[str, Any] = {}
    for section, name, info in config.fields():
        group = groups.setdefault(section, train.add_argument_group(section))
        names = [name, *([spelling.AMERICAN[name]] if name in spelling.AMERICAN else [])]
        group.add_argument(
            *map(config.option_name, names),
            dest=f"field_{name}",
            metavar="VALUE",
            help=(info.description or "").replace("%", "%%"),
        )
    train.set_defaults(run=_train)


def add_resume(commands: Any) -> None:
    """Add `resume`."""
    resume = commands.add_parser("resume", help="go on with a run", allow_abbrev=False)
    resume.add_argument("folder", type=as_path, metavar="RUN", help="the run's folder")
    _add_ray(resume)
    add_trust(resume)
    resume.set_defaults(run=_resume)


def _add_ray(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="HOST:PORT of the Ray cluster that sampler actors are to live on; without it Ray runs "
        "on this machine (with --actors only)",
    )


def _overrides(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that were set on the command line."""
    return {
        name.removeprefix("field_"): field_value(text)
        for name, text in vars(parsed).items()
        if name.startswith("field_") and text is not None
    }


def _train(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from ..assemble import start
    from ..runs import config, default_path
    from ..training.display import make_display

    chosen = config.load(parsed.preset, _overrides(parsed))
    made: list[Path] = []

    def make() -> Path:
        made.append(default_path(parsed.preset))
        return made[0]

    path = parsed.out or make
    listeners = [make_display(Console())]
    try:
        if chosen.scale.actors is not None:
            from .. import samplers

            return _report(samplers.start(chosen, path, listeners, address=parsed.ray))
        _check_ray(parsed.ray)
        return _report(start(chosen, path, listeners))
    except KeyboardInterrupt:
        return _report_interrupt(parsed.out or (made[0] if made else None))


def _resume(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from ..assemble import resume
    from ..runs import open_run
    from ..training.display import make_display

    check_trust([parsed.folder], trust=parsed.trust)
    listeners = [make_display(Console())]
    chosen = open_run(parsed.folder).config
    try:
        if chosen.scale.actors is not None:
            from .. import samplers

            return _report(samplers.resume(parsed.folder, listeners, address=parsed.ray))
        _check_ray(parsed.ray)
        return _report(resume(parsed.folder, listeners))
    except KeyboardInterrupt:
        return _report_interrupt(parsed.folder)


def _check_ray(address: str | None) -> None:
    """Raise RunError for an address that nothing would use."""
    from ..runs.errors import RunError

    if address is not None:
        raise RunError(f"--ray: got {address!r}, expected none without --actors")


def _command() -> str:
    """Return what to type for this program: its path where PATH does not find it."""
    if shutil.which("noisynet") is None and Path(sys.argv[0]).name == "noisynet":
        return shlex.quote(os.path.relpath(sys.argv[0]))
    return "noisynet"


def _report(outcome: Any) -> int:
    mean = (
        "no game finished"
        if outcome.mean_return is None
        else f"mean return {outcome.mean_return:.2f}"
    )
    if outcome.before:
        how = "was solved" if outcome.reason == "solved" else "ended"
        more = "" if outcome.reason == "solved" else "; a larger `steps` in its config.yaml goes on"
        say(f"Nothing to do: the run {how} at step {outcome.step:,}, {mean}{more}.")
        return 0
    ends = {
        "solved": f"Solved at step {outcome.step:,}: {mean}.",
        "steps": f"Done: {outcome.step:,} steps, {mean}.",
        "interrupted": f"Stopped at step {outcome.step:,} and saved.",
    }
    say(ends[outcome.reason])
    if outcome.reason == "interrupted":
        return _go_on(outcome.folder)
    say(f"Play it: {_command()} evaluate {shlex.quote(str(outcome.folder))}")
    return 0


def _report_interrupt(folder: Path | None) -> int:
    """Report what is left of a run that was interrupted around training, or twice in it."""
    from ..runs import checkpoint

    if folder is None or not (folder / "config.yaml").exists():
        say("Stopped before the run began: there is nothing to go on with.")
        return 130
    step = checkpoint.newest_step(folder / "checkpoints")
    if step is None:
        say("Stopped before the first checkpoint.")
    else:
        say(f"Stopped; saved at step {step:,}.")
    return _go_on(folder)


def _go_on(folder: Path) -> int:
    say(f"Go on with: {_command()} resume {shlex.quote(str(folder))}")
    return 130
