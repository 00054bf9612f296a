"""What the doctor found, as values: one finding for each check, and all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Status = Literal["pass", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check: its name, its status, what was measured, and the cure.

    "fail" is noise that does not do its work; "warn" is what departs from the paper and may be
    wanted; "skipped" says what was missing to check it. `str` gives one line.
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
    """A check by its name, which makes the findings of it."""

    name: str

    def passed(self, message: str) -> Finding:
        """Return that all is well."""
        return Finding(self.name, "pass", message)

    def warned(self, message: str, cure: str) -> Finding:
        """Return what departs from the paper and may be wanted."""
        return Finding(self.name, "warn", message, cure)

    def failed(self, message: str, cure: str) -> Finding:
        """Return what keeps the noise from doing its work."""
        return Finding(self.name, "fail", message, cure)

    def skipped(self, message: str) -> Finding:
        """Return what was missing to check it."""
        return Finding(self.name, "skipped", message)


class Diagnosis:
    """Findings of all checks, in the order in which they were made.

    `print` it for one line a check; iterate over it; ask for a finding by its check's name, as
    `diagnosis["acting"]`. Raises KeyError for a name that no check has.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)

    @property
    def ok(self) -> bool:
        """Whether no check failed; warnings and skipped checks are no failures."""
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
