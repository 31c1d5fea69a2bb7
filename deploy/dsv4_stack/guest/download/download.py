"""What is to be fetched, and who hears of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dsv4_stack.guest.digests import Advance, Digests
from dsv4_stack.guest.download.address import Address
from dsv4_stack.guest.download.partial import Watch

Otherwise = Callable[[Path, Advance], None]
"""Another way to bring a file that plain HTTP refuses: writes it apart, and renames it to a path when it is whole.

Its `advance` is told of the bytes that are there as soon as there are any, and raises to stop it."""


class Listener(Protocol):
    """Is told how the work goes, from every thread; `checkpoint.progress.Progress` is one."""

    def say(self, event: str, text: str, **fields: object) -> None: ...
    def advance(self, path: str, count: int) -> None: ...
    def reuse(self, path: str, count: int) -> None: ...
    def retreat(self, path: str) -> None: ...


def identity_of(sha256: str | None, git_sha1: str | None) -> str:
    """What an earlier run must have been after, for this one to go on with what it left."""
    return sha256 or f"git:{git_sha1}"


class Quiet:
    """A listener for files too small to be worth a word."""

    def say(self, event: str, text: str, **fields: object) -> None:
        """No."""

    def advance(self, path: str, count: int) -> None:
        """No."""

    def reuse(self, path: str, count: int) -> None:
        """No."""

    def retreat(self, path: str) -> None:
        """No."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file of `size` bytes to fetch to `target`. It has a promised `sha256`, or at least a `git_sha1`.

    `path` is its name for people. `otherwise_there` bytes are there that another way has brought.
    """

    path: str
    address: Address
    target: Path
    size: int
    sha256: str | None
    git_sha1: str | None
    watch: Watch | None = None
    otherwise: Otherwise | None = None
    otherwise_there: int = 0

    @property
    def identity(self) -> str:
        return identity_of(self.sha256, self.git_sha1)

    def problem(self, found: Digests) -> str:
        """Why these are not the promised bytes, or nothing."""
        if self.sha256:
            return "" if found.sha256 == self.sha256 else f"sha256 is {found.sha256}, {self.sha256} was promised"
        same = found.git_sha1 == self.git_sha1
        return "" if same else f"the git hash is {found.git_sha1}, {self.git_sha1} was promised"
