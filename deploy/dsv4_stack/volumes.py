"""Docker's volumes: what has them, and the guest's code over one."""

import subprocess
import sys
from dataclasses import dataclass
from typing import BinaryIO, Final

import docker.errors
from docker.models.containers import Container

from dsv4_stack import engine
from dsv4_stack.errors import NoEngineError, UsageError, as_printed

_GOES_ON: Final = ("running", "restarting", "paused")


@dataclass(frozen=True, kw_only=True)
class User:
    """A container that may write to a volume. `project` is "" where it is none of Compose's."""

    container: str
    project: str
    status: str


def run(
    image: str, volume: str, target: str, *words: str, source: BinaryIO | None = None, out: BinaryIO | None = None
) -> None:
    """Run a verb of the guest's over a volume, from one file or into another.

    Its files are another user's, so this is root, without a network and with no more than that takes. Raises the error
    that it ended with.
    """
    able = [word for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER") for word in ("--cap-add", name)]
    command = ["docker", "run", "--rm", "--interactive", "--pull", "never", "--network", "none", "--read-only"]
    # The image has the label of the project that built it, and `engine.states` would take this for a service of it.
    command += ["--label", "com.docker.compose.project=", "--cap-drop", "ALL", *able, "--user", "0:0"]
    command += ["--volume", f"{volume}:{target}", image, *words]
    try:
        done = subprocess.run(
            command, stdin=source or subprocess.DEVNULL, stdout=out or sys.stderr, stderr=subprocess.PIPE, check=False
        )
    except FileNotFoundError:
        raise NoEngineError("there is no docker command", "run: scripts/ensure-docker") from None
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode:
        raise as_printed(words[0], done.returncode, said)
    print(said, file=sys.stderr)


def names() -> set[str]:
    """The names of those that there are."""
    return {str(volume.name) for volume in engine.client().volumes.list()}


def make(name: str, project: str, key: str) -> None:
    """As Compose would make it for a project, where it stands under this key: one that is not its own it warns of."""
    labels = {"com.docker.compose.project": project, "com.docker.compose.volume": key}
    engine.client().volumes.create(name, labels=labels)


def users(volume: str) -> list[User]:
    """The containers that have a volume and run, or will go on."""
    found = engine.client().containers.list(all=True, filters={"volume": volume}, ignore_removed=True)
    return [_user(container) for container in found if container.status in _GOES_ON]


def _user(container: Container) -> User:
    """Images that Compose built name its project too, so any container of theirs does; its own have a number."""
    labels = container.labels if "com.docker.compose.container-number" in container.labels else {}
    project = labels.get("com.docker.compose.project", "")
    return User(container=str(container.name), project=project, status=str(container.status))


def remove(name: str) -> bool:
    """Whether there was one. Raises UsageError where a container still has it."""
    try:
        engine.client().volumes.get(name).remove()
    except docker.errors.NotFound:
        return False
    except docker.errors.APIError as error:
        raise UsageError(
            f"the volume {name} cannot be deleted: {error.explanation}",
            f"see who has it: docker ps --all --filter volume={name}",
        ) from None
    return True
