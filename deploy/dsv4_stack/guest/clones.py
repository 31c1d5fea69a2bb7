"""Bytes that are on this machine already: shared with another file, or else copied and hashed on the way."""

import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from dsv4_stack.errors import IntegrityError
from dsv4_stack.guest.digests import CHUNK, Advance, Digests, Hasher
from dsv4_stack.guest.files import reading, writing

# In Python's fcntl since 3.14 only: https://man7.org/linux/man-pages/man2/ioctl_ficlone.2.html
_FICLONE: Final = 0x40049409
_ROOT: Final = 0


class Way(StrEnum):
    """`reflink`: two files that share blocks until one is written. `hard_link`: one file with two names."""

    REFLINK = "reflink"
    HARD_LINK = "hard_link"
    COPY = "copy"


def share(source: Path, target: Path) -> Way | None:
    """Make `target`, which must not exist, the same bytes as `source` without copying, on the disk when it returns.

    None, and no target, where that is not possible: another mount, no right to, too many links. `source` stays as it
    is; where it is a symlink, the file that it leads to is meant. A reflink has its own mode and mtime, and nothing
    that happens to one file shows in the other. A hard link has the mode and mtime of its source, and whoever writes
    into that in place writes into this: so only a file is linked that nobody but its owner and group may write, that
    belongs to us or to root, and that everybody may read who could read one of ours. Raises as `reading` and `writing`.
    """
    with _opened(source) as (origin, path), writing(target):
        if not stat.S_ISREG(os.fstat(origin).st_mode):
            return None
        with target.open("xb") as made, removed_on_failure(target):
            ours = os.fstat(made.fileno())
            if _reflink(origin, made.fileno()):
                os.fsync(made.fileno())
                return Way.REFLINK
            target.unlink()
        if not _is_linkable(os.fstat(origin), ours) or not _hard_link(path, origin, target):
            return None
        with removed_on_failure(target):
            os.fsync(origin)
        return Way.HARD_LINK


def is_near(source: Path, folder: Path) -> bool:
    """Whether `share` is to be expected between them, without trying: bind mounts of one disk are apart."""
    with suppress(OSError):
        return _mount(source) == _mount(folder)
    return False


def can_share(source: Path, folder: Path) -> bool:
    """Whether `share` will do, as far as can be told without trying; a clone may succeed where this says no."""
    with suppress(OSError):
        ours = folder.stat()
        return is_near(source, folder) and _is_linkable(source.stat(), ours)
    return False


def copy(source: Path, target: Path, *, advance: Advance, git: bool = False) -> Digests:
    """Copy to `target`, which must not exist, and hash on the way; it is on the disk when this returns.

    Raises IntegrityError where the source changes meanwhile, and as `reading` and `writing` do; no target is left then.
    """
    with _opened(source) as (origin, _), writing(target):
        before = os.fstat(origin)
        hasher = Hasher(git_size=before.st_size if git else None)
        with target.open("xb") as made, removed_on_failure(target):
            for chunk in _chunks(origin, source):
                made.write(chunk)
                hasher.update(chunk)
                advance(len(chunk))
                if hasher.size > before.st_size:
                    break
            made.flush()
            os.fsync(made.fileno())
            if (hasher.size, os.fstat(origin).st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise IntegrityError(
                    f"{source} changed while it was copied", "wait until nobody writes it, then run it again"
                )
    return hasher.digests()


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """Leave no part of a file that did not become whole."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


@contextmanager
def _opened(source: Path) -> Iterator[tuple[int, Path]]:
    """A handle to the file that `source` is or leads to, and that file's own path. Raises as `reading` does."""
    with reading(source):
        path = Path(os.path.realpath(source, strict=True))
        # Without O_NONBLOCK a pipe that took the file's place would keep us waiting for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield handle, path
    finally:
        os.close(handle)


def _chunks(origin: int, source: Path) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(CHUNK))
    while True:
        with reading(source):
            count = os.readv(origin, [buffer])
        if not count:
            return
        yield buffer[:count]


def _reflink(origin: int, made: int) -> bool:
    with suppress(OSError):
        fcntl.ioctl(made, _FICLONE, origin)
        return True
    return False


def _is_linkable(theirs: os.stat_result, ours: os.stat_result) -> bool:
    """`ours` is how a file looks that we make: the same bits of reading, unless the other is for everybody."""
    if theirs.st_uid not in (_ROOT, ours.st_uid) or theirs.st_mode & stat.S_IWOTH:
        return False
    same_people = (theirs.st_uid, theirs.st_gid) == (ours.st_uid, ours.st_gid)
    readable = theirs.st_mode & 0o444
    return readable == 0o444 or (same_people and not ours.st_mode & 0o444 & ~readable)


def _hard_link(path: Path, origin: int, target: Path) -> bool:
    """The name may have gone to another file since it was opened, and some file systems copy what they cannot link."""
    with suppress(OSError):
        os.link(path, target, follow_symlinks=False)
        if os.path.samestat(os.fstat(origin), target.lstat()):
            return True
        target.unlink()
    return False


def _mount(path: Path) -> tuple[int, str]:
    """Links do not go from one mount to another, even of one file system, and reflinks only on newer kernels."""
    if not sys.platform.startswith("linux"):
        return path.stat().st_dev, ""
    handle = os.open(path, os.O_PATH)
    try:
        lines = Path(f"/proc/self/fdinfo/{handle}").read_text(encoding="ascii").splitlines()
        return os.fstat(handle).st_dev, next((line for line in lines if line.startswith("mnt_id:")), "")
    finally:
        os.close(handle)
