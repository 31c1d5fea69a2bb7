"""Resume: kill -9 at a share of the bytes, run again; what is sent twice, and what is left for ever."""

import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from harness import checkpoint, disk
from harness.checkpoint import Checkpoint
from harness.contenders import Contender, Job
from harness.hub import Hub
from harness.processes import Process
from harness.tables import table, times

_LIMIT_S: Final = 600.0
_LOOK_EVERY_S: Final = 0.005


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """In bytes: `needed` for all, `written` when it was killed, `sent` by the Hub in the run after, `orphans` then."""

    needed: int
    written: int
    sent: int
    orphans: int

    @property
    def again(self) -> float:
        """Sent in the second run for each byte that was missing."""
        return self.sent / max(1, self.needed - self.written)


def measure(contender: Contender, hub: Hub, wanted: Checkpoint, place: Path, *, share: float) -> Resumed:
    """Raises ValueError where the second run fails or what it brings is wrong, or where the first ended too early."""
    folder = place / "resume"
    (folder / "home").mkdir(parents=True)
    job = Job(
        url=hub.url,
        repo=wanted.repo,
        revision=hub.revision(wanted.repo),
        paths=tuple(wanted.hashes),
        dest=folder / "dest",
        home=folder / "home",
    )
    hub.forget()
    try:
        with Process(contender.command(job), place / "log") as process:
            wait_for(process, hub, share * wanted.size)
            process.send(signal.SIGKILL)
            if process.end(_LIMIT_S).exit_code != -signal.SIGKILL:
                raise ValueError(f"{contender.name} had ended before it was killed")
        written = disk.written(job.dest)
        hub.forget()
        with Process(contender.command(job), place / "log") as process:
            ended = process.end(_LIMIT_S)
        if ended.exit_code != 0 or (found := checkpoint.problems(wanted, job.dest)):
            raise ValueError(f"{contender.name} ended with {ended.exit_code}:\n{ended.output[-2000:]}{found}")
        return Resumed(
            needed=wanted.size,
            written=min(written, wanted.size),
            sent=hub.sent(),
            orphans=disk.orphans(folder, [f"dest/{path}" for path in wanted.hashes]),
        )
    finally:
        shutil.rmtree(folder)


def wait_for(process: Process, hub: Hub, size: float) -> None:
    """Until the Hub has sent `size` bytes, or the process has ended."""
    while process.is_running() and hub.sent() < size:
        time.sleep(_LOOK_EVERY_S)


def as_table(found: Mapping[Contender, list[Resumed]]) -> str:
    header = ["", "written when killed", "sent by the next run", "per missing byte", "orphans left"]
    rows = [
        [
            contender.name,
            times(median(run.written / run.needed for run in runs)),
            times(median(run.sent / run.needed for run in runs)),
            times(median(run.again for run in runs)),
            times(max(run.orphans / run.needed for run in runs)),
        ]
        for contender, runs in found.items()
    ]
    return table(header, rows)
