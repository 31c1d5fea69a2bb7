"""One thing that was looked at, and how it is."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from dsv4_stack.errors import Dsv4Error, NotReadyError


class Level(StrEnum):
    """`WARNING` is for what is unsupported or not known: it is shown, and `up` goes on."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


_SHOWN: Final = {Level.OK: "ok   ", Level.WARNING: "WARN ", Level.WRONG: "WRONG"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`mend` is the command or change that helps, empty where all is well. `error` is what `up` fails with."""

    subject: str
    level: Level
    found: str
    mend: str = ""
    error: type[Dsv4Error] = NotReadyError

    @property
    def ok(self) -> bool:
        """Whether `up` may go on."""
        return self.level is not Level.WRONG

    def document(self) -> dict[str, Any]:
        """As `dsv4 doctor --json` has it."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "level": self.level.value,
            "found": self.found,
            "mend": self.mend,
        }

    def __str__(self) -> str:
        line = f"{_SHOWN[self.level]} {self.subject}: {self.found}"
        return f"{line}\n      {self.mend}" if self.mend else line


def ok(subject: str, found: str) -> Finding:
    return Finding(subject=subject, level=Level.OK, found=found)


def warning(subject: str, found: str, mend: str = "") -> Finding:
    return Finding(subject=subject, level=Level.WARNING, found=found, mend=mend)


def wrong(subject: str, found: str, mend: str, error: type[Dsv4Error] = NotReadyError) -> Finding:
    return Finding(subject=subject, level=Level.WRONG, found=found, mend=mend, error=error)


def raise_for(findings: list[Finding]) -> None:
    """The first wrong finding's error, with the text of all of them."""
    bad = [finding for finding in findings if not finding.ok]
    if bad:
        listed = "\n".join(f"  {finding.subject}: {finding.found}\n    {finding.mend}" for finding in bad)
        raise bad[0].error(
            f"this machine does not fit the profile:\n{listed}",
            "mend it, or go on with: dsv4 up --skip-doctor",
        )
