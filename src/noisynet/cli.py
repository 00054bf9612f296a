"""The command line: the one place where everything is put together."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from .runs.config import Config

_EXIT_BAD_INPUT = 2
_EXIT_DIVERGED = 1
_LARGEST = 2_000_000_000


class _Parser(argparse.ArgumentParser):
    """Say in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(_EXIT_BAD_INPUT, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status: 0, 1 for a loss that diverged, 2 for bad input."""
    try:
        _require(
            "pydantic", "yaml", "numpy", "gymnasium", "safetensors", "rich", "scipy",
            "tensorboard", extra="train",
        )  # fmt: skip
        from .runs.errors import RunError
        from .training import Diverged
    except _Missing as missing:
        print(f"noisynet: {missing}", file=sys.stderr)
        return _EXIT_BAD_INPUT
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed) or 0)
    except Diverged as error:
        print(f"noisynet {parsed.command}: {error}", file=sys.stderr)
        return _EXIT_DIVERGED
    except RunError as error:
        print(f"noisynet {parsed.command}: {error}", file=sys.stderr)
        return _EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(f"noisynet {parsed.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


class _Missing(Exception):
    pass


def _require(*modules: str, extra: str) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            raise _Missing(f"needs {module}: pip install 'noisynet[{extra}]'") from None


def _parser() -> argparse.ArgumentParser:
    from . import __version__
    from .runs import config

    parser = _Parser(prog="noisynet", allow_abbrev=False, description=__doc__)
    parser.add_argument("--version", action="version", version=f"noisynet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

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
        default="pong",
        metavar="PRESET",
        help="a preset's name, an environment id, or a YAML file (default: pong)",
    )
    train.add_argument("--out", type=Path, metavar="FOLDER", help="the run's folder, new or empty")
    groups: dict[str, Any] = {}
    for section, name, info in config.fields():
        group = groups.setdefault(section, train.add_argument_group(section))
        group.add_argument(
            config.option_name(name),
            dest=f"field_{name}",
            metavar="VALUE",
            help=(info.description or "").replace("%", "%%"),
        )
    train.set_defaults(run=_train)

    resume = commands.add_parser("resume", help="go on with a run", allow_abbrev=False)
    resume.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    resume.set_defaults(run=_resume)

    evaluate = commands.add_parser(
        "evaluate", help="play games with a run's agent", allow_abbrev=False
    )
    evaluate.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    evaluate.add_argument(
        "--episodes", type=_positive, default=10, metavar="N", help="games to play"
    )
    evaluate.add_argument(
        "--noise",
        choices=("on", "off"),
        default="off",
        help="off: the mean weights; on: new noise at every step",
    )
    evaluate.add_argument("--seed", type=_seed, default=None, metavar="N", help="seed of the games")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(run=_evaluate)

    presets = commands.add_parser("presets", help="list the presets", allow_abbrev=False)
    presets.add_argument("--json", action="store_true", help="print one JSON object")
    presets.set_defaults(run=_presets)
    return parser


def _positive(text: str) -> int:
    return _whole(text, 1)


def _seed(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < _LARGEST:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a whole number from {least} to {_LARGEST - 1}"
        )
    return value


def _overrides(parsed: argparse.Namespace) -> dict[str, Any]:
    """Give the fields that were set on the command line."""
    overrides: dict[str, Any] = {}
    for name, text in vars(parsed).items():
        if name.startswith("field_") and text is not None:
            overrides[name.removeprefix("field_")] = _value(text)
    return overrides


def _value(text: str) -> Any:
    """Read a value as YAML does, but numbers as Python does: YAML takes 010 for 8."""
    import yaml

    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return value if value is None or isinstance(value, bool | str | list) else text


def _train(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from .runs import config, default_path
    from .training import start
    from .training.display import make_display

    chosen = config.load(parsed.preset, _overrides(parsed))
    path = parsed.out or (lambda: default_path(parsed.preset))
    return _report(start(chosen, path, [make_display(Console())]))


def _resume(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from .training import resume
    from .training.display import make_display

    return _report(resume(parsed.folder, [make_display(Console())]))


def _command() -> str:
    """Give what to type for this program: its path where PATH does not find it."""
    if shutil.which("noisynet") is None and Path(sys.argv[0]).name == "noisynet":
        return shlex.quote(os.path.relpath(sys.argv[0]))
    return "noisynet"


def _report(outcome: Any) -> int:
    mean = (
        "no game finished"
        if outcome.mean_return is None
        else f"mean return {outcome.mean_return:.2f}"
    )
    ends = {
        "solved": f"Solved at step {outcome.step:,}: {mean}.",
        "steps": f"Done: {outcome.step:,} steps, {mean}.",
        "interrupted": f"Stopped at step {outcome.step:,} and saved.",
    }
    print(ends[outcome.reason])
    if outcome.reason == "interrupted":
        print(f"Go on with: {_command()} resume {shlex.quote(str(outcome.folder))}")
        return 130
    print(f"Play it: {_command()} evaluate {shlex.quote(str(outcome.folder))}")
    return 0


def _evaluate(parsed: argparse.Namespace) -> int:
    from .evaluation.agent import evaluate_run

    result = evaluate_run(
        parsed.folder, episodes=parsed.episodes, noise=parsed.noise == "on", seed=parsed.seed
    )
    if parsed.json:
        print(json.dumps(result))
        return 0
    low, high = result["interval"] or (None, None)
    interval = "" if low is None else f", 95 % interval {low:.2f} to {high:.2f}"
    print(f"{result['environment']}: {result['episodes']} games, noise {result['noise']}")
    print(f"mean return {result['mean']:.2f}, deviation {result['std']:.2f}{interval}")
    if result.get("human_normalised") is not None:
        print(
            f"human-normalised {result['human_normalised']:.1f} % "
            f"(random {result['random']:g}, human {result['human']:g})"
        )
    print("returns: " + " ".join(f"{value:g}" for value in result["returns"]))
    return 0


def _presets(parsed: argparse.Namespace) -> int:
    from .runs import config

    listed: dict[str, Config] = {name: config.load(name) for name in config.preset_names()}
    if parsed.json:
        print(json.dumps({name: one.model_dump(mode="json") for name, one in listed.items()}))
        return 0
    for name, one in listed.items():
        game, exploration = one.environment.environment, one.exploration.exploration
        print(f"{name:<18} {game:<16} exploration: {exploration}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
