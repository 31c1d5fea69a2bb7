"""What a file's bytes are: their number, their sha256, and the name that git gives them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHUNK: Final = 1 << 20
Advance = Callable[[int], None]
"""Is told how many bytes were just done; may raise to stop the work."""


def ignore(_count: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, kw_only=True)
class Digests:
    """`sha256` and `git_sha1` in hex. `git_sha1` is empty where it was not asked for: it costs as much as the other."""

    size: int
    sha256: str
    git_sha1: str = ""


class Hasher:
    """Takes a file's bytes as they come. git hashes the size first, so it has to be told beforehand."""

    def __init__(self, *, git_size: int | None = None) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._git = None if git_size is None else hashlib.sha1(b"blob %d\0" % git_size, usedforsecurity=False)

    def update(self, chunk: bytes | memoryview) -> None:
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._git:
            self._git.update(chunk)

    def digests(self) -> Digests:
        git_sha1 = self._git.hexdigest() if self._git else ""
        return Digests(size=self.size, sha256=self._sha256.hexdigest(), git_sha1=git_sha1)


def of_bytes(content: bytes) -> Digests:
    hasher = Hasher(git_size=len(content))
    hasher.update(content)
    return hasher.digests()


def of_file(path: Path, *, git: bool = False, advance: Advance = ignore) -> Digests:
    """Read the whole file. The interpreter lock is free while it hashes, so threads add up."""
    hasher = Hasher(git_size=path.stat().st_size if git else None)
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            advance(count)
    return hasher.digests()
