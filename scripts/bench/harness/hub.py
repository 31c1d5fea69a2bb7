"""The Hub's stand-in as a process of its own, told over HTTP what to do wrong."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from harness.processes import Command, Process

_START_S: Final = 20.0
_ANSWER_S: Final = 120.0  # the first listing hashes every file


class Hub:
    """`url` is what goes into HF_ENDPOINT."""

    def __init__(self, port: int, pid: int) -> None:
        self._port = port
        self._pid = pid
        self.url = f"http://127.0.0.1:{port}"

    def is_up(self) -> bool:
        try:
            return self._ask("GET", "/healthz") == {"status": "ok"}
        except (OSError, HTTPException):
            return False

    def revision(self, repo: str) -> str:
        """The commit that `main` is now."""
        return str(self._ask("GET", f"/api/models/{repo}/revision/main")["sha"])

    def set(self, **faults: object) -> None:
        """These faults and no others; they are the fields of `guest.demo.faults.Faults`."""
        self._ask("POST", "/__faults", faults)

    def forget(self) -> None:
        """Count from zero."""
        self._ask("POST", "/__stats", {})

    def sent(self) -> int:
        """Bytes of files that were sent since."""
        return sum(self._ask("GET", "/__stats")["sent"].values())

    def requests(self) -> int:
        return len(self._ask("GET", "/__stats")["requests"])

    def cpu_s(self) -> float:
        """Seconds of processor time since its start, user and system."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _ask(self, method: str, path: str, document: object | None = None) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_S)
        try:
            connection.request(method, path, None if document is None else json.dumps(document))
            answer = connection.getresponse()
            body = answer.read()
            if answer.status not in (200, 204):
                raise ValueError(f"{method} {path} -> {answer.status} {body!r}")
            return dict(json.loads(body or b"{}"))
        finally:
            connection.close()


@contextmanager
def serving(root: Path, log: Path) -> Iterator[Hub]:
    """A Hub that serves `root`, in another process."""
    port = free_port()
    words = (sys.executable, "-m", "dsv4_stack.guest", "demo-hub", str(root), "--control", "--port", str(port))
    with Process(Command(words=words, env={"HOME": os.devnull}), log) as process:
        hub = Hub(port, process.pid)
        limit = time.monotonic() + _START_S
        while not hub.is_up():
            if not process.is_running() or time.monotonic() > limit:
                raise OSError(f"the Hub's stand-in does not start: {log.read_text()}")
            time.sleep(0.02)
        yield hub


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
