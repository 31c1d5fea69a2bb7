"""A scenario: a fault while a tool runs, and the run after it, which shall make everything right."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from harness import checkpoint, disk
from harness.processes import Ended, Process
from harness.stage import Stage

LIMIT_S: Final = 40.0
_SAID_LENGTH: Final = 160


class SkippedError(Exception):
    """This machine cannot produce the fault; the message says why."""


@contextmanager
def healthy(_stage: Stage) -> Iterator[None]:
    yield


def nothing(_stage: Stage, _process: Process) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`fault` surrounds the first run, `during` acts while it runs and may return a remark.

    `exits` are the exit codes that `dsv4 materialize` may end with; outcomes of one name share a row.
    """

    name: str
    exits: frozenset[int]
    fault: Callable[[Stage], AbstractContextManager[None]] = healthy
    during: Callable[[Stage, Process], str] = nothing


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`kept` of `needed` bytes were on the disk when the first run had ended; `again` came in the second all the same.

    `lost` bytes had been there before the first run, and were not after it.

    `is_wrong` says that the first run ended with 0 and a folder that is not as it should be; `problems` and `orphans`
    are what is wrong, and what is left over, after the second.
    """

    first: Ended
    said: str
    needed: int
    kept: int
    lost: int
    is_wrong: bool
    second: Ended
    again: int
    problems: tuple[str, ...]
    orphans: int


def play(scenario: Scenario, stage: Stage) -> Outcome:
    """Both runs. Raises SkippedError."""
    with stage.closing:
        stage.heal()
        with scenario.fault(stage):
            with stage.start() as process:
                remark = scenario.during(stage, process)
                first = process.end(LIMIT_S)
            kept = min(disk.written(stage.dest), stage.wanted.size)
            is_wrong = first.exit_code == 0 and bool(checkpoint.problems(stage.wanted, stage.dest))
            said = _said(first, stage, remark)
        stage.heal()
        with stage.start() as process:
            second = process.end(LIMIT_S)
        return Outcome(
            first=first,
            said=said,
            needed=stage.wanted.size,
            kept=kept,
            lost=max(0, stage.there - kept),
            is_wrong=is_wrong,
            second=second,
            again=max(0, stage.hub.sent() - (stage.wanted.size - kept)),
            problems=tuple(checkpoint.problems(stage.wanted, stage.dest)),
            orphans=disk.orphans(stage.dest, stage.wanted.hashes),
        )


def _said(ended: Ended, stage: Stage, remark: str) -> str:
    """The first line of its error, without what differs from run to run; then the remark."""
    text = first_error(ended)
    for found, name in ((str(stage.dest), "DEST"), (str(stage.folder), "FOLDER"), (stage.endpoint, "HUB")):
        text = text.replace(found, name)
    text = re.sub(r"\b[0-9a-f]{64}\b", "SHA256", re.sub(r"\b[0-9a-f]{40}\b", "REVISION", text))
    if len(text) > _SAID_LENGTH:
        text = f"{text[:_SAID_LENGTH]}…"
    return "; ".join(part for part in (text, remark) if part)


def first_error(ended: Ended) -> str:
    """The line that begins with `error`, in any case, else the last one; nothing where it did not fail by itself."""
    if ended.exit_code is None or ended.exit_code <= 0:
        return ""
    lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
    named = [line for line in lines if line.lower().startswith("error")]
    return (named or lines[-1:] or [""])[0]
