"""A command's parser: options may stand anywhere among the arguments, and an error is one line."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

EXIT_BAD_INPUT = 2

_NEGATIVE = re.compile(r"-(\.?\d|\.?inf$|\.?nan$)", re.IGNORECASE)
_OF_ARGUMENT = re.compile(r"argument (?:[^:]*/)?([^:/]+): (.*)", re.DOTALL)
_EXPLICIT = re.compile(r"ignored explicit argument (.*)", re.DOTALL)
_REQUIRED = "the following arguments are required: "
_WIDEST = 100
_WORDS = {
    "N": "a whole number",
    "X": "a number",
    "N,N,…": "whole numbers, separated by commas",
}
"""What the placeholders in a help stand for."""


class Flag(argparse.Action):
    """The action of a flag, which stores `true` for `--double`, or the text in `--double false`.

    `--no-double` is a separate option, since it takes no value; the help shows both together.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - as argparse calls it
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Store the value that was given, or `true` for none."""
        setattr(namespace, self.dest, "true" if values is None else values)


class HelpAll(argparse.Action):
    """The action of `--help-all`, which shows the help with the options that `--help` leaves out.

    `hidden` has the help text of each of those options.
    """

    def __init__(self, hidden: Mapping[argparse.Action, str | None], **options: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, **options)
        self._hidden = hidden

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - as argparse calls it
        values: str | Sequence[Any] | None,  # noqa: ARG002
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Print the whole help and exit."""
        for action, text in self._hidden.items():
            action.help = text
        parser.print_help()
        parser.exit()


def negative(option: str) -> str:
    """Return the negative form of an option: `--no-double` for `--double`."""
    return f"--no-{option.removeprefix('--')}"


class _Help(argparse.HelpFormatter):
    """A formatter of the help, as wide as the terminal, at most 100 columns."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(prog, max_help_position=30, width=min(columns, _WIDEST) - 2)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Wrap between words only: argparse would break `pqn-pong` at its hyphen."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in self._split_lines(text, width - len(indent)))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, Flag):
            return f"{action.option_strings[0]}, {negative(action.option_strings[0])}"
        return super()._format_action_invocation(action)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: what it got, what it accepts, the nearest name.

    `elsewhere` has errors for options that only other commands or former versions have.
    """

    elsewhere: Mapping[str, str]
    lists_all = "--help"
    """The option that lists all options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)
        # argparse's own pattern takes -1e38, -1_000 and -inf for options.
        self._negative_number_matcher = _NEGATIVE
        self.elsewhere = {}
        self._positionals.title, self._optionals.title = "arguments", "options"

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse a command's arguments; options may stand before, between and after the others."""
        parsed, unknown = self.parse_known_intermixed_args(arguments)
        if unknown:
            self.error(self._unknown(unknown))
        return parsed

    def option_strings(self) -> list[str]:
        """Return all options that the parser accepts."""
        return list(self._option_string_actions)

    def actions(self) -> list[argparse.Action]:
        """Return the parser's actions: its options and its positional arguments."""
        return list(self._actions)

    def _unknown(self, unknown: Sequence[str]) -> str:
        from ..runs.errors import did_you_mean

        names = [one.partition("=")[0] for one in unknown if one.startswith("-") and one != "-"]
        names = [one for one in names if not _NEGATIVE.match(one)]
        if not names:
            return f"got {unknown[0]!r}, expected nothing more"
        name = names[0]
        if name in self.elsewhere:
            return f"{name}: {self.elsewhere[name]}"
        meant = did_you_mean(name, self.option_strings())
        return f"{name}: no such option{meant} (`{self.prog} {self.lists_all}` lists them)"

    def error(self, message: str) -> NoReturn:
        """Print one line on standard error and exit with the status for bad input."""
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {self._in_words(message)}\n")

    def _in_words(self, message: str) -> str:
        """Rewrite an error of argparse in the form of ours: what it got, what it expected."""
        if message.startswith(_REQUIRED):
            name = message.removeprefix(_REQUIRED).partition(",")[0]
            return f"{name}: got nothing, expected {self._help_of(name)}"
        if (found := _OF_ARGUMENT.fullmatch(message)) is None:
            return message
        name, said = found.groups()
        if said.startswith("expected one argument"):
            return f"{name}: got nothing, expected {self._takes(name)}"
        if explicit := _EXPLICIT.fullmatch(said):
            return f"{name}: takes no value, got {explicit[1]}"
        return f"{name}: {said}"

    def _help_of(self, name: str) -> str:
        helps = [one.help for one in self._actions if one.metavar == name and one.help]
        return helps[0] if helps else "a value"

    def _takes(self, option: str) -> str:
        from ..runs.config.accepted import any_of

        action = self._option_string_actions.get(option)
        placeholder = "a value" if action is None else str(action.metavar or "a value")
        return _WORDS.get(placeholder) or any_of(placeholder.split("|"))
