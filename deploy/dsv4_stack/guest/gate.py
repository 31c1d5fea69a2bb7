"""`dsv4 gate`: is a directory still what its manifest says? Sizes and mtimes in milliseconds, hashes with --deep."""

import argparse
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from dsv4_stack.errors import IntegrityError, NotFoundError
from dsv4_stack.guest.checkpoint import manifest
from dsv4_stack.guest.checkpoint.manifest import STATE, Entry, Manifest
from dsv4_stack.guest.files import amount, count, plain_files, reading

_REPAIR: Final = (
    "run the same dsv4 materialize again, it fetches what is wrong; a foreign file has to be moved away first"
)


Hashed = Callable[[str, int], None]


def _unheard(_path: str, _count: int) -> None:
    """Nobody wants to know."""


def check_fast(folder: Path) -> Manifest:
    """Sizes and mtimes; opens no file but the manifest. Raises NotFoundError, IntegrityError."""
    return _check(folder, deep=False)


def problems(folder: Path, known: Manifest, *, deep: bool, hashed: Hashed = _unheard) -> dict[str, str]:
    """What is wrong with each file that is not as in the manifest, foreign files included. Raises Dsv4Error.

    `hashed` is told of each file's bytes as they are hashed.
    """
    there = present(folder)
    found = {path: problem for path, entry in known.files.items() if (problem := _problem(entry, there.get(path)))}
    sound = {path: entry for path, entry in known.files.items() if path not in found}
    if deep:
        found |= _wrong_hashes(folder, sound, hashed)
    else:
        found |= {path: problem for path, entry in sound.items() if (problem := touch(entry, there[path]))}
        found |= dict.fromkeys(_swapped(sound, there), "another file has taken its place since it was proven")
    found |= dict.fromkeys(there.keys() - known.files.keys(), "foreign, the manifest does not know it")
    return dict(sorted(found.items()))


def touch(entry: Entry, there: os.stat_result) -> str:
    """Why a file of the right size may not be the one that was proven, or nothing."""
    return "touched since it was proven" if there.st_mtime_ns != entry.mtime_ns else ""


def _swapped(entries: Mapping[str, Entry], there: Mapping[str, os.stat_result]) -> set[str]:
    """Files of another number than when they were proven.

    Where all of them have another one, the directory was copied with its times, or is mounted in a way that numbers
    anew: then the numbers say nothing.
    """
    numbered = {path: entry.inode for path, entry in entries.items() if entry.inode is not None}
    other = {path for path, inode in numbered.items() if there[path].st_ino != inode}
    return set() if len(other) == len(numbered) else other


def present(folder: Path) -> dict[str, os.stat_result]:
    """Every file of a directory but our own records; a link counts as itself. Raises NotFoundError, Dsv4Error."""
    try:
        with reading(folder):
            found = [(path, entry) for path, entry in plain_files(folder) if not path.startswith(f"{STATE}/")]
    except NotFoundError:
        raise NotFoundError(f"there is no folder {folder}", "run: dsv4 materialize") from None
    there = {}
    for path, entry in found:
        # Another run may be at work, and take files away.
        with suppress(NotFoundError), reading(folder / path):
            there[path] = entry.stat(follow_symlinks=False)
    return there


def _check(folder: Path, *, deep: bool) -> Manifest:
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}", "run: dsv4 materialize")
    known = manifest.load(folder)
    if found := problems(folder, known, deep=deep):
        lines = "\n".join(f"  {path}: {problem}" for path, problem in found.items())
        raise IntegrityError(f"{folder} is not as its manifest says:\n{lines}", _REPAIR)
    return known


def _problem(entry: Entry, there: os.stat_result | None) -> str:
    if there is None:
        return "missing"
    if not stat.S_ISREG(there.st_mode):
        return "no regular file"
    if there.st_size != entry.size:
        return f"has {there.st_size} bytes, the manifest says {entry.size}"
    return ""


def _wrong_hashes(folder: Path, entries: dict[str, Entry], hashed: Hashed) -> dict[str, str]:
    from dsv4_stack.guest import digests, workers  # noqa: PLC0415 - the fast gate runs at every start

    def problem(path: str, go_on: Callable[[], None]) -> str:
        def advance(count: int) -> None:
            go_on()
            hashed(path, count)

        with reading(folder / path):
            sha256 = digests.of_file(folder / path, advance=advance).sha256
        same = sha256 == entries[path].sha256
        return "" if same else f"sha256 is {sha256}, the manifest says {entries[path].sha256}"

    largest_first = sorted(entries, key=lambda path: -entries[path].size)
    found = zip(largest_first, workers.of_each(problem, largest_first), strict=True)
    return {path: problem for path, problem in found if problem}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="a materialized checkpoint directory")
    parser.add_argument("--deep", action="store_true", help="hash every file again, with all cores")
    parser.add_argument("--json", action="store_true", help="print what was checked as one JSON object")


def run(args: argparse.Namespace) -> None:
    known = _check(args.directory, deep=args.deep)
    if args.json:
        print(json.dumps(_summary(args.directory, known, deep=args.deep)))
    else:
        print(f"gate: {count(len(known.files))}, {amount(known.size)}, as in the manifest ({known})")


def _summary(folder: Path, known: Manifest, *, deep: bool) -> dict[str, object]:
    return {
        "directory": str(folder),
        "deep": deep,
        "files": len(known.files),
        "bytes": known.size,
        "manifest": known.provenance(),
    }
