"""`noisynet evaluate`."""

from __future__ import annotations

import argparse
import sys

from .options import add_json, add_steps, as_path, noise_draws, positive, print_json, seed
from .parser import Parser
from .progress import telling
from .trust import add_trust, check_trust


def add_evaluate(evaluate: Parser) -> None:
    """Add the options of `evaluate`."""
    evaluate.description = "Play whole games with a run's agent, which does not learn from them."
    evaluate.add_argument("folder", type=as_path, metavar="RUN", help="the run's folder")
    evaluate.add_argument(
        "--episodes", type=positive, default=10, metavar="N", help="games to play (default: 10)"
    )
    evaluate.add_argument(
        "--noise",
        type=noise_draws,
        default=0,
        metavar="off|on|mean:K",
        help="off: the mean weights; on: new noise at every step; mean:K: by the mean of Q over K "
        "new draws at every step (default: off)",
    )
    evaluate.add_argument("--seed", type=seed, default=None, metavar="N", help="seed of the games")
    add_steps(evaluate)
    add_json(evaluate)
    add_trust(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> int:
    check_trust([parsed.folder], trust=parsed.trust)
    from ..evaluation.agent import cut_text, evaluate_run
    from ..runs.evaluations import keep_evaluation

    with telling("Playing") as tell:
        result = evaluate_run(
            parsed.folder,
            episodes=parsed.episodes,
            noise=parsed.noise,
            seed=parsed.seed,
            steps=parsed.steps,
            tell=tell,
            tell_seconds=0.5,
        )
    try:
        # For the doctor and reports, which compare them.
        keep_evaluation(parsed.folder, result)
    except OSError as error:
        print(f"not kept in {parsed.folder}: {error.strerror}", file=sys.stderr)
    if parsed.json:
        print_json(parsed, result)
        return 0
    low, high = result["interval"] or (None, None)
    interval = "" if low is None else f", 95 % interval {low:.2f} to {high:.2f}"
    print(f"{result['environment']}: {result['episodes']} games, noise {result['noise']}")
    print(f"mean return {result['mean']:.2f}, deviation {result['std']:.2f}{interval}")
    if result.get("human_normalised") is not None:
        print(
            f"human-normalised {result['human_normalised']:.1f} % "
            f"(random {result['random']:g}, human {result['human']:g})"
        )
    if result["unfinished"]:
        print(f"unfinished: {result['unfinished']} games (--steps lets one take longer)")
    if (cut := cut_text(result)) is not None:
        print(cut)
    print("returns: " + " ".join(f"{value:g}" for value in result["returns"]))
    print("lengths in steps: " + " ".join(str(value) for value in result["lengths"]))
    return 0
