"""A process that works on a directory, and does what its parent says: `check` its lease, `end`.

Everything that it does and says is a line of JSON on stdout.
"""

import argparse
import errno
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

from dsv4_stack.errors import Dsv4Error
from dsv4_stack.guest.checkpoint import lease
from dsv4_stack.guest.checkpoint.lease import Timing
from dsv4_stack.guest.checkpoint.progress import Progress
from helpers.process import ROOT

_PATIENCE_S: Final = 60.0


class Run:
    """The process, seen by its parent."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.pid = process.pid
        self._process = process
        self._read = b""

    def next(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process.stdout
        deadline = monotonic() + _PATIENCE_S
        while b"\n" not in self._read:
            assert select.select([self._process.stdout], [], [], max(0, deadline - monotonic()))[0], "it says nothing"
            self._read += (some := os.read(self._process.stdout.fileno(), 1 << 16))
            assert some, f"it ended with {self._process.wait(_PATIENCE_S)}"
        line, _, self._read = self._read.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def tell(self, word: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{word}\n".encode())
        self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(_PATIENCE_S)


@contextmanager
def started(folder: Path, *options: str, timing: Timing = lease.DEFAULT) -> Iterator[Run]:
    """A run that is killed at the end if it still is there. The options are those of `_main`."""
    times = [f"--{name}={getattr(timing, name)}" for name in ("beat_s", "dead_s", "poll_s")]
    command = [sys.executable, "-m", "helpers.lease_run", str(folder), *times, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield Run(process)
        finally:
            process.kill()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--boot", help="the kernel that it believes to run on")
    parser.add_argument("--no-flock", action="store_true")
    parser.add_argument("--alone", type=Path, help="a file that is there while it works, and fails where it is already")
    parser.add_argument("--clock", type=Path, help="a file that holds the time, in seconds")
    for name in ("--beat_s", "--dead_s", "--poll_s"):
        parser.add_argument(name, type=float)
    args = parser.parse_args()
    if args.boot:
        lease.boot_id = lambda: args.boot  # type: ignore[attr-defined]
    if args.no_flock:
        fcntl.flock = _refused
    if args.clock:
        lease.monotonic = lambda: float(args.clock.read_text())  # type: ignore[attr-defined]
    timing = Timing(beat_s=args.beat_s, dead_s=args.dead_s, poll_s=args.poll_s)
    with lease.held(args.folder, Progress(as_json=True), timing=timing) as held:
        if args.alone:
            args.alone.touch(exist_ok=False)
        _say("held")
        for line in sys.stdin:
            if line == "end\n":
                break
            try:
                held.check()
                _say("sound")
            except Dsv4Error as error:
                _say("lost", error=str(error))
        if args.alone:
            args.alone.unlink()
    _say("ended")


def _refused(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def _say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


if __name__ == "__main__":
    _main()
