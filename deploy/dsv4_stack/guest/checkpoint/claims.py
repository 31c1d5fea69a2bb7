"""Who works on a directory: claims in its `.dsv4`, of which the last one counts.

`lock` is the first. Whoever finds the last one dead becomes its heir with `lock.<nonce of the dead>`: only one can make
that file, however many try at once, and who tries too late has made one that does not follow from `lock`. The heir's
claim then takes the place of the first. The file system has to know O_EXCL and rename, no more, and NFS does:
https://man7.org/linux/man-pages/man2/open.2.html
"""

import errno
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

FIRST: Final = "lock"
_BYTES: Final = 512
_NONCE: Final = re.compile(r"[0-9a-f]{32}")
_GONE: Final = {errno.ENOENT, errno.ESTALE}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`since` is for people only. `flock` names the kernel's lock that the process has, "" where it has none.

    `host` and `pid` are as the process sees them; in a container they say nothing to others.
    """

    nonce: str
    host: str
    pid: int
    since: str
    flock: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} since {self.since}"


@dataclass(frozen=True, kw_only=True)
class Link:
    """A claim as it is on the disk; `claim` is None where the content is none, or not wholly there yet."""

    path: Path
    content: bytes
    claim: Claim | None

    @property
    def heir(self) -> Path:
        return self.path.with_name(f"{FIRST}.{self.claim.nonce}" if self.claim else f"{self.path.name}.unreadable")


def mine(flock: str) -> Claim:
    """A new claim of this process."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Claim(nonce=os.urandom(16).hex(), host=os.uname().nodename, pid=os.getpid(), since=since, flock=flock)


def parse(content: bytes) -> Claim | None:
    """What an earlier or another process wrote, None where it is no claim."""
    try:
        fields = json.loads(content)
        claim = Claim(**{name: fields[name] for name in Claim.__dataclass_fields__})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = (claim.nonce, claim.host, claim.since, claim.flock)
    is_one = type(claim.pid) is int and all(isinstance(text, str) and text.isprintable() for text in texts)
    return claim if is_one and _NONCE.fullmatch(claim.nonce) else None


def chain(state: Path) -> list[Link]:
    """The claims from the first to the one that counts, none where nobody works. Raises OSError."""
    links: list[Link] = []
    # Opening the folder makes an NFS client ask the server what is in it, instead of remembering what was:
    # https://man7.org/linux/man-pages/man5/nfs.5.html, "Data and metadata coherence"
    with suppress(FileNotFoundError):
        os.close(os.open(state, os.O_RDONLY | os.O_DIRECTORY))
    path = state / FIRST
    while (content := _read(path)) is not None:
        link = Link(path=path, content=content, claim=parse(content))
        if any(link.heir == known.path for known in (*links, link)):
            link = replace(link, claim=None)
        links.append(link)
        path = link.heir
    return links


def create(path: Path, claim: Claim) -> int | None:
    """The open file, None where another was first or the folder is gone. Raises OSError."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except (FileExistsError, FileNotFoundError):
        return None
    try:
        write(file, claim, beat=0)
    except BaseException:
        os.close(file)
        path.unlink(missing_ok=True)
        raise
    return file


def write(file: int, claim: Claim, *, beat: int) -> None:
    """In place, so that a process that is no longer the last one, and does not know, changes a file of no effect.

    Always of one length and in one write; whoever finds half of it anyway takes it for a sign of life. Raises OSError.
    """
    os.pwrite(file, json.dumps({**asdict(claim), "beat": beat}).encode().ljust(_BYTES - 1) + b"\n", 0)
    # Another host sees it when it has left this one.
    os.fdatasync(file)


def settle(path: Path, claim: Claim) -> Path:
    """Put the last claim, at `path`, in the place of the first, and take away what no longer counts. Its new path.

    Whose file is gone meanwhile has slept too long, and is not the last one any more. Raises OSError.
    """
    keep = {path, Link(path=path, content=b"", claim=claim).heir}
    for other in set(path.parent.glob(f"{FIRST}.*")) - keep:
        other.unlink(missing_ok=True)
    first = path.with_name(FIRST)
    with suppress(FileNotFoundError):
        path.rename(first)
        return first
    return path


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(8 * _BYTES)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
