"""The demo's stack with an engine that misbehaves on demand: the committed compose files, in a project of their own."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from helpers.process import ROOT, run, succeed
from helpers.wait import wait_until
from helpers.watched import free_port

DEMO: Final = ROOT / "compose/compose.demo.yaml"
STANDIN: Final = ROOT / "tests/standin/compose.yaml"
PROMPT: Final = "abcdef"


@dataclass
class Stack:
    """A running project. `port` is where the engine's API is published, where it is."""

    project: str
    files: tuple[Path, ...]
    env: dict[str, str]
    port: int
    weights: Path
    streams: list[Any] = field(default_factory=list)

    def compose(self, *words: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        named = [word for file in self.files for word in ("-f", str(file))]
        return run("docker", "compose", "-p", self.project, *named, *words, timeout=timeout, env=self.env)

    def up(self, *words: str, timeout: float = 180) -> None:
        done = self.compose("up", "--detach", "--no-build", *words, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr

    def container(self, service: str = "serve") -> str:
        return f"{self.project}-{service}-1"

    def inspect(self, service: str = "serve") -> dict[str, Any]:
        return dict(json.loads(succeed("docker", "inspect", self.container(service), timeout=30).stdout)[0])

    def health(self) -> str:
        return str(self.inspect()["State"].get("Health", {}).get("Status", ""))

    def log(self, service: str = "serve") -> str:
        done = succeed("docker", "logs", self.container(service), timeout=30)
        return done.stdout + done.stderr

    def state(self) -> dict[str, Any]:
        """What the watch says; nothing while its container does not run."""
        done = run("docker", "exec", self.container(), "cat", "/run/dsv4/state.json", timeout=30)
        return dict(json.loads(done.stdout)) if done.returncode == 0 and done.stdout else {}

    def wait_for(self, state: str, *, seconds: float = 120) -> None:
        found = wait_until(lambda: self.state().get("state") == state, timeout_s=seconds, interval_s=0.2)
        assert found, f"{self.state()}\n{self.log()}"

    def fault(self, name: str) -> None:
        """From inside, past the door."""
        code = (
            "import glob, http.client, json\n"
            "for path in glob.glob('/proc/[0-9]*/environ'):\n"
            "    try: entries = dict(e.split('=', 1) for e in open(path).read().split('\\0') if '=' in e)\n"
            "    except OSError: continue\n"
            "    if 'DSV4_PASS' in entries: break\n"
            "connection = http.client.HTTPConnection('127.0.0.1', 8000, timeout=5)\n"
            f"body, headers = json.dumps({{'fault': '{name}'}}), {{'X-Dsv4-Pass': entries['DSV4_PASS']}}\n"
            "connection.request('POST', '/standin', body, headers)\n"
            "connection.getresponse().read()\n"
        )
        done = run("docker", "exec", self.container(), "python3", "-c", code, timeout=30)
        assert done.returncode == 0 or name == "crash", done.stderr

    def ask(self, path: str = "/health", body: object = None, *, timeout: float = 10) -> tuple[int, bytes]:
        """(0, b"") where nobody answers."""
        return ask(self.port, path, body, timeout=timeout)

    def complete(self, count: int = 4) -> str:
        """The answer's text, or the status that came instead."""
        status, body = self.ask("/v1/completions", {"model": "tiny-counter", "prompt": PROMPT, "max_tokens": count})
        return str(json.loads(body)["choices"][0]["text"]) if status == 200 else str(status)


def ask(port: int, path: str, body: object = None, *, timeout: float = 10) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()


@contextmanager
def stack(
    project: str,
    image: str,
    folder: Path,
    *overlays: Path,
    env: Mapping[str, str] | None = None,
    under: tuple[Path, ...] = (DEMO, STANDIN),
) -> Iterator[Stack]:
    """Prepared, and taken down in the end with its volumes.

    `image` is the stand-in's serve image; with `under` the demo's file alone, its own engine serves.
    """
    port = free_port()
    settings = {
        "STANDIN_IMAGE": image,
        "DSV4_WEIGHTS_DIR": str(folder / "weights"),
        "DSV4_PORT": str(port),
        "DSV4_STANDIN_PROJECT": project,
        **(env or {}),
    }
    found = Stack(
        project=project,
        files=(*under, *overlays),
        env=settings,
        port=port,
        weights=folder / "weights/tiny-counter-long",
    )
    try:
        yield found
    finally:
        done = found.compose("down", "--volumes", "--remove-orphans", "--timeout", "30")
        assert done.returncode == 0 or os.environ.get("PYTEST_CURRENT_TEST") is None, done.stderr
