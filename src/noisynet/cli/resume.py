"""`noisynet resume`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .fields import add_fields, hide_fields, overrides
from .options import add_json, add_ray, add_track, as_path, check_ray, positive, trackers
from .outcome import run_and_report
from .parser import HelpAll, Parser
from .trust import add_trust, check_trust

if TYPE_CHECKING:
    from ..training import Outcome


def add_resume(resume: Parser) -> None:
    """Add the options of `resume`, one for every field of the config that may change."""
    from ..runs import config

    resume.usage = "noisynet resume RUN [--steps N] [--FIELD VALUE ...]"
    resume.description = (
        "Continue a run from its newest checkpoint. A finished run is left as it is, unless "
        "--steps extends it."
    )
    resume.epilog = (
        "Fields of the config that may change in a resumed run are options, too: --device cuda, "
        "--learning-rate 1e-4, --redo-every 1000. They are written into the run's config.yaml. "
        "`noisynet resume --help-all` lists them."
    )
    resume.lists_all = "--help-all"
    resume.add_argument("folder", type=as_path, metavar="RUN", help="the run's folder")
    resume.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="agent steps of the whole run, after which training ends; written into the run's "
        "config.yaml. A run that was solved continues without its goal",
    )
    add_ray(resume)
    add_track(resume)
    add_json(resume)
    add_trust(resume)
    resume.add_argument(
        "-h", "--help", action="help", help="show this help, with the options used most"
    )
    changeable = config.may_change() - {"steps"}
    add_fields(resume, changeable)
    resume.add_argument(
        "--help-all", action=HelpAll, hidden=hide_fields(resume), help="show all options"
    )
    resume.elsewhere = {
        config.option_name(name): "cannot change in a resumed run: train a new run"
        for name in config.SECTION_OF
        if name not in changeable
    }
    resume.set_defaults(run=_resume)


def _resume(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from ..runs import open_run
    from ..training.display import make_display

    check_trust([parsed.folder], trust=parsed.trust)
    listeners = [make_display(Console(stderr=parsed.json)), *trackers(parsed)]
    actors = open_run(parsed.folder).config.scale.actors
    changes = overrides(parsed)
    if parsed.steps is not None:
        changes["steps"] = parsed.steps

    def run() -> Outcome:
        if actors is not None:
            from .. import samplers

            address = parsed.ray
            return samplers.resume(parsed.folder, listeners, address=address, changes=changes)
        from ..assemble import resume

        check_ray(parsed.ray)
        return resume(parsed.folder, listeners, changes=changes)

    return run_and_report(parsed, run, lambda: parsed.folder)
