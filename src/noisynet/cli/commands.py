"""The commands in the order of the help; the module of each is imported only when it is given."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from .parser import Parser


@dataclass(frozen=True)
class Command:
    """A command, as the program's help shows it."""

    name: str
    takes: str
    does: str
    group: str
    loads_torch: bool = True
    """Whether it imports torch, and with it the handler that ends it cleanly when interrupted."""

    def parser(self) -> Parser:
        """Build the command's parser."""
        module = importlib.import_module(f".{self.name}", __package__)
        parser = Parser(prog=f"noisynet {self.name}", add_help=False)
        getattr(module, f"add_{self.name}")(parser)
        if "--help" not in parser.option_strings():
            parser.add_argument("-h", "--help", action="help", help="show this help")
        parser.add_argument(
            "--debug",
            action="store_true",
            help="show the traceback of an error, of your own environment too",
        )
        return parser


_TRAIN, _LOOK, _OTHER = "Train an agent", "See what it learned", "Also"

COMMANDS = {
    one.name: one
    for one in (
        Command("train", "PRESET", "train an agent and keep the run in a folder", _TRAIN),
        Command("resume", "RUN", "continue a stopped run, or extend one: --steps N", _TRAIN),
        Command("suite", "FILE", "train many agents: games × variants × seeds, on Ray", _TRAIN),
        Command("evaluate", "RUN", "play games with the trained agent", _LOOK),
        Command("watch", "RUN", "film a game, with the values and their noise", _LOOK),
        Command("report", "RUN…", "write one HTML page about runs", _LOOK),
        Command("compare", "RUN RUN…", "compare runs by their scores", _LOOK, loads_torch=False),
        Command("doctor", "RUN", "check whether a run's noise takes effect and is learned", _LOOK),
        Command("presets", "", "list the presets: steps, time, score", _OTHER, loads_torch=False),
        Command("runs", "[FOLDER]", "list the runs under a folder", _OTHER, loads_torch=False),
    )
}

OPTIONS = {
    "--help": "show this help; `noisynet COMMAND --help` explains a command",
    "--version": "print the version",
    "--print-completion": "bash or zsh: print a script that completes commands and options",
    "--debug": "show the traceback of an error",
}
"""The program's own options, given instead of a command or before one."""


def overview(version: str) -> str:
    """Return the program's help."""
    lines = [
        f"noisynet {version}: agents that explore by learned noise in their weights",
        "(Noisy Networks for Exploration, arXiv 1706.10295)",
        "",
        "  noisynet watch --pretrained cartpole   films a pretrained agent",
        "  noisynet train pqn-cartpole            trains one in about half a minute",
        "  noisynet evaluate runs/pqn-cartpole-…  plays ten games with it",
    ]
    group = None
    for one in COMMANDS.values():
        if one.group != group:
            group = one.group
            lines += ["", f"{group}:"]
        lines.append(f"  {f'{one.name} {one.takes}':<22}{one.does}")
    lines += ["", "Options:"]
    lines += [f"  {name:<22}{does}" for name, does in OPTIONS.items()]
    return "\n".join(lines) + "\n"
