"""`noisynet doctor`."""

from __future__ import annotations

import argparse
from typing import Any

from .options import as_path, print_json
from .trust import add_trust, check_trust


def add_doctor(commands: Any) -> None:
    """Add `doctor`."""
    doctor = commands.add_parser(
        "doctor", help="check whether a run's noise acts and learns", allow_abbrev=False
    )
    doctor.add_argument("folder", type=as_path, metavar="RUN", help="the run's folder")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    add_trust(doctor)
    doctor.set_defaults(run=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    check_trust([parsed.folder], trust=parsed.trust)
    from ..evaluation.examination import examine

    diagnosis = examine(parsed.folder)
    if parsed.json:
        print_json(parsed, diagnosis.to_json())
    else:
        print(diagnosis)
    return 0 if diagnosis.ok else 1
