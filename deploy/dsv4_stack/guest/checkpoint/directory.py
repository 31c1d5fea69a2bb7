"""The destination: what of its files is right, what is not ours, and whether the rest fits."""

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from dsv4_stack.errors import IntegrityError, NoSpaceError
from dsv4_stack.guest import digests
from dsv4_stack.guest.checkpoint import tensors
from dsv4_stack.guest.checkpoint.manifest import Entry
from dsv4_stack.guest.checkpoint.wanted import Wanted
from dsv4_stack.guest.digests import Digests
from dsv4_stack.guest.files import amount, reading, sync_folder, writing


def prove(
    folder: Path, files: Iterable[Wanted], there: Mapping[str, os.stat_result], proven: Mapping[str, Entry]
) -> dict[str, Entry]:
    """Those of `files` that are in the folder already, byte for byte. Hashes what is not proven, once.

    Raises IntegrityError for weights that nobody has proven yet and that are what the source has, and no whole ones.
    """
    candidates = [
        file
        for file in files
        if file.path in there and stat.S_ISREG(there[file.path].st_mode) and there[file.path].st_size == file.size
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = pool.map(lambda file: _entry(folder, file, there[file.path], proven.get(file.path)), candidates)
        return {file.path: entry for file, entry in zip(candidates, entries, strict=True) if entry}


def _entry(folder: Path, file: Wanted, there: os.stat_result, proven: Entry | None) -> Entry | None:
    is_as_proven = proven and (proven.size, proven.mtime_ns) == (there.st_size, there.st_mtime_ns)
    if proven and is_as_proven and not file.needs_git:
        found = Digests(size=proven.size, sha256=proven.sha256)
    else:
        with reading(folder / file.path):
            found = digests.of_file(folder / file.path, git=file.needs_git)
    if not file.matches(found):
        return None
    if file.is_weights and not is_as_proven:
        tensors.check_file(folder / file.path, file.tensors, file.path)
    return entry_of(file, found.sha256, there)


def entry_of(file: Wanted, sha256: str, there: os.stat_result) -> Entry:
    """What the manifest says of a file that is proven."""
    return Entry(size=there.st_size, sha256=sha256, mtime_ns=there.st_mtime_ns, origin=file.origin, inode=there.st_ino)


def refuse_foreign(folder: Path, paths: Iterable[str]) -> None:
    """Raise IntegrityError that names what someone else put here: it is neither used nor deleted."""
    if foreign := sorted(paths):
        lines = "\n".join(f"  {path}" for path in foreign)
        raise IntegrityError(
            f"{folder} holds files that dsv4 did not write and does not want as they are:\n{lines}",
            "move them away, or choose another --dest",
        )


def refuse_small_disk(folder: Path, needed: int, reclaimed: int) -> None:
    """Raise NoSpaceError where `needed` bytes and a margin do not fit, `reclaimed` of which are ours to delete.

    The margin is for the file system's own records: a thousandth, and a mebibyte.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free + reclaimed
    margin = needed // 1000 + (1 << 20) if needed else 0
    if needed + margin > free:
        raise NoSpaceError(
            f"{folder} needs {amount(needed)} ({needed} bytes) more and a margin of {amount(margin)}, "
            f"and {amount(free)} ({free} bytes) are free",
            f"make room there, or choose another --dest; see: df -h {existing}",
        )


def remove(folder: Path, paths: Iterable[str]) -> None:
    """Delete files of ours and the folders that they leave empty. Raises as `writing` does."""
    for path in paths:
        with writing(folder / path):
            (folder / path).unlink()
            sync_folder((folder / path).parent)
        with suppress(OSError):
            for parent in (folder / path).relative_to(folder).parents:
                if parent != Path():
                    (folder / parent).rmdir()
