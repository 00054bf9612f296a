"""The doctor's results: a finding for each check, and the diagnosis that collects them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Status = Literal["pass", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check: its name, its status, what was measured, and the cure.

    "fail" means that the noise does not do its job; "warn", that something differs from the paper
    and may be intended; "skipped", that a part which the check needs is missing. `str` returns one
    line.
    """

    name: str
    status: Status
    message: str
    cure: str = ""

    def __str__(self) -> str:
        cure = f". Cure: {self.cure}" if self.cure else ""
        return f"{self.status:<7} {self.name}: {self.message}{cure}"


@dataclass(frozen=True, slots=True)
class Check:
    """A named check, with a method for each kind of finding."""

    name: str

    def passed(self, message: str) -> Finding:
        """Return a pass: no fault was found."""
        return Finding(self.name, "pass", message)

    def warned(self, message: str, cure: str) -> Finding:
        """Return a warning: something differs from the paper, and may be intended."""
        return Finding(self.name, "warn", message, cure)

    def failed(self, message: str, cure: str) -> Finding:
        """Return a failure: the noise does not do its job."""
        return Finding(self.name, "fail", message, cure)

    def skipped(self, message: str) -> Finding:
        """Return a skipped finding, whose message says why the check was not made."""
        return Finding(self.name, "skipped", message)


class Diagnosis:
    """Findings of all checks, in the order in which they were made.

    Printing it gives one line per check, iterating over it gives the findings, and
    `diagnosis["acting"]` is the finding of one check. Raises KeyError for an unknown name.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)

    @property
    def ok(self) -> bool:
        """Whether no check failed; warnings and skipped checks do not count as failures."""
        return not any(finding.status == "fail" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return {"ok": …, "findings": […]} as plain values."""
        return {"ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, name: str) -> Finding:
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))

    def __repr__(self) -> str:
        found = Counter(finding.status for finding in self.findings)
        counts = ", ".join(f"{status}: {found[status]}" for status in get_args(Status))
        return f"Diagnosis({counts})"


def listed(names: Iterable[str], most: int = 4) -> str:
    """Return the first few names of layers as text, and how many more there are."""
    every = [repr(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: 1 layer, 3 layers."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
