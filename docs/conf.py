"""Build the pages: `make docs`. Nothing here needs the network."""

from __future__ import annotations

import inspect
import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import noisynet
from noisynet.integrations import host
from noisynet.runs import config

logger = logging.getLogger(__name__)

project = "noisynet"
author = "the noisynet authors"
version = release = noisynet.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# A single backtick in a docstring is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autoclass_content = "class"
# The adapters are documented without their hosts.
autodoc_mock_imports = [
    "ignite", "ray", "sb3_contrib", "stable_baselines3", "tensordict", "tianshou", "torchrl",
]  # fmt: skip
host.check_host = lambda *_, **__: None

# -n reports every name that leads nowhere. These lead to other projects' pages, which would have to
# be fetched, or are type aliases and internal types that only a signature shows.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|nn|collections|contextlib|typing|types|pathlib|numpy)(\..*)?"),
    (r"py:.*", r"(ignite|tensordict)(\..*)?"),
    (r"py:.*", r"(Tensor|Optimizer|RemovableHandle|Iterator|Mapping|Sequence|Callable|Where)"),
    (r"py:.*", r"noisynet\.(layers|diagnostics|control|runs|envs|integrations)\..*"),
]

html_theme = "furo"
html_title = f"noisynet {release}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
# Output is to be read, not copied.
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"


# Methods that layers call on each other.
INTERNAL = ("fresh_rows", "noise_to_keep")


def public_names() -> dict[str, Any]:
    """List what noisynet promises: its public names, and the public methods of its classes."""
    names: dict[str, Any] = {}
    for name in (*noisynet.__all__, *noisynet.WITH_TRAIN):
        value = getattr(noisynet, name)
        names[f"noisynet.{name}"] = value
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                if inspect.isclass(member):
                    continue
                is_method = callable(getattr(value, attribute)) or isinstance(member, property)
                if is_method and not attribute.startswith("_") and attribute not in INTERNAL:
                    names[f"noisynet.{name}.{attribute}"] = member
    return names


def check_public_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, which -W turns into an error, of public names without docstring or place on a page."""
    domain = env.get_domain("py")
    assert isinstance(domain, PythonDomain)
    for name, value in public_names().items():
        docstring = value.__func__.__doc__ if hasattr(value, "__func__") else value.__doc__
        if not (docstring or "").strip():
            logger.warning("public name without a docstring: %s", name)
        if name not in domain.objects:
            logger.warning("public name that no page documents: %s", name)


def list_fields(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a table of every field of the config, by section, in the place of `{{ fields }}`."""
    mark = "{{ fields }}"
    if page == "config" and mark not in source[0]:
        logger.warning("config.md: got no %s, expected it where the fields are listed", mark)
    lines: list[str] = []
    for section in config.SECTIONS:
        lines += ["", f"## {section}", "", f"{config.about(section)}.", ""]
        lines += ["| field | accepts | default | meaning |", "|---|---|---|---|"]
        for place, name, info in config.fields():
            if place == section:
                default = "required" if info.is_required() else as_text(info.default)
                cells = [f"`{name}`", str(config.ACCEPTED[name]), default, info.description or ""]
                lines.append(f"| {' | '.join(cells)} |")
    source[0] = source[0].replace(mark, "\n".join(lines))


def as_text(value: object) -> str:
    """Return a field's default as YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return "no layers" if value == () else str(value)


def escape_prose(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Keep a docstring's prose as it stands: |σ|, *args and a trailing_ mean nothing to it."""
    for number, line in enumerate(lines):
        if line.startswith((" ", ">>>")):
            continue
        pieces = re.split(r"(`+[^`]*`+)", line)
        pieces[::2] = [re.sub(r"([|*]|(?<=\w)_(?!\w))", r"\\\1", piece) for piece in pieces[::2]]
        lines[number] = "".join(pieces)


def visit_inline_math(translator: Any, node: nodes.math) -> None:
    """Write an inline formula as MathML, which browsers show by themselves."""
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def visit_block_math(translator: Any, node: nodes.math_block) -> None:
    """Write a displayed formula as MathML."""
    translator.body.append(f"<div class='math'>{tex2mathml(node.astext(), as_block=True)}</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the formulas, the fields, the plain docstrings and the check of public names."""
    app.add_html_math_renderer("mathml", (visit_inline_math, None), (visit_block_math, None))
    app.connect("source-read", list_fields)
    app.connect("autodoc-process-docstring", escape_prose)
    app.connect("env-check-consistency", check_public_names)
