"""What a figure has to be, and whether it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """`UNKNOWN` where it could not be measured here."""

    HOLDS = "holds"
    MISSED = "MISSED"
    UNKNOWN = "not measured"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """`measured` shall be at most `limit`, or at least where `at_least` says so; None was not measured.

    It is judged as it is printed, to two digits (`digits`).
    """

    what: str
    measured: float | None
    limit: float
    unit: str = ""
    at_least: bool = False
    digits: int = 2

    @property
    def verdict(self) -> Verdict:
        if self.measured is None:
            return Verdict.UNKNOWN
        found = round(self.measured, self.digits)
        return Verdict.HOLDS if (found >= self.limit if self.at_least else found <= self.limit) else Verdict.MISSED

    def cells(self) -> tuple[str, str, str, str]:
        """What, measured, bar, verdict."""
        measured = "" if self.measured is None else f"{self.measured:.{self.digits}f}{self.unit}"
        way = "at least" if self.at_least else "at most"
        return self.what, measured, f"{way} {self.limit:.{self.digits}f}{self.unit}", self.verdict.value

    def __str__(self) -> str:
        what, measured, limit, verdict = self.cells()
        return f"{verdict}: {what}: {measured or 'nothing'}, {limit}"


def missed(bars: Iterable[Bar]) -> bool:
    return any(bar.verdict is Verdict.MISSED for bar in bars)
