"""The Docker engine and Compose, behind a few functions. The only user of the docker SDK."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import docker
import docker.errors
from docker.models.containers import Container

from dsv4_stack.errors import Dsv4Error, NoEngineError, NotFoundError, as_printed, of_exit_code

# healthcheck.start_interval needs Engine 25, and Compose 2.20.2. Overlays use `!reset`, which early releases heeded for
# the first service alone; its companion `!override` is documented from 2.24.4 on.
# https://github.com/docker/compose/issues/10656, https://docs.docker.com/reference/compose-file/merge/
MINIMUM_ENGINE: Final = (25, 0)
MINIMUM_COMPOSE: Final = (2, 24, 4)
# The engine's, the edge's, Grafana's, and Prometheus's.
_PORTS: Final = ("8000/tcp", "443/tcp", "3000/tcp", "9090/tcp")
# A container that keeps failing is now the one, now the other, and its port is now bound and now not.
_SEE: Final = "see what runs: docker ps --all"
_HOLDS_PORTS: Final = ("running", "restarting")


@dataclass(frozen=True, kw_only=True)
class State:
    """A service's container as the engine sees it. `health` is "" without a health check.

    `says` is what the last health check said, without the word that makes it an error.
    """

    service: str
    container: str
    image: str
    status: str
    health: str
    says: str
    exit_code: int
    labels: dict[str, str]
    started_at: str
    restarts: int
    published: str
    """`address:port` on this machine, of the API or what the service has instead; "" where it is not published now."""
    reserved: str
    """As `published`, of a container that runs or is about to be started again."""


def client() -> docker.DockerClient:
    """A connection to an engine that answers. Raises NoEngineError."""
    try:
        connection = docker.from_env()
        connection.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise NoEngineError(f"no Docker engine answers: {error}", "run: scripts/ensure-docker") from None
    return connection


def versions() -> dict[str, str]:
    """Versions of engine, Compose and buildx, "" for what is not there."""
    return {
        "engine": str(client().version()["Version"]),
        "compose": _output("docker", "compose", "version", "--short"),
        "buildx": _output("docker", "buildx", "version"),
    }


def info() -> dict[str, Any]:
    """What the engine says of itself: runtimes, CDI devices, where it keeps images. Raises NoEngineError."""
    return dict(client().info())


def version_tuple(text: str) -> tuple[int, ...]:
    """The leading numbers of a version, (0,) where there is none."""
    match = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


def compose(files: Sequence[Path], *words: str, to_stdout: bool = False) -> None:
    """Run `docker compose` on rendered files; what it says is progress, so it goes to stderr unless it is the result.

    Raises NoEngineError, Dsv4Error.
    """
    command = [*_compose(files), *words]
    try:
        done = subprocess.run(command, stdout=None if to_stdout else sys.stderr, check=False)
    except FileNotFoundError:
        raise NoEngineError("there is no docker command", "run: scripts/ensure-docker") from None
    if done.returncode:
        raise Dsv4Error(f"`{' '.join(command)}` ended with exit code {done.returncode}", "read what it says above")


def compose_build(files: Sequence[Path], *services: str, env: Mapping[str, str]) -> None:
    """`docker compose build`, passed on to stderr line by line.

    A build step that ended with an exit code of errors.py raises that error (a patch that does not apply: PatchError).
    """
    command = [*_compose(files), "--progress", "plain", "build", *services]
    code = 0
    environment, pipe = {**os.environ, **env}, subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as building:
        for line in building.stdout or ():
            sys.stderr.write(line)
            if found := re.search(r"exit code: (\d+)", line):
                code = int(found[1])
    if building.returncode:
        step = f"a build step ended with exit code {code}" if code else "the build failed"
        raise of_exit_code(code)(f"{step}; what it said stands above", "mend it, and run this again")


def compose_in_background(files: Sequence[Path], *words: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """As `compose`, but not waited for; its output goes to stderr."""
    command = [*_compose(files), *words]
    return subprocess.Popen(command, env={**os.environ, **env}, stdout=sys.stderr)


def _compose(files: Sequence[Path]) -> list[str]:
    return ["docker", "compose", *(word for file in files for word in ("-f", str(file)))]


def states(project: str) -> dict[str, State]:
    """The project's containers by service, running or not."""
    found = client().containers.list(all=True, filters={"label": f"com.docker.compose.project={project}"})
    return {state.service: state for state in map(_state, found)}


def logs(
    state: State, *, follow: bool = False, tail: int | Literal["all"] = "all", whole: bool = False
) -> Iterator[str]:
    """A container's log since its last start or its `whole` log, line by line, stdout and stderr together."""
    since = None if whole else datetime.fromisoformat(state.started_at).timestamp()
    stream = _container(state).logs(stream=True, follow=follow, tail=tail, since=since)
    rest = b""
    for block in stream:
        *lines, rest = (rest + block).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def read_json(state: State, path: str) -> Any:  # noqa: ANN401
    """A JSON file of a running container. Raises NotFoundError."""
    code, text = _exec(state, ["cat", path])
    if code:
        raise NotFoundError(f"{state.service}: {path} cannot be read: {text.strip()}")
    return json.loads(text)


def ask_guest(state: State, verb: str, *words: str) -> Any:  # noqa: ANN401
    """What a verb of the guest's prints as JSON in a running container. Raises the error that it ended with."""
    command = ["python3", "-P", "-B", "-m", "dsv4_stack.guest", verb, *words]
    code, text = _exec(state, command, {"PYTHONPATH": "/opt/dsv4"})
    if code:
        raise as_printed(verb, code, text)
    return json.loads(text)


def _exec(state: State, command: list[str], environment: dict[str, str] | None = None) -> tuple[int, str]:
    try:
        code, output = _container(state).exec_run(command, environment=environment)
    except docker.errors.APIError as error:
        raise NotFoundError(f"{state.service} does not run: {error.explanation}", _SEE) from None
    return int(code or 0), b"".join([output] if isinstance(output, bytes) else output).decode(errors="replace")


def image(reference: str) -> dict[str, Any] | None:
    """What the engine knows of an image, or None where there is none of that name."""
    try:
        return dict(client().images.get(reference).attrs)
    except docker.errors.ImageNotFound:
        return None


def pull(reference: str) -> bool:
    """Whether an image is here, now or after a pull."""
    if image(reference):
        return True
    try:
        client().images.pull(reference)
    except docker.errors.APIError:
        return False
    return True


def _state(container: Container) -> State:
    attributes = container.attrs
    state = attributes["State"]
    return State(
        service=container.labels["com.docker.compose.service"],
        container=str(container.id),
        image=attributes["Config"]["Image"],
        status=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        says=_last_words(state.get("Health", {}).get("Log") or []),
        exit_code=state["ExitCode"],
        labels=dict(container.labels),
        started_at=state["StartedAt"],
        restarts=attributes["RestartCount"],
        published=_address(attributes["NetworkSettings"].get("Ports")),
        reserved=_address(attributes["HostConfig"].get("PortBindings")) if state["Status"] in _HOLDS_PORTS else "",
    )


def _last_words(checks: list[dict[str, Any]]) -> str:
    return str(checks[-1]["Output"]).strip().removeprefix("error: ") if checks else ""


def _address(ports: dict[str, Any] | None) -> str:
    bindings: list[dict[str, str]] = next((found for port in _PORTS if (found := (ports or {}).get(port))), [])
    return f"{bindings[0]['HostIp']}:{bindings[0]['HostPort']}" if bindings else ""


def _container(state: State) -> Container:
    try:
        return client().containers.get(state.container)
    except docker.errors.NotFound:
        raise NotFoundError(f"the container of {state.service} is gone", _SEE) from None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
