"""What a figure has to be, and whether it is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.tables import table


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


def as_table(runs: Sequence[Sequence[Bar]]) -> str:
    """The same bars of each run, and the worst verdict on each."""
    rows = []
    for same in zip(*runs, strict=True):
        (what, _, limit, _), measured = same[0].cells(), [bar.cells()[1] for bar in same]
        verdicts = {bar.verdict for bar in same}
        worst = next(verdict for verdict in (Verdict.MISSED, Verdict.UNKNOWN, Verdict.HOLDS) if verdict in verdicts)
        rows.append([what, *measured, limit, worst.value])
    heads = ["measured"] if len(runs) == 1 else [f"run {number}" for number in range(1, len(runs) + 1)]
    return table(["", *heads, "bar", ""], rows)
