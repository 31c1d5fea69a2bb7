"""The engine's processes as /proc shows them: who runs, how far they came, and their stacks on demand."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
# Reading and memory grow all the time by a little; a start that goes on moves more.
_COARSE: Final = 16 << 20
_STACKS_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Process:
    """`state` is the kernel's letter: R runs, S sleeps, D waits for a disk, T was stopped, Z is dead."""

    pid: int
    parent: int
    name: str
    state: str
    read: int
    """Bytes, from whatever."""
    resident: int
    """Bytes of memory."""


def tree(root: int) -> list[Process]:
    """The process `root` and all below it."""
    children: dict[int, list[Process]] = {}
    found = {process.pid: process for process in _all()}
    for process in found.values():
        children.setdefault(process.parent, []).append(process)
    return list(_below(found[root], children)) if root in found else []


def _below(process: Process, children: dict[int, list[Process]]) -> Iterator[Process]:
    yield process
    for child in children.get(process.pid, ()):
        yield from _below(child, children)


def _all() -> Iterator[Process]:
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            try:
                yield _process(folder)
            except (OSError, ValueError, IndexError):
                continue  # it ended meanwhile


def _process(folder: Path) -> Process:
    # The name stands in brackets, and may hold spaces and brackets itself.
    head, _, tail = (folder / "stat").read_text().rpartition(")")
    fields = tail.split()
    return Process(
        pid=int(folder.name),
        parent=int(fields[1]),
        name=_title(folder) or head.partition("(")[2],
        state=fields[0],
        read=_read_bytes(folder),
        resident=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    )


def _title(folder: Path) -> str:
    """What the process calls itself, like `VLLM::Worker_TP0`; else the end of its program and script."""
    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    named = [Path(word).name for word in words[:2] if word and not word.startswith("-")]
    return words[0].strip() if words[0].startswith("VLLM::") else " ".join(named)


def _read_bytes(folder: Path) -> int:
    try:
        return int((folder / "io").read_text().split()[1])
    except (OSError, IndexError):
        return 0  # another user's


def progress(processes: list[Process], caches: Path) -> tuple[object, ...]:
    """Something that differs as long as a start goes on: weights are read, kernels compiled, memory is taken.

    Time on the processor is no progress: ranks that wait for each other for ever spin.
    """
    names = tuple(sorted((process.pid, process.name) for process in processes))
    read = sum(process.read for process in processes) // _COARSE
    resident = sum(process.resident for process in processes) // _COARSE
    return names, read, resident, _compiled(caches)


def _compiled(folder: Path) -> int:
    """When the newest folder of the kernel caches was written to, in nanoseconds."""
    newest = 0
    for path, _, _ in os.walk(folder):
        try:
            newest = max(newest, os.stat(path).st_mtime_ns)  # noqa: PTH116
        except OSError:
            continue
    return newest


def stacks(processes: list[Process], folder: Path) -> dict[int, str]:
    """Each Python process's stacks by pid: py-spy's where it is there, else what hooks/sitecustomize.py writes."""
    spy = shutil.which("py-spy")
    found = {process.pid: _spied(spy, process.pid) for process in processes} if spy else {}
    found = {pid: text for pid, text in found.items() if text}
    return found | _dumped([each for each in processes if each.pid not in found], folder)


def _spied(spy: str, pid: int) -> str:
    try:
        done = subprocess.run(
            [spy, "dump", "--nonblocking", "--pid", str(pid)], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _dumped(processes: list[Process], folder: Path) -> dict[int, str]:
    before = {}
    for process in processes:
        file = folder / str(process.pid)
        # The signal kills a process that does not catch it.
        if file.exists() and _catches(process.pid, signal.SIGUSR2):
            before[process.pid] = file.stat().st_size
            os.kill(process.pid, signal.SIGUSR2)
    time.sleep(_STACKS_S if before else 0)
    return {pid: text for pid, size in before.items() if (text := _from(folder / str(pid), size))}


def _catches(pid: int, number: signal.Signals) -> bool:
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def _from(file: Path, size: int) -> str:
    try:
        return file.read_bytes()[size:].decode(errors="replace")
    except OSError:
        return ""
