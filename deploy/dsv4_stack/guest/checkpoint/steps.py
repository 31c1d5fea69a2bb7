"""What has to happen to a directory before it is what is wanted: what stays, what comes and how, and what goes."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from dsv4_stack.guest import clones, xet
from dsv4_stack.guest.checkpoint import reuse
from dsv4_stack.guest.checkpoint.manifest import STATE, Entry
from dsv4_stack.guest.checkpoint.reuse import Candidate, Reuse
from dsv4_stack.guest.checkpoint.wanted import Content, Local, Wanted
from dsv4_stack.guest.download import marks
from dsv4_stack.guest.download.download import identity_of
from dsv4_stack.guest.download.partial import MARKS
from dsv4_stack.guest.files import amount, count, plain_files

PARTIAL: Final = f"{STATE}/partial"
_MADE: Final = ".made"
_DIGEST: Final = 8
_NAME_BYTES: Final = 120


class How(StrEnum):
    """`fetch` from the Hub, `link` to bytes of the same file system, `copy` from another, `write` what we have."""

    FETCH = "fetch"
    LINK = "link"
    COPY = "copy"
    WRITE = "write"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A file that is missing and how it comes. `there` bytes of it an earlier run has left unfinished."""

    file: Wanted
    how: How
    there: int = 0
    candidates: tuple[Candidate, ...] = ()

    @property
    def bytes_to_move(self) -> int:
        return 0 if self.how is How.LINK else self.file.size - self.there


@dataclass(frozen=True, kw_only=True)
class Steps:
    """`keep` are proven already, `remove` are ours and not wanted any more, or wrong. `litter` is left of old runs."""

    keep: Mapping[str, Entry]
    bring: tuple[Step, ...]
    remove: tuple[str, ...]
    litter: tuple[Path, ...]

    @property
    def bytes_to_move(self) -> int:
        return sum(step.bytes_to_move for step in self.bring)

    def of(self, how: How) -> list[Step]:
        return [step for step in self.bring if step.how is how]

    def sentence(self) -> str:
        """`2 files to fetch, 1.2 GiB; 1 file to link; 3 are there`."""
        verbs = [f"{count(len(steps))} to {how}, {_moved(steps)}" for how in How if (steps := self.of(how))]
        return "; ".join([*verbs, f"{len(self.keep)} are there"])

    def fields(self) -> dict[str, object]:
        """As JSON."""
        return {
            "fetch": len(self.of(How.FETCH)),
            "fetch_bytes": sum(step.bytes_to_move for step in self.of(How.FETCH)),
            "resume_bytes": sum(step.there for step in self.bring),
            "link": len(self.of(How.LINK)),
            "copy": len(self.of(How.COPY)),
            "write": len(self.of(How.WRITE)),
            "keep": len(self.keep),
            "remove": list(self.remove),
        }


def partial_of(folder: Path, path: str) -> Path:
    """Where a file is while it is not whole: flat, and short enough for a suffix whatever its name."""
    digest = hashlib.sha256(path.encode()).hexdigest()[:_DIGEST]
    return folder / PARTIAL / f"{digest}-{path.encode()[-_NAME_BYTES:].decode(errors='ignore').rpartition('/')[2]}"


def made_at(folder: Path, path: str) -> Path:
    """Where a file is made of what this machine has: not over what came of it through the network."""
    partial = partial_of(folder, path)
    return partial.with_name(partial.name + _MADE)


def steps_for(
    folder: Path, missing: Iterable[Wanted], keep: Mapping[str, Entry], remove: Iterable[str], known: Reuse
) -> Steps:
    """Look where each missing file may come from."""
    bring = tuple(_step(folder, file, known) for file in missing)
    return Steps(keep=keep, bring=bring, remove=tuple(remove), litter=tuple(_litter(folder, bring)))


def reclaimed(folder: Path, steps: Steps) -> int:
    """Bytes that removing sets free, and those that unfinished files take already beyond what counts of them."""
    gone = {folder / path for path in steps.remove} | set(steps.litter)
    partial = {partial_of(folder, step.file.path) for step in [*steps.of(How.FETCH), *steps.of(How.LINK)]}
    parts = {part for target in partial for part in xet.parts(target)}
    stats = [os.lstat(path) for path in gone | partial | parts if os.path.lexists(path)]
    # What another name holds on to as well does not go.
    return sum(stat.st_blocks * 512 for stat in stats if stat.st_nlink == 1) - sum(step.there for step in steps.bring)


def _moved(steps: list[Step]) -> str:
    there = sum(step.there for step in steps)
    rest = f" ({amount(there)} of it came before)" if there else ""
    return f"{amount(sum(step.file.size for step in steps))}{rest}"


def _step(folder: Path, file: Wanted, known: Reuse) -> Step:
    if isinstance(file.supply, Content):
        return Step(file=file, how=How.WRITE)
    if isinstance(file.supply, Local):
        own = Candidate(path=file.supply.path.resolve(), sha256=file.sha256, mtime_ns=file.supply.mtime_ns)
        return Step(file=file, how=_how(folder, own), candidates=(own,))
    repo = file.supply.source.snapshot.repo
    needed = reuse.Needed(name=file.path, size=file.size, sha256=file.sha256, git_sha1=file.git_sha1)
    there = _there(folder, file)
    found = tuple(known.candidates(needed, repo))
    # What came of the file is worth more than what may be the file.
    if found and (not there or found[0].sha256):
        return Step(file=file, how=_how(folder, found[0]), candidates=found)
    return Step(file=file, how=How.FETCH, there=there)


def _there(folder: Path, file: Wanted) -> int:
    """By plain HTTP or by xet; the way that has brought more is gone on with."""
    return max(_there_plainly(folder, file), xet.there(partial_of(folder, file.path), file.size))


def _goes_on_by_xet(folder: Path, file: Wanted) -> bool:
    return xet.there(partial_of(folder, file.path), file.size) > _there_plainly(folder, file)


def _there_plainly(folder: Path, file: Wanted) -> int:
    partial = partial_of(folder, file.path)
    identity = identity_of(file.sha256, file.git_sha1)
    plain = marks.written(partial.with_name(partial.name + MARKS), identity, file.size)
    return plain if partial.exists() else 0


def _how(folder: Path, candidate: Candidate) -> How:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return How.LINK if clones.can_share(candidate.path, existing) else How.COPY


def _litter(folder: Path, bring: Iterable[Step]) -> Iterator[Path]:
    """What earlier runs left that this one does not go on with. A link takes no room, so it may fail first."""
    files = [step.file for step in bring if step.how in (How.FETCH, How.LINK)]
    going_on = {partial_of(folder, file.path).name for file in files if _there(folder, file)}
    # Of the two ways the one that has brought less is not gone on with, and takes room.
    rooms = {partial_of(folder, file.path).name + xet.ROOM for file in files if _goes_on_by_xet(folder, file)}
    root = folder / PARTIAL
    if root.is_dir():
        for path, _ in plain_files(root):
            if path.removesuffix(MARKS) not in going_on and path.partition("/")[0] not in rooms:
                yield root / path
