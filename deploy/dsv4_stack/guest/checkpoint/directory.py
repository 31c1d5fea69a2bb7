"""The destination: what of its files is right, what is not ours, and whether the rest fits."""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack.errors import IntegrityError, NoSpaceError
from dsv4_stack.guest import digests, workers
from dsv4_stack.guest.checkpoint import tensors
from dsv4_stack.guest.checkpoint.manifest import Entry
from dsv4_stack.guest.checkpoint.progress import Progress
from dsv4_stack.guest.checkpoint.wanted import Wanted
from dsv4_stack.guest.digests import Digests
from dsv4_stack.guest.files import amount, count, reading, sync_folder, writing
from dsv4_stack.guest.workers import GoOn

_WORTH_A_WORD: Final = 256 << 20
"""Less is hashed before anybody could read that it is."""


def prove(
    folder: Path,
    files: Iterable[Wanted],
    there: Mapping[str, os.stat_result],
    proven: Mapping[str, Entry],
    progress: Progress,
) -> dict[str, Entry]:
    """Those of `files` that are in the folder already, byte for byte. Hashes what is not proven, once.

    Raises IntegrityError for weights that nobody has proven yet and that are what the source has, and no whole ones.
    """
    proofs = [
        _Proof(folder=folder, file=file, there=there[file.path], proven=proven.get(file.path))
        for file in files
        if file.path in there and stat.S_ISREG(there[file.path].st_mode) and there[file.path].st_size == file.size
    ]
    largest_first = sorted(proofs, key=lambda proof: -proof.bytes_to_hash)
    with _following(proofs, progress):
        entries = workers.of_each(lambda proof, go_on: proof.entry(progress, go_on), largest_first)
    return {proof.file.path: entry for proof, entry in zip(largest_first, entries, strict=True) if entry}


@contextmanager
def _following(proofs: Iterable["_Proof"], progress: Progress) -> Iterator[None]:
    """Say what is hashed and how far it is, where anything is: of a whole checkpoint it takes minutes."""
    sizes = {proof.file.path: proof.bytes_to_hash for proof in proofs if proof.bytes_to_hash}
    size = sum(sizes.values())
    if size < _WORTH_A_WORD:
        yield
        return
    said = f"{count(len(sizes))} of the right size, to be proven by hashing {amount(size)}"
    progress.say("hash", said, files=len(sizes), bytes=size)
    with progress.following(sizes):
        yield


@dataclass(frozen=True, kw_only=True)
class _Proof:
    """A file of the right size, and what an earlier run has proven it to be, if one has."""

    folder: Path
    file: Wanted
    there: os.stat_result
    proven: Entry | None

    @property
    def _is_as_proven(self) -> bool:
        proven = self.proven and (self.proven.size, self.proven.mtime_ns)
        return proven == (self.there.st_size, self.there.st_mtime_ns)

    @property
    def _known(self) -> Digests | None:
        """What it is, if that need not be looked at."""
        if self.proven and self._is_as_proven and not self.file.needs_git:
            return Digests(size=self.proven.size, sha256=self.proven.sha256)
        return None

    @property
    def bytes_to_hash(self) -> int:
        return self.file.size * ((not self._known) + (not self.file.is_promised))

    def entry(self, progress: Progress, go_on: GoOn) -> Entry | None:
        """What the manifest shall say of it, None where it is not the wanted file."""
        path = self.folder / self.file.path

        def advance(size: int) -> None:
            go_on()
            progress.advance(self.file.path, size)

        with reading(path):
            found = self._known or digests.of_file(path, git=self.file.needs_git, advance=advance)
        is_wanted = self.file.matches(found, advance)
        progress.passed(self.file.path)
        if not is_wanted:
            return None
        if self.file.is_weights and not self._is_as_proven:
            tensors.check_file(path, self.file.tensors, self.file.path)
        return entry_of(self.file, found.sha256, self.there)


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
