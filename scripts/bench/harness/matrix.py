"""The fault matrix: what every tool did in every scenario, as tables, and what this project should not have done."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.disk import RECORD_BYTES
from harness.scenarios import LIMIT_S, Outcome
from harness.tables import MISSING, mib, table


@dataclass(frozen=True, kw_only=True)
class Row:
    """All outcomes of the scenarios of one name; `skipped` says why there is none."""

    name: str
    exits: frozenset[int]
    outcomes: tuple[Outcome, ...]
    skipped: str = ""


def as_markdown(ours: Sequence[Row], others: Mapping[str, Sequence[Row]], made_with: str, command: str) -> str:
    """What happened, this project's rows first, then each other tool's; then what they said."""
    sections = {"dsv4 materialize": ours, **others}
    happened = [f"### {name}\n\n{_happened(rows)}" for name, rows in sections.items()]
    words = [f"### What {name} said\n\n{_words(rows)}" for name, rows in sections.items()]
    return "\n\n".join([f"Made with `{command}`. {made_with}", *happened, *words]) + "\n"


def _happened(rows: Sequence[Row]) -> str:
    header = ["fault", "exit", "s", "kept", "next run", "fetched again", "directory then", "orphans"]
    return table(header, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    if not row.outcomes:
        return [row.name, f"not run: {row.skipped}", *[MISSING] * 6]
    found = row.outcomes
    return [
        row.name,
        _together(_end(each) for each in found),
        _range([each.first.wall_s for each in found], ".1f"),
        _range([100 * each.kept / each.needed for each in found], ".0f", " %"),
        _together(_exit(each.second.exit_code) for each in found),
        mib(max(each.again for each in found)),
        _directory(found),
        mib(max(each.orphans for each in found)),
    ]


def _end(outcome: Outcome) -> str:
    return _exit(outcome.first.exit_code) + (", with wrong files" if outcome.is_wrong else "")


def _exit(code: int | None) -> str:
    return f"none in {LIMIT_S:.0f} s" if code is None else str(code)


def _directory(outcomes: Sequence[Outcome]) -> str:
    right = sum(not outcome.problems for outcome in outcomes)
    if len(outcomes) > 1:
        return f"{right} of {len(outcomes)} bit-exact"
    return "bit-exact" if right else _listed(outcomes[0].problems)


def _listed(problems: Sequence[str]) -> str:
    """The first two, and how many more."""
    more = len(problems) - 2
    return "; ".join(problems[:2]) + (f"; and {more} more" if more > 0 else "")


def _together(cells: Iterable[str]) -> str:
    return " or ".join(sorted(set(cells)))


def _range(values: Sequence[float], form: str, unit: str = "") -> str:
    least, most = (f"{value:{form}}" for value in (min(values), max(values)))
    return f"{least}{unit}" if least == most else f"{least} to {most}{unit}"


def _words(rows: Sequence[Row]) -> str:
    said = [[row.name, " / ".join(dict.fromkeys(each.said for each in row.outcomes if each.said))] for row in rows]
    return table(["fault", "said"], [[name, text or MISSING] for name, text in said])


def failures(rows: Sequence[Row]) -> list[str]:
    """Every promise that a row breaks: its exit code; nothing wrong, lost or left over; a bit-exact folder."""
    return [f"{row.name}: {problem}" for row in rows for each in row.outcomes for problem in _failures(row, each)]


def _failures(row: Row, outcome: Outcome) -> list[str]:
    problems = []
    if outcome.first.exit_code not in row.exits:
        wanted = " or ".join(map(str, sorted(row.exits)))
        problems.append(f"exit {_exit(outcome.first.exit_code)}, not {wanted}")
    if outcome.is_wrong:
        problems.append("wrong files were taken for right ones")
    if outcome.lost > RECORD_BYTES:
        problems.append(f"{outcome.lost} bytes that had come before are lost")
    if outcome.second.exit_code != 0:
        problems.append(f"the next run: exit {_exit(outcome.second.exit_code)}")
    if outcome.problems:
        problems.append(f"after the next run: {_listed(outcome.problems)}")
    if outcome.orphans:
        problems.append(f"after the next run: {outcome.orphans} bytes of orphans")
    return problems
