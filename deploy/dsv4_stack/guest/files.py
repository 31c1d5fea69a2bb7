"""Files that are there wholly or not at all, also after a power cut; and what a failed write means."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dsv4_stack.errors import Dsv4Error, NoSpaceError, NotFoundError, UsageError

_NFS_KEPT: Final = re.compile(r"\.nfs[0-9A-Fa-f]+")
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_CLOSED: Final = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name what the operating system refuses. Raises NoSpaceError, UsageError, Dsv4Error."""
    try:
        yield
    except OSError as error:
        raise _named(path, error) from error


def _named(path: Path, error: OSError) -> Dsv4Error:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return NoSpaceError(f"{path}: {reason}", f"make room there; see: df -h {path.parent}")
    if error.errno in _CLOSED:
        return UsageError(
            f"{path} cannot be written: {reason}", "choose a folder that this user may write, or mount it read-write"
        )
    return Dsv4Error(f"{path} cannot be written: {reason}", "see the kernel's log for the disk's own words: dmesg")


@contextmanager
def reading(path: Path, mend: str = "run it as a user who may read it") -> Iterator[None]:
    """Name why something cannot be read. Raises NotFoundError, Dsv4Error."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no {path}", "check the path") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise Dsv4Error(f"{path} cannot be read: {reason}", mend) from error


def write_atomically(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Readers see the old file or the new one, never a part. `mode` holds whatever the umask. Raises as `writing`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """With those above it, and so that they outlive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain_files(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below `root` that is no folder, links included, as its path from there with slashes.

    What is the file system's own is left out. Raises NotFoundError where there is no `root`, and Dsv4Error that names
    the folder which cannot be read.
    """
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            with reading(folder), os.scandir(folder) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if is_of_file_system(path):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((Path(entry.path), f"{path}/"))
                    else:
                        yield path, entry
        except NotFoundError:
            # Another run may be at work, and take folders away.
            if not prefix:
                raise


def is_of_file_system(path: str) -> bool:
    """Whether a path below a folder is one that file systems make by themselves.

    ext4 has `lost+found` at the top of a volume; an NFS client keeps a file that is deleted and still open:
    https://man7.org/linux/man-pages/man8/mklost+found.8.html, https://nfs.sourceforge.net/#faq_d2
    """
    top, _, _ = path.partition("/")
    return top == "lost+found" or bool(_NFS_KEPT.fullmatch(path.rpartition("/")[2]))


def amount(size: int) -> str:
    """Bytes for people: `515 bytes`, `461.8 KiB`, `159.0 GiB`."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} bytes"


def count(number: int) -> str:
    """`1 file`, `4 files`."""
    return f"{number} file{'' if number == 1 else 's'}"
