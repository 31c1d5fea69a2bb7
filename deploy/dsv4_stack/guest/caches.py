"""An engine's compiled kernels as an archive, so that a fleet, or a machine that forgets, compiles once.

A gzipped tar: first a label that says which engine and which GPUs the kernels are for, then the cache folder's files,
and last the sha256 of each, since tarfile takes an archive that was cut short for one that has ended.
"""

import argparse
import errno
import gzip
import io
import json
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Final

from dsv4_stack.errors import ConfigError, IntegrityError, NoSpaceError
from dsv4_stack.guest import own, stage
from dsv4_stack.guest.digests import CHUNK, Hasher
from dsv4_stack.guest.files import amount, count, writing

FORMAT: Final = 2
LABEL: Final = "dsv4-caches.json"
END: Final = "dsv4-caches-end.json"
# A listing has some 150 bytes a file.
_MOST: Final = 64 << 20
# What the engine keeps at home besides caches is its own affair; what a compiler leaves behind is nobody's.
_LEFT_OUT: Final = (".tmp", ".lock")
_NEXT: Final = "export it again: dsv4 warm --export FILE"
# Of a fresh folder: two entries that cannot both be there, or a name that no file can have.
_IMPOSSIBLE: Final = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("way", choices=["pack", "unpack"], help="to stdout, or from stdin")
    parser.add_argument("folder", type=Path, help="the kernel caches' folder")
    parser.add_argument(
        "--label", required=True, metavar="TEXT", help="whose kernels they are: engine and architecture"
    )
    parser.add_argument("--uid", type=int, default=os.geteuid(), help="whose they are when unpacked (default: ours)")
    parser.add_argument("--gid", type=int, default=os.getegid(), help="and of which group")


def run(args: argparse.Namespace) -> None:
    if args.way == "pack":
        files, size = pack(args.folder, args.label, sys.stdout.buffer)
        print(f"caches: packed {count(files)}, {amount(size)}", file=sys.stderr)
    else:
        files, size = unpack(args.folder, args.label, sys.stdin.buffer, uid=args.uid, gid=args.gid)
        print(f"caches: unpacked {count(files)}, {amount(size)}", file=sys.stderr)


def pack(folder: Path, label: str, out: BinaryIO) -> tuple[int, int]:
    """How many files, and their bytes. Raises ConfigError where there are none."""
    paths = list(_kept(folder))
    if not paths:
        raise ConfigError(f"{folder} holds no compiled kernels", "run: dsv4 up, then dsv4 down, then export them")
    listing: dict[str, str] = {}
    size = 0
    # A file with two names is packed twice: links are refused on the other side.
    with tarfile.open(fileobj=out, mode="w|gz", dereference=True) as archive:
        _add_document(archive, LABEL, {"schema": FORMAT, "label": label})
        for path in paths:
            name = path.relative_to(folder).as_posix()
            with path.open("rb") as file:
                entry = _plain(archive.gettarinfo(arcname=name, fileobj=file))
                entry.pax_headers = {"mtime": _text_of(os.fstat(file.fileno()).st_mtime_ns)}
                content = _Hashed(file)
                archive.addfile(entry, content)
            listing[name] = content.sha256
            size += entry.size
        _add_document(archive, END, {"sha256": listing})
    return len(paths), size


def _add_document(archive: tarfile.TarFile, name: str, document: object) -> None:
    text = json.dumps(document).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(text)
    archive.addfile(entry, io.BytesIO(text))


def _kept(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        # Of an import that was killed.
        folders[:] = [name for name in folders if name != stage.NAME]
        for name in sorted(names):
            path = Path(root) / name
            if not path.is_symlink() and path.is_file() and path.suffix not in _LEFT_OUT:
                yield path


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nobody's in particular: another user unpacks it on another machine. Times stay, some caches look at them."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hasher = Hasher()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._hasher.update(chunk)
        return chunk

    @property
    def sha256(self) -> str:
        return self._hasher.digests().sha256


class _Inflated(io.RawIOBase):
    """What was gzipped, up to its checksum. What is wrong with it is never taken for a fault of the disk's."""

    def __init__(self, source: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=source, mode="rb")

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except (EOFError, OSError, zlib.error) as error:
            raise _no_archive(error) from None

    def finish(self) -> None:
        """The checksum stands at the end, and tarfile stops before it. Raises IntegrityError."""
        while self.read(CHUNK):
            pass


def unpack(folder: Path, label: str, source: BinaryIO, *, uid: int, gid: int) -> tuple[int, int]:
    """How many files, and their bytes, in the folder as `uid`'s when all of them were proved, or none of them.

    Raises IntegrityError where it is no whole archive of this label's, NoSpaceError.
    """
    inflated = _Inflated(source)
    try:
        with tarfile.open(fileobj=inflated, mode="r|") as archive:
            _refuse_other(archive, label)
            with stage.staged(folder) as new:
                done = _unpack(archive, folder, new)
                inflated.finish()
                _give(new, uid, gid, files=True)
    except tarfile.TarError as error:
        raise _no_archive(error) from None
    except NoSpaceError:
        raise NoSpaceError(
            f"there is no room for these kernels in {folder}, and what it holds stays as it was",
            "make room where Docker keeps its volumes, or delete the old kernels: dsv4 down --caches",
        ) from None
    # Also those above the new ones: a volume comes into being as root's.
    _give(folder, uid, gid, files=False)
    return done


def _unpack(archive: tarfile.TarFile, folder: Path, new: Path) -> tuple[int, int]:
    found: dict[str, str] = {}
    size = 0
    # Not `for`, which begins with the label again.
    while (entry := archive.next()) and entry.name != END:
        content = archive.extractfile(entry) if entry.isreg() and _is_inside(folder, entry.name) else None
        if content is None:
            raise _no_file(entry)
        found[entry.name] = _write(new / entry.name, entry, content)
        size += entry.size
    listing = _document(archive, entry).get("sha256")
    if not isinstance(listing, dict) or listing.keys() != found.keys():
        raise IntegrityError(f"this archive of kernel caches was cut short, after {count(len(found))}", _NEXT)
    if wrong := sorted(name for name, sha256 in found.items() if listing[name] != sha256):
        raise IntegrityError(f"{wrong[0]!r} in this archive is not what was packed: its sha256 differs", _NEXT)
    return len(found), size


def _document(archive: tarfile.TarFile, entry: tarfile.TarInfo | None) -> dict[str, object]:
    """One of our own entries; empty where it is none."""
    content = archive.extractfile(entry) if entry and entry.size < _MOST else None
    try:
        return dict(json.loads(content.read())) if content else {}
    except (ValueError, TypeError, RecursionError):
        return {}


def _refuse_other(archive: tarfile.TarFile, label: str) -> None:
    first = archive.next()
    found = _document(archive, first) if first and first.name == LABEL else {}
    if "label" not in found:
        raise IntegrityError("this is no archive of kernel caches: it has no label", _NEXT)
    if found.get("schema") != FORMAT:
        raise IntegrityError(
            f"this archive of kernel caches has format {found.get('schema')}, and format {FORMAT} is read here",
            "export it again, with this release: dsv4 warm --export FILE",
        )
    if found["label"] != label:
        raise IntegrityError(
            f"these kernels are for {found['label']}, and this stack is {label}", "import those of its engine"
        )


def _text_of(ns: int) -> str:
    """Seconds. Ninja compares nanoseconds, and builds again what a float has rounded."""
    return f"{ns // 10**9}.{ns % 10**9:09}"


def _written_ns(entry: tarfile.TarInfo) -> int:
    seconds, _, rest = entry.pax_headers.get("mtime", str(entry.mtime)).partition(".")
    return int(seconds) * 10**9 + int(f"{rest:0<9}"[:9])


def _write(path: Path, entry: tarfile.TarInfo, content: IO[bytes]) -> str:
    """The sha256 of what was written. By hand: tarfile's own filters are not in every Python 3.11."""
    hasher = Hasher()
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                while chunk := content.read(CHUNK):
                    hasher.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            path.chmod(0o755 if entry.mode & 0o100 else 0o644)
            os.utime(path, ns=(_written_ns(entry), _written_ns(entry)))
        except OSError as error:
            if error.errno in _IMPOSSIBLE:
                raise _no_file(entry) from None
            raise
        except (ValueError, OverflowError):
            raise _no_file(entry) from None
    return hasher.digests().sha256


def _is_inside(folder: Path, name: str) -> bool:
    """Whether it is a file's plain name, and no link that is there already leads out of the folder on the way to it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or path.as_posix() != name or not path.name:
        return False
    return path.parts[0] != stage.NAME and (folder / path).parent.resolve().is_relative_to(folder.resolve())


def _give(folder: Path, uid: int, gid: int, *, files: bool) -> None:
    with writing(folder):
        own.give(folder, uid, gid, files=files)


def _no_archive(error: Exception) -> IntegrityError:
    return IntegrityError(f"this is no archive of kernel caches: {error}", _NEXT)


def _no_file(entry: tarfile.TarInfo) -> IntegrityError:
    return IntegrityError(f"the archive holds {entry.name!r}, which is no file of a cache", _NEXT)
