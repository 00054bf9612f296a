"""`noisynet resume`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .options import add_json, add_ray, add_track, as_path, check_ray, positive, trackers
from .outcome import reported
from .parser import Parser
from .trust import add_trust, check_trust

if TYPE_CHECKING:
    from ..training import Outcome


def add_resume(resume: Parser) -> None:
    """Add the options of `resume`."""
    resume.description = (
        "Go on with a run from its newest checkpoint. A run that is over is left as it is, unless "
        "--steps gives it more to do."
    )
    resume.add_argument("folder", type=as_path, metavar="RUN", help="the run's folder")
    resume.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="agent steps, of the whole run, after which training ends from now on; it is written "
        "into the run's config.yaml. A run that was solved goes on without its goal",
    )
    add_ray(resume)
    add_track(resume)
    add_json(resume)
    add_trust(resume)
    resume.set_defaults(run=_resume)


def _resume(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from ..runs import open_run
    from ..training.display import make_display

    check_trust([parsed.folder], trust=parsed.trust)
    listeners = [make_display(Console(stderr=parsed.json)), *trackers(parsed)]
    actors = open_run(parsed.folder).config.scale.actors

    def run() -> Outcome:
        if actors is not None:
            from .. import samplers

            address = parsed.ray
            return samplers.resume(parsed.folder, listeners, address=address, steps=parsed.steps)
        from ..assemble import resume

        check_ray(parsed.ray)
        return resume(parsed.folder, listeners, steps=parsed.steps)

    return reported(parsed, run, lambda: parsed.folder)
