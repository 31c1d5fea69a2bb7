"""Every way to fail, each with its own exit code, the same on the host and in the containers.

A message states the fact; `next_step` is the command or the change that helps.
"""

from typing import ClassVar


class Dsv4Error(Exception):
    """Something this program can name went wrong; `main` prints it without a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.next_step}" if self.next_step else self.message


class StaleError(Dsv4Error):
    """A file is not what its sources say: a rendered file, or the lock."""

    exit_code = 1


class UsageError(Dsv4Error):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = 2


class ConfigError(Dsv4Error):
    """Pins, a profile or a model's config.json are invalid."""

    exit_code = 3


class NotFoundError(Dsv4Error):
    """A repository, a revision, a file or an image does not exist."""

    exit_code = 4


class NotAllowedError(Dsv4Error):
    """The other side refused: 401, 403 or a gated repository."""

    exit_code = 5


class IntegrityError(Dsv4Error):
    """Bytes are not the ones that were promised: a hash, a size, or a foreign file."""

    exit_code = 6


class NoSpaceError(Dsv4Error):
    """The disk is too small."""

    exit_code = 7


class NetworkError(Dsv4Error):
    """The network failed or stalled. `wait_s` is how many seconds the other side asks us to wait, 0 if it does not."""

    exit_code = 8

    def __init__(self, message: str, next_step: str = "", *, wait_s: float = 0.0) -> None:
        super().__init__(message, next_step)
        self.wait_s = wait_s


class NoEngineError(Dsv4Error):
    """No usable Docker engine or Compose."""

    exit_code = 9


class NotReadyError(Dsv4Error):
    """The stack is not ready, or what runs is not what was planned, or it answers wrongly."""

    exit_code = 10


class PatchError(Dsv4Error):
    """A patch does not apply, or is not in effect."""

    exit_code = 11


def of_exit_code(code: int) -> type[Dsv4Error]:
    """The error that ended a container with this exit code; the general one where it is none of ours."""
    return next((kind for kind in Dsv4Error.__subclasses__() if kind.exit_code == code > 1), Dsv4Error)


def as_printed(verb: str, code: int, text: str) -> Dsv4Error:
    """The error that a verb of the guest's ended with, of what it printed."""
    fact, _, step = text.strip().removeprefix("error: ").partition("\n  next: ")
    return of_exit_code(code)(fact or f"`{verb}` ended with exit code {code}", step)
