"""What an earlier run left, and whether it is what is asked for now. Imports little, for it runs at every start."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsv4_stack.errors import IntegrityError, NotFoundError
from dsv4_stack.guest import gate
from dsv4_stack.guest.checkpoint import journal, manifest
from dsv4_stack.guest.checkpoint.locked import Lock
from dsv4_stack.guest.checkpoint.manifest import Entry, Manifest
from dsv4_stack.guest.checkpoint.specs import Request

if TYPE_CHECKING:
    from dsv4_stack.guest.checkpoint.progress import Progress

Note = Callable[[str, str], None]


def _unheard(_path: str, _problem: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """`known` is the manifest if the directory is as it says. `ours` is all that we wrote, `proven` what of it holds.

    A file of `proven` counts only while its size and mtime are those of its entry.
    """

    known: Manifest | None
    ours: Mapping[str, Entry]
    proven: Mapping[str, Entry]
    problems: Mapping[str, str]
    written_ns: int = 0

    def answer(self, request: Request, lock: Lock) -> Manifest | None:
        """The manifest, if the directory is what is asked for."""
        if not self.known or not request.is_answered_by(self.known, lock):
            return None
        return self.known if request.has_old_sources(self.known, self.written_ns) else None


def look(
    folder: Path, *, deep: bool, hashed: Found | None = None, note: Note = _unheard, progress: "Progress | None" = None
) -> Found:
    """Read the manifest, or what an unfinished run left; `deep` believes only what it hashes. Raises Dsv4Error.

    `hashed` is what a deep look has found a moment ago, so that a second one need not hash it all again. `note` is told
    what is wrong: which file, or "" for the manifest, and how. `progress` shows how far the hashing is.
    """
    try:
        known = manifest.load(folder)
    except NotFoundError:
        left = journal.read(folder)
        return Found(known=None, ours=left, proven={} if deep else left, problems={})
    except IntegrityError as error:
        note("", f"{error.message}; every file is hashed again")
        return Found(known=None, ours={}, proven={}, problems={})
    if deep and not hashed and progress:
        with progress.following({path: entry.size for path, entry in known.files.items()}):
            problems = gate.problems(folder, known, deep=True, hashed=progress.advance)
    else:
        problems = gate.problems(folder, known, deep=deep and not hashed)
    if hashed and hashed.ours == known.files:
        problems |= hashed.problems
    for path, problem in problems.items():
        note(path, problem)
    proven = {path: entry for path, entry in known.files.items() if path not in problems}
    # What was touched and is right all the same: the manifest has to say so, or the next quick look stumbles over it.
    is_stale = bool(problems) or (deep and bool(gate.problems(folder, known, deep=False)))
    written_ns = (folder / manifest.NAME).stat().st_mtime_ns
    return Found(
        known=None if is_stale else known, ours=known.files, proven=proven, problems=problems, written_ns=written_ns
    )
