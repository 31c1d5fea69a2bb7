"""An engine's compiled kernels as an archive, so that a fleet, or a machine that forgets, compiles once.

A gzipped tar: first a label that says which engine and which GPUs the kernels are for, then the cache folder's files,
and last how many they are, since tarfile takes an archive that was cut short for one that has ended.
"""

import argparse
import io
import json
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Final

from dsv4_stack.errors import ConfigError, IntegrityError
from dsv4_stack.guest.files import amount, count

LABEL: Final = "dsv4-caches.json"
END: Final = "dsv4-caches-end.json"
# What the engine keeps at home besides caches is its own affair; what a compiler leaves behind is nobody's.
_LEFT_OUT: Final = (".tmp", ".lock")
_NEXT: Final = "export it again: dsv4 warm --export FILE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("way", choices=["pack", "unpack"], help="to stdout, or from stdin")
    parser.add_argument("folder", type=Path, help="the kernel caches' folder")
    parser.add_argument(
        "--label", required=True, metavar="TEXT", help="whose kernels they are: engine and architecture"
    )


def run(args: argparse.Namespace) -> None:
    if args.way == "pack":
        files, size = pack(args.folder, args.label, sys.stdout.buffer)
        print(f"caches: packed {count(files)}, {amount(size)}", file=sys.stderr)
    else:
        files, size = unpack(args.folder, args.label, sys.stdin.buffer)
        print(f"caches: unpacked {count(files)}, {amount(size)}", file=sys.stderr)


def pack(folder: Path, label: str, out: BinaryIO) -> tuple[int, int]:
    """How many files, and their bytes. Raises ConfigError where there are none."""
    paths = list(_kept(folder))
    if not paths:
        raise ConfigError(f"{folder} holds no compiled kernels", "run: dsv4 warm, then export them")
    size = 0
    with tarfile.open(fileobj=out, mode="w|gz") as archive:
        _add(archive, LABEL, {"schema": 1, "label": label})
        for path in paths:
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=_plain)
            size += path.lstat().st_size
        _add(archive, END, {"files": len(paths)})
    return len(paths), size


def _add(archive: tarfile.TarFile, name: str, document: object) -> None:
    text = json.dumps(document).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(text)
    archive.addfile(entry, io.BytesIO(text))


def _kept(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(root) / name
            if not path.is_symlink() and path.is_file() and path.suffix not in _LEFT_OUT:
                yield path


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nobody's in particular: another user unpacks it on another machine. Times stay, some caches look at them."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def unpack(folder: Path, label: str, source: BinaryIO) -> tuple[int, int]:
    """How many files, and their bytes. Raises IntegrityError where it is no whole archive of this label's."""
    try:
        with tarfile.open(fileobj=source, mode="r|gz") as archive:
            _refuse_other(archive, label)
            return _unpack(folder, archive)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise IntegrityError(f"this is no archive of kernel caches: {error}", _NEXT) from None


def _unpack(folder: Path, archive: tarfile.TarFile) -> tuple[int, int]:
    files = size = 0
    # Not `for`, which begins with the label again.
    while (entry := archive.next()) and entry.name != END:
        content = archive.extractfile(entry) if entry.isreg() and _is_inside(entry.name) else None
        if content is None or not _write(folder, entry, content):
            raise IntegrityError(f"the archive holds {entry.name!r}, which is no file of a cache", _NEXT)
        files, size = files + 1, size + entry.size
    if entry is None or _document(archive, entry).get("files") != files:
        raise IntegrityError(f"this archive of kernel caches was cut short, after {count(files)}", _NEXT)
    return files, size


def _document(archive: tarfile.TarFile, entry: tarfile.TarInfo | None) -> dict[str, object]:
    """One of our own entries; empty where it is none."""
    content = archive.extractfile(entry) if entry and entry.size < 1 << 16 else None
    try:
        return dict(json.loads(content.read())) if content else {}
    except (ValueError, TypeError):
        return {}


def _refuse_other(archive: tarfile.TarFile, label: str) -> None:
    first = archive.next()
    found = _document(archive, first).get("label") if first and first.name == LABEL else None
    if found is None:
        raise IntegrityError("this is no archive of kernel caches: it has no label", _NEXT)
    if found != label:
        raise IntegrityError(f"these kernels are for {found}, and this stack is {label}", "import those of its engine")


def _write(folder: Path, entry: tarfile.TarInfo, content: IO[bytes]) -> bool:
    """Whether it lies in the folder. By hand: tarfile's own filters are not in every Python 3.11."""
    path = folder / entry.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        return False
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(0o755 if entry.mode & 0o100 else 0o644)
    os.utime(path, (entry.mtime, entry.mtime))
    return True


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
