"""`noisynet watch`."""

from __future__ import annotations

import argparse

from .options import add_json, as_path, one_of, positive, print_json, seed
from .parser import Parser
from .progress import telling
from .trust import add_trust, check_trust


def add_watch(watch: Parser) -> None:
    """Add the options of `watch`."""
    watch.description = "Film a game of a run's agent, its values and their noise beside it."
    watch.add_argument("folder", type=as_path, metavar="RUN", help="the run's folder")
    watch.add_argument(
        "--out", type=as_path, metavar="FILE", help="an .mp4 or .gif (default: RUN/watch.mp4)"
    )
    watch.add_argument(
        "--noise",
        type=one_of("off", "on"),
        default="off",
        metavar="off|on",
        help="off: the mean weights act; on: a new draw of noise at every step (default: off)",
    )
    watch.add_argument("--seed", type=seed, default=None, metavar="N", help="seed of the game")
    watch.add_argument(
        "--steps",
        type=positive,
        default=None,
        metavar="N",
        help="agent steps at most (default: 5000, for a GIF 300)",
    )
    add_json(watch)
    add_trust(watch)
    watch.set_defaults(run=_watch)


def _watch(parsed: argparse.Namespace) -> int:
    check_trust([parsed.folder], trust=parsed.trust)
    from ..runs.errors import RunError

    try:
        from ..evaluation.film import film
    except ImportError as error:
        raise RunError(f"needs {error.name}: pip install 'noisynet[train]'") from None
    with telling("Playing and filming a game"):
        made = film(
            parsed.folder,
            out=parsed.out,
            noise=parsed.noise == "on",
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
                "noise": parsed.noise,
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
