"""`noisynet doctor`."""

from __future__ import annotations

import argparse

from .options import add_json, as_path, print_json
from .parser import Parser
from .trust import add_trust, check_trust


def add_doctor(doctor: Parser) -> None:
    """Add the options of `doctor`."""
    doctor.description = "Check whether a run's noise takes effect and is learned."
    doctor.add_argument("folder", type=as_path, metavar="RUN", help="the run's folder")
    add_json(doctor)
    add_trust(doctor)
    doctor.set_defaults(run=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    check_trust([parsed.folder], trust=parsed.trust)
    from ..evaluation.examine_run import examine

    diagnosis = examine(parsed.folder)
    if parsed.json:
        print_json(parsed, diagnosis.to_json())
    else:
        print(diagnosis)
    return 0 if diagnosis.ok else 1
