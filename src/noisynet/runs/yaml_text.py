"""YAML of presets, configs and suites: small regular files, without repeated keys or aliases.

With aliases, a few hundred bytes can stand for more values than fit in memory; a repeated key
silently loses its first value.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ..disk import open_regular
from .errors import RunError, cut, shown

MOST_BYTES = 1 << 18
"""The size limit, which takes PyYAML a few seconds; real suites and configs have a few kB."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without aliases; with `unique_keys` it refuses repeated keys."""

    unique_keys = True

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem=f"*{cut(event.anchor)}: aliases are not accepted: write the value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = str(key.value)
            if self.unique_keys and name in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {shown(name)} stands twice, first in line {seen[name]}",
                    problem_mark=key.start_mark,
                )
            seen[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Repeating(_Loader):
    unique_keys = False


def load(text: str, *, unique_keys: bool = True) -> Any:
    """Return the value of a YAML text; raises ValueError with one line that names the place."""
    try:
        return yaml.load(text, _Loader if unique_keys else _Repeating)  # noqa: S506 - a safe one
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ValueError(f"{line}{cut(error.problem or 'not YAML', 200)}") from None
    except yaml.YAMLError as error:
        raise ValueError(cut(str(error).splitlines()[0], 200)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (AttributeError, LookupError, TypeError):  # raised by PyYAML for `!!bool maybe`
        raise ValueError("a value does not fit its tag") from None


def read(file: Path) -> str:
    """Read a file of text, with or without a byte order mark.

    Raises RunError, never OSError, for a file that cannot be read, is not a regular file, is larger
    than 256 KiB or is not UTF-8.
    """
    try:
        with os.fdopen(open_regular(file), encoding="utf-8-sig") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MOST_BYTES:
                raise RunError(f"{file}: got {size:,} bytes, expected at most {MOST_BYTES:,}")
            return stream.read()
    except OSError as error:
        raise RunError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RunError(f"{file}: cannot be read: not UTF-8 text") from None
