"""`noisynet evaluate`."""

from __future__ import annotations

import argparse
import sys

from .options import (
    add_agent,
    add_json,
    add_noise,
    add_steps,
    folder_of,
    not_negative,
    positive,
    print_json,
)
from .parser import Parser
from .progress import show_progress
from .trust import add_trust, check_trust


def add_evaluate(evaluate: Parser) -> None:
    """Add the options of `evaluate`."""
    evaluate.description = "Play whole games with a trained agent, which does not learn from them."
    add_agent(evaluate)
    evaluate.add_argument(
        "--episodes", type=positive, default=10, metavar="N", help="games to play (default: 10)"
    )
    add_noise(evaluate)
    evaluate.add_argument(
        "--seed", type=not_negative, default=None, metavar="N", help="seed of the games"
    )
    add_steps(evaluate)
    add_json(evaluate)
    add_trust(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> int:
    folder = folder_of(parsed)
    check_trust([folder], trust=parsed.trust)
    from ..evaluation.agent import evaluate_run, limit_note
    from ..runs.evaluations import keep_evaluation

    with show_progress("Playing") as tell:
        result = evaluate_run(
            folder,
            episodes=parsed.episodes,
            noise=parsed.noise,
            seed=parsed.seed,
            steps=parsed.steps,
            tell=tell,
            tell_seconds=0.5,
        )
    try:
        # The doctor and reports compare the evaluations of a run.
        if not parsed.pretrained:
            keep_evaluation(folder, result)
    except OSError as error:
        print(f"not kept in {folder}: {error.strerror}", file=sys.stderr)
    if parsed.json:
        print_json(parsed, result)
        return 0
    low, high = result["interval"] or (None, None)
    interval = "" if low is None else f", 95 % interval {low:.2f} to {high:.2f}"
    games = "1 game" if result["episodes"] == 1 else f"{result['episodes']} games"
    print(f"{result['environment']}: {games}, noise {result['noise']}")
    print(f"mean return {result['mean']:.2f}, deviation {result['std']:.2f}{interval}")
    if result.get("human_normalised") is not None:
        print(
            f"human-normalised {result['human_normalised']:.1f} % "
            f"(random {result['random']:g}, human {result['human']:g})"
        )
    if (cut := limit_note(result)) is not None:
        print(cut)
    if result["unplayed"]:
        print(f"not played after these: {result['unplayed']} (--steps lets a game take longer)")
    print("returns: " + " ".join(f"{value:g}" for value in result["returns"]))
    print("lengths in steps: " + " ".join(str(value) for value in result["lengths"]))
    return 0
