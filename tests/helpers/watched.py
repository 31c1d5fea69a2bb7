"""The supervisor over the engine's stand-in, as processes of their own: what a container holds, without a container."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from helpers.process import ROOT
from helpers.wait import wait_until

STANDIN = ROOT / "tests/standin/vllm.py"
DRIVER = """
import json, sys
from pathlib import Path
from dsv4_stack.guest.cli import Verb, dispatch
from dsv4_stack.guest.serving import patience, question, supervisor

def run():
    given = json.loads(sys.argv[1])
    site = supervisor.Site(model=Path(given["model"]), run=Path(given["run"]), caches=Path(given["caches"]),
                           port=given["port"], notice_port=given["notice"])
    asked = question.of_json(given["question"]) if given["question"] else None
    return supervisor.Supervisor(site, given["command"], asked, patience.Patience(**given["patience"])).run()

try:
    sys.exit(run())
except supervisor.Dsv4Error as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""
QUESTION = {"model": "model", "prompt": "abc", "max_tokens": 3, "expect": "^def$", "token_ids": [100]}


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """All different: each is held until all are chosen."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@dataclass
class Watched:
    """A running supervisor. `port` is the engine's."""

    folder: Path
    process: subprocess.Popen[bytes]
    port: int
    notice: int
    log: Path
    streams: list[HTTPConnection] = field(default_factory=list)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ask(self, method: str, path: str, body: object = None, *, port: int | None = None) -> tuple[int, str]:
        """(0, "") where nobody answers."""
        connection = HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, HTTPException):
            return 0, ""
        finally:
            connection.close()

    def complete(self, count: int = 3) -> tuple[int, str]:
        status, text = self.ask("POST", "/v1/completions", {"prompt": "abc", "max_tokens": count})
        return status, json.loads(text)["choices"][0]["text"] if status == 200 else text

    def fault(self, name: str) -> None:
        secret = self.variable("DSV4_PASS")
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("POST", "/standin", json.dumps({"fault": name}), {"X-Dsv4-Pass": secret})
            connection.getresponse().read()
        except (OSError, HTTPException):
            assert name == "crash"
        finally:
            connection.close()

    @property
    def engine(self) -> int:
        """The stand-in's process."""
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)

    def variable(self, name: str) -> str:
        """Of the stand-in's environment."""
        entries = Path(f"/proc/{self.engine}/environ").read_bytes().decode().split("\0")
        return dict(entry.split("=", 1) for entry in entries if entry)[name]

    @property
    def ready(self) -> tuple[int, str]:
        return self.ask("GET", "/ready", port=self.notice)

    def wait(self, start: str, *, seconds: float = 60) -> None:
        """Until /ready begins so."""
        assert wait_until(lambda: self.ready[1].startswith(start), timeout_s=seconds, interval_s=0.05), self.said

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "run/state.json").read_text()))


@contextmanager
def watched(
    folder: Path,
    *,
    patience: Mapping[str, float] | None = None,
    question: Mapping[str, object] | None = QUESTION,
    env: Mapping[str, str] | None = None,
    words: tuple[str, ...] = (),
) -> Iterator[Watched]:
    """Started, and killed in the end with whatever is left of it."""
    for name in ("run", "caches"):
        (folder / name).mkdir(exist_ok=True)
    port, notice = free_ports(2)
    log = folder / "log"
    given = {
        "model": str(folder / "model"),
        "run": str(folder / "run"),
        "caches": str(folder / "caches"),
        "port": port,
        "notice": notice,
        "question": json.dumps(question) if question else "",
        "patience": patience or {},
        "command": [sys.executable, str(STANDIN), "serve", "DIR", "--port", str(port), *words],
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(given)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    found = Watched(folder=folder, process=process, port=port, notice=notice, log=log)
    try:
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
