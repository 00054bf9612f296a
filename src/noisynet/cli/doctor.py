"""`noisynet doctor`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_doctor(commands: Any) -> None:
    """Add `doctor`."""
    doctor = commands.add_parser(
        "doctor", help="check whether a run's noise acts and learns", allow_abbrev=False
    )
    doctor.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(run=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    from ..evaluation.examination import examine

    diagnosis = examine(parsed.folder)
    print(json.dumps(diagnosis.to_json()) if parsed.json else diagnosis)
    return 0 if diagnosis.ok else 1
