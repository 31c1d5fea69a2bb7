"""Cold: everything is fetched into an empty folder; wall, CPU, memory and disk of each contender, round by round."""

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness import checkpoint, disk
from harness.checkpoint import Checkpoint
from harness.contenders import Contender, Job
from harness.hub import Hub
from harness.processes import Process, Watch
from harness.rounds import Rounds
from harness.tables import number, table, times

_LIMIT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """`wall_s` ends with the process; `synced_s` when the file system has it all as well. The disk's are at the peak
    and in the end. `hub_cpu_s` is what the Hub took meanwhile."""

    wall_s: float
    synced_s: float
    cpu_s: float
    hub_cpu_s: float
    rss_bytes: int
    peak_bytes: int
    left_bytes: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The medians of a contender's runs, and what its files need."""

    contender: Contender
    runs: tuple[Run, ...]
    needed: int

    @property
    def wall_s(self) -> float:
        return median(run.wall_s for run in self.runs)

    @property
    def synced_s(self) -> float:
        return median(run.synced_s for run in self.runs)

    @property
    def cpu_s_per_gb(self) -> float:
        return median(run.cpu_s for run in self.runs) / (self.needed / 1e9)

    @property
    def hub_cpu_s_per_gb(self) -> float:
        return median(run.hub_cpu_s for run in self.runs) / (self.needed / 1e9)

    @property
    def rss_bytes(self) -> int:
        return max(run.rss_bytes for run in self.runs)

    @property
    def peak(self) -> float:
        return max(run.peak_bytes for run in self.runs) / self.needed

    @property
    def left(self) -> float:
        return max(run.left_bytes for run in self.runs) / self.needed


def measure(
    contenders: Sequence[Contender], hub: Hub, wanted: Checkpoint, place: Path, rounds: Rounds
) -> dict[Contender, Figures]:
    """The runs of each contender that is installed, in turns; what the first one brings is compared with `wanted`.

    Raises ValueError where a contender fails or brings wrong bytes.
    """
    there = [contender for contender in contenders if contender.is_there]
    runs: dict[Contender, list[Run]] = {contender: [] for contender in there}
    for turn, counts in enumerate(rounds):
        shift = turn % len(there)
        for contender in there[shift:] + there[:shift]:
            run = _run(contender, hub, wanted, place, check=turn == 0)
            runs[contender] += [run] if counts else []
    needed = disk.allocated([wanted.folder])
    return {each: Figures(contender=each, runs=tuple(found), needed=needed) for each, found in runs.items()}


def _run(contender: Contender, hub: Hub, wanted: Checkpoint, place: Path, *, check: bool) -> Run:
    folder = place / "run"
    dest, home = folder / "dest", folder / "home"
    home.mkdir(parents=True)
    job = Job(
        url=hub.url,
        repo=wanted.repo,
        revision=hub.revision(wanted.repo),
        paths=tuple(wanted.hashes),
        dest=dest,
        home=home,
    )
    try:
        _sync(place)
        hub_cpu_s = hub.cpu_s()
        with Process(contender.command(job), place / "log") as process, Watch(process, [folder]) as watch:
            ended = process.end(_LIMIT_S)
        hub_cpu_s = hub.cpu_s() - hub_cpu_s
        start = time.perf_counter()
        _sync(place)
        synced_s = time.perf_counter() - start
        if ended.exit_code != 0:
            raise ValueError(f"{contender.name} ended with {ended.exit_code}:\n{ended.output[-2000:]}")
        if check and (found := checkpoint.problems(wanted, dest)):
            raise ValueError(f"{contender.name}: {', '.join(found)}")
        return Run(
            wall_s=ended.wall_s,
            synced_s=ended.wall_s + synced_s,
            cpu_s=ended.cpu_s,
            hub_cpu_s=hub_cpu_s,
            rss_bytes=watch.rss_bytes,
            peak_bytes=watch.disk_bytes,
            left_bytes=disk.allocated([folder]),
        )
    finally:
        shutil.rmtree(folder)


def _sync(folder: Path) -> None:
    subprocess.run(["sync", "--file-system", folder], check=True)


def as_table(contenders: Sequence[Contender], figures: Mapping[Contender, Figures], unit: Contender) -> str:
    """A row for each; ratios are to `unit`, of the time until the file system has it all."""
    header = [
        "",
        "s",
        f"x {unit.name.partition(',')[0]}",
        "s with sync",
        "x",
        "CPU-s/GB",
        "Hub's",
        "RSS MiB",
        "disk, peak",
        "left",
    ]
    base = figures.get(unit)
    rows = [_row(contender, figures.get(contender), base) for contender in contenders]
    return table(header, rows)


def _row(contender: Contender, found: Figures | None, base: Figures | None) -> list[str]:
    if found is None:
        return [contender.name, "not installed", *[""] * 8]
    return [
        contender.name,
        number(found.wall_s),
        times(found.wall_s / base.wall_s if base else None),
        number(found.synced_s),
        times(found.synced_s / base.synced_s if base else None),
        number(found.cpu_s_per_gb),
        number(found.hub_cpu_s_per_gb),
        number(found.rss_bytes / 2**20, digits=0),
        times(found.peak),
        times(found.left),
    ]
