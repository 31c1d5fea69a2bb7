"""What is put into trouble: a plain container of the engine, and the stack; both over the engine that misbehaves."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from helpers.stacks import PROMPT, Stack, ask, stack
from helpers.watched import free_port

ANSWER_S: Final = 2.0
RIGHT: Final = "ghij"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What Docker says of the engine's container."""

    status: str
    health: str
    restarts: int
    exit_code: int


class Subject(Protocol):
    """Something that serves. `port` is where."""

    name: str
    port: int
    weights: Path

    def start(self) -> str:
        """What was said where it could not be started; nothing where it was."""

    def container(self) -> str: ...

    def log(self, since: str = "") -> str:
        """With the times that Docker puts before each line."""

    def fault(self, name: str) -> None: ...

    def restart(self) -> None:
        """As its user would, after a change."""

    def stop(self) -> None: ...


class Plain:
    """`docker run … vllm serve`, with a restart policy and a health check that asks /health, as vLLM's docs have it."""

    name = "vllm serve"

    def __init__(self, image: str, folder: Path, env: Mapping[str, str], *, cache: str = "") -> None:
        self.port = free_port()
        self.weights = folder / "weights/tiny-counter-long"
        self._image, self._env, self._cache = image, env, cache
        self._name = f"dsv4-plain-{self.port}"

    def start(self) -> str:
        health = "python3 -c \"import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=3)\""
        words = ["--name", self._name, "--restart", "unless-stopped", "--publish", f"127.0.0.1:{self.port}:8000"]
        words += ["--health-cmd", health, "--health-interval", "1s", "--health-retries", "3", "--health-timeout", "4s"]
        words += ["--health-start-period", f"{self._env.get('STANDIN_READY_S', '60')}s", "--entrypoint", "vllm"]
        words += [word for name, value in self._env.items() for word in ("--env", f"{name}={value}")]
        words += ["--volume", f"{self.weights}:/model:ro"]
        words += ["--mount", self._cache] if self._cache else []
        serve = ["serve", "/model", "--host", "0.0.0.0", "--port", "8000", "--served-model-name", "tiny-counter"]  # noqa: S104
        return _docker("run", "--detach", "--init", *words, self._image, *serve)

    def container(self) -> str:
        return self._name

    def log(self, since: str = "") -> str:
        return _log(self._name, since)

    def fault(self, name: str) -> None:
        code = "import http.client as h, json; c = h.HTTPConnection('127.0.0.1', 8000, timeout=5); "
        code += f"c.request('POST', '/standin', json.dumps({{'fault': '{name}'}})); c.getresponse().read()"
        _docker("exec", self._name, "python3", "-c", code)

    def restart(self) -> None:
        _docker("restart", "--time", "10", self._name)

    def stop(self) -> None:
        _docker("rm", "--force", "--volumes", self._name)


class Ours:
    """The demo's stack with the stand-in as its engine."""

    name = "the stack"

    def __init__(self, running: Stack) -> None:
        self.stack = running
        self.port, self.weights = running.port, running.weights

    def build(self, service: str) -> str:
        """What was said where it could not be built."""
        done = self.stack.compose("build", service, timeout=600)
        return done.stderr if done.returncode else ""

    def start(self) -> str:
        done = self.stack.compose("up", "--detach", "--no-build")
        return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    def container(self) -> str:
        return self.stack.container()

    def log(self, since: str = "") -> str:
        return _log(self.container(), since)

    def fault(self, name: str) -> None:
        self.stack.fault(name)

    def restart(self) -> None:
        self.stack.compose("restart", "serve")

    def stop(self) -> None:
        """Its context takes it down."""


@contextmanager
def plain(image: str, folder: Path, env: Mapping[str, str], *, cache: str = "") -> Iterator[Plain]:
    subject = Plain(image, folder, env, cache=cache)
    try:
        yield subject
    finally:
        subject.stop()


@contextmanager
def ours(image: str, folder: Path, env: Mapping[str, str], *overlays: Path) -> Iterator[Ours]:
    with stack("dsv4-faults", image, folder, *overlays, env=env) as running:
        yield Ours(running)


def look(subject: Subject) -> Look:
    found: Any = json.loads(_docker("inspect", subject.container(), keep=True) or "[]")
    if not found:
        return Look(status="not there", health="", restarts=0, exit_code=0)
    state = found[0]["State"]
    return Look(
        status=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        restarts=found[0]["RestartCount"],
        exit_code=state["ExitCode"],
    )


def outcome(subject: Subject) -> str:
    """What a user gets who asks once: right, wrong, refused (503), nobody, or no answer."""
    began = time.monotonic()
    body = {"model": "tiny-counter", "prompt": PROMPT, "max_tokens": len(RIGHT)}
    status, text = ask(subject.port, "/v1/completions", body, timeout=ANSWER_S)
    if status == 200:
        return "right" if json.loads(text)["choices"][0]["text"] == RIGHT else "WRONG with 200"
    if status:
        return f"refused with {status}"
    return "no answer" if time.monotonic() - began >= ANSWER_S else "nobody there"


def _log(container: str, since: str) -> str:
    return _docker("logs", "--timestamps", *(["--since", since] if since else []), container, keep=True)


def _docker(*words: str, keep: bool = False) -> str:
    """What went wrong, or with `keep` what was said."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=120)
    if keep:
        return done.stdout + (done.stderr if words[0] == "logs" else "")
    return trouble(done.stderr) if done.returncode else ""


def trouble(said: str) -> str:
    """The last thing that docker said, without its advice."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and "--help" not in line]
    return lines[-1].removeprefix("docker: ") if lines else "no word"
