"""`noisynet watch`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import (
    add_agent,
    add_json,
    add_noise,
    as_path,
    folder_of,
    not_negative,
    positive,
    print_json,
)
from .parser import Parser
from .progress import show_progress
from .trust import add_trust, check_trust


def add_watch(watch: Parser) -> None:
    """Add the options of `watch`."""
    watch.description = "Film a game of a trained agent, with its values and their noise."
    add_agent(watch)
    watch.add_argument(
        "--out",
        type=as_path,
        metavar="FILE",
        help="an .mp4 or .gif file (default: RUN/watch.mp4, or NAME.mp4 of a pretrained agent)",
    )
    add_noise(watch)
    watch.add_argument(
        "--seed", type=not_negative, default=None, metavar="N", help="seed of the game"
    )
    watch.add_argument(
        "--steps",
        type=positive,
        default=None,
        metavar="N",
        help="agent steps after which the film ends (default: 5000, for a GIF 300)",
    )
    add_json(watch)
    add_trust(watch)
    watch.set_defaults(run=_watch)


def _watch(parsed: argparse.Namespace) -> int:
    folder = folder_of(parsed)
    check_trust([folder], trust=parsed.trust)
    from ..extras import install_command
    from ..runs.errors import RunError

    try:
        from ..evaluation.conditions import noise_in_words
        from ..evaluation.film import default_name, film
    except ImportError as error:
        raise RunError(f"needs {error.name}: {install_command('train')}") from None
    out = parsed.out
    if out is None and parsed.pretrained:  # its folder is inside the package
        out = Path(default_name(parsed.pretrained))
    with show_progress("Playing and filming a game"):
        made = film(
            folder,
            out=out,
            noise=parsed.noise,
            seed=parsed.seed,
            steps=parsed.steps,
        )
    if parsed.json:
        print_json(
            parsed,
            {
                "path": str(made.path.resolve()),
                "environment": made.environment,
                "steps": made.steps,
                "return": made.game_return,
                "ended": made.ended,
                "effective_epsilon": made.effective_epsilon,
                "noise": noise_in_words(parsed.noise),
                "seed": made.seed,
            },
        )
        return 0
    what = "a whole game" if made.ended else "the beginning of a game"
    print(
        f"{made.environment}: {what}, {made.steps:,} steps, return {made.game_return:g}, "
        f"seed {made.seed}"
    )
    if made.effective_epsilon is not None:
        share = f"{made.effective_epsilon:.1%}"
        print(f"Effective ε: {share} of the draws choose another action than the means")
    print(f"Video: {made.path.resolve()}")
    return 0
