"""A script for bash or zsh that completes commands, options and their values.

It is generated from the parsers, contains all that it needs, and runs no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .commands import COMMANDS, OPTIONS
from .parser import Flag, Parser

SHELLS = ("bash", "zsh")

_FUNCTION = """\
_noisynet() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="" words="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{COMP_WORDS[i]}}" in
            -*) ;;
            *) command="${{COMP_WORDS[i]}}"; break ;;
        esac
    done
    # Bash makes three words of --noise=on.
    case "$before" in "=") before="${{COMP_WORDS[COMP_CWORD-2]}}" ;; esac
    case "$word" in "=") word="" ;; -*) before="" ;; esac
    case "$command $before" in
{cases}
        *) case "$word" in -*) case "$command" in
{options}
            esac ;; esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -o bashdefault -F _noisynet noisynet
"""
# If nothing matches, both shells fall back to file names.


def script(shell: str) -> str:
    """Return the script for a shell, one of SHELLS."""
    cases = [
        '        " --print-completion") words="bash zsh" ;;',
        f'        " "*) words="{" ".join([*COMMANDS, *OPTIONS])}" ;;',
    ]
    options: list[str] = []
    for name, command in COMMANDS.items():
        parser = command.parser()
        cases += [f'        {case}) words="{values}" ;;' for case, values in _values(name, parser)]
        options.append(f'                {name}) words="{" ".join(parser.option_strings())}" ;;')
    text = _FUNCTION.format(cases="\n".join(cases), options="\n".join(options))
    if shell == "zsh":
        return _FOR_ZSH + text
    return text


_FOR_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
autoload -Uz bashcompinit && bashcompinit
"""


def _values(name: str, parser: Parser) -> Iterator[tuple[str, str]]:
    """Yield (pattern, values), a case of the script, for each word with a choice of values."""
    from ..runs.config import preset_names
    from ..runs.pretrained import names
    from ..suite.file import ready_suites

    first = {"train": preset_names, "suite": ready_suites}
    if name in first:
        yield f'"{name} {name}"', " ".join(first[name]())
    for action in parser.actions():
        if "--pretrained" in action.option_strings:
            yield f'"{name} --pretrained"', " ".join(names())
        if words := _choices(action):
            patterns = "|".join(f'"{name} {option}"' for option in action.option_strings)
            yield patterns, words


def _choices(action: argparse.Action) -> str:
    """Return an option's values if its placeholder lists them, as in `on|off`; else nothing."""
    placeholder = action.metavar
    if not action.option_strings or not isinstance(placeholder, str) or "|" not in placeholder:
        return ""
    if isinstance(action, Flag):
        return "true false"
    # mean:K is not a complete word: the user has to choose K.
    return " ".join(one for one in placeholder.split("|") if not one[-1:].isupper())
