"""Commands in process trees of their own, and what each took: seconds, CPU, memory, disk."""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from harness import disk

_SAMPLE_EVERY_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Command:
    """`env` is all of the environment but PATH."""

    words: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """`exit_code` is None where the process had to be killed because it did not end, -9 where a signal killed it.

    `cpu_s` is user and system time of the whole tree. `output` is everything it said, `read_bytes` what it read(2).
    """

    exit_code: int | None
    wall_s: float
    cpu_s: float
    read_bytes: int
    output: str


class Process:
    """A running command. Leaving the `with` kills what is left of its tree."""

    def __init__(self, command: Command, log: Path) -> None:
        self._log = log
        self._ended: Ended | None = None
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **command.env}
        with log.open("wb") as output:
            self._start = time.perf_counter()
            self._popen = subprocess.Popen(
                command.words,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def is_running(self) -> bool:
        return self._ended is None and not self._wait(0)

    def send(self, number: signal.Signals) -> None:
        """To every process of the tree."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self, limit_s: float) -> Ended:
        """Wait for it; after `limit_s` seconds it is killed."""
        if self._ended:
            return self._ended
        in_time = self._wait(limit_s)
        if not in_time:
            self.send(signal.SIGKILL)
            self._wait(None)
        wall_s = time.perf_counter() - self._start
        read_bytes = _read_bytes(self.pid)
        _, status, usage = os.wait4(self.pid, 0)
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        self._ended = Ended(
            exit_code=self._popen.returncode if in_time else None,
            wall_s=wall_s,
            cpu_s=usage.ru_utime + usage.ru_stime,
            read_bytes=read_bytes,
            output=self._log.read_text(errors="replace"),
        )
        return self._ended

    def _wait(self, limit_s: float | None) -> bool:
        """Whether it has ended; it is not reaped yet, so that /proc still knows it."""
        handle = os.pidfd_open(self.pid)
        try:
            return bool(select.select([handle], [], [], limit_s)[0])
        finally:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended is None:
            self.send(signal.SIGKILL)
            self.end(60)
        self.send(signal.SIGKILL)  # what the command left running


class Watch:
    """Looks at a process and at folders while it runs. `rss_bytes` is of the largest process, `disk_bytes` of all."""

    def __init__(self, process: Process, folders: Iterable[Path]) -> None:
        self.rss_bytes = 0
        self.disk_bytes = 0
        self._process = process
        self._folders = tuple(folders)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        self.rss_bytes = max(self.rss_bytes, *map(_high_water, tree(self._process.pid)))
        self.disk_bytes = max(self.disk_bytes, disk.allocated(self._folders))

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.disk_bytes = max(self.disk_bytes, disk.allocated(self._folders))


def tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from tree(int(child))


def _high_water(pid: int) -> int:
    # Not getrusage's ru_maxrss: after exec it still counts the memory of the process that forked.
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _read_bytes(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/io").read_text().split()[1])
    return 0
