"""Where a wanted file's bytes may be already, on this machine, and how to take them from there."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from dsv4_stack.errors import Dsv4Error, IntegrityError, NoSpaceError, UsageError
from dsv4_stack.guest import clones, digests
from dsv4_stack.guest.checkpoint import manifest, names
from dsv4_stack.guest.checkpoint.manifest import STATE, Entry
from dsv4_stack.guest.digests import Advance, Digests
from dsv4_stack.guest.files import reading

_MOST_FOLDERS: Final = 64
_BLOB: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ROOT: Final = 0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A regular file that may be it. `sha256` is what vouches for its bytes, as long as its mtime is `mtime_ns`, if one
    is given; without a sha256 it has to be hashed.
    """

    path: Path
    sha256: str | None
    mtime_ns: int | None = None


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What the Hub or the lock promised: of a file of a local folder neither hash."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None

    @property
    def is_promised(self) -> bool:
        return bool(self.sha256 or self.git_sha1)

    @property
    def needs_git(self) -> bool:
        return not self.sha256 and bool(self.git_sha1)

    def is_met_by(self, found: Digests) -> bool:
        """`found` has a git hash where that is all that is promised."""
        if self.sha256:
            return (found.size, found.sha256) == (self.size, self.sha256)
        return found.size == self.size and self.git_sha1 in (None, "", found.git_sha1)


def hub_cache() -> Path:
    """Where Hugging Face's tools keep what they download, whether it is there or not.

    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{home}/huggingface"
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(os.path.expanduser(chosen)))  # noqa: PTH111 - Path's raises without a home


def places(dest: Path, extra: Sequence[Path]) -> list[Path]:
    """The materialized directories beside `dest`, then `extra`."""
    beside = [
        folder
        for folder in _folders(dest.resolve().parent)
        if folder != dest.resolve() and os.path.lexists(folder / manifest.NAME)
    ]
    return [*beside[:_MOST_FOLDERS], *extra]


class Reuse:
    """Knows the folders that may have the bytes of a file for `dest`; reads each one's manifest once.

    `extra` are folders of any kind, `hub_cache` is laid out as Hugging Face's tools do. Without `believe` no manifest
    vouches for a file, and all of them are hashed.
    """

    def __init__(
        self, dest: Path, *, extra: Sequence[Path] = (), hub_cache: Path | None = None, believe: bool = True
    ) -> None:
        self.believe = believe
        self._dest = dest.resolve()
        self._extra = extra
        self._hub_cache = hub_cache

    def candidates(self, needed: Needed, repo: str | None) -> Iterator[Candidate]:
        """Files of the wanted size outside of `dest`, each once, those that need no hashing first.

        Nothing where no hash is promised, for then nothing could be proven.
        """
        if not needed.is_promised:
            return
        seen = set()
        claimed = [candidate for place in self._places for candidate in place.claimed(needed)]
        for candidate in [*sorted(claimed, key=_vouched_first), *self._to_hash(needed, repo)]:
            file = _identity(candidate.path)
            if file and file not in seen and not candidate.path.is_relative_to(self._dest):
                seen.add(file)
                yield candidate

    def at_home(self, needed: Needed) -> Path | None:
        """The file of this name in `dest`, if it has the size."""
        return None if names.problem_of(needed.name) else _regular(self._dest / needed.name, needed.size)

    @cached_property
    def _places(self) -> list["_Place"]:
        trusted = frozenset({_ROOT, os.geteuid(), _owner_around(self._dest)}) if self.believe else frozenset()
        return [_place(folder, trusted) for folder in places(self._dest, self._extra)]

    def _to_hash(self, needed: Needed, repo: str | None) -> Iterator[Candidate]:
        paths = list(_in_hub_cache(self._hub_cache, needed, repo)) if self._hub_cache and repo else []
        if not names.problem_of(needed.name):
            paths += [place.folder / needed.name for place in self._places]
        for path in paths:
            if file := _regular(path, needed.size):
                yield Candidate(path=file, sha256=None)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A folder, resolved, and its manifest's entries. They vouch where only `trusted` users can have written them."""

    folder: Path
    entries: Mapping[str, Entry]
    trusted: frozenset[int]

    def claimed(self, needed: Needed) -> Iterator[Candidate]:
        """The files that were the wanted one when the manifest was written."""
        for path, entry in self.entries.items():
            if (entry.size, entry.sha256) == (needed.size, needed.sha256):
                file = _regular(self.folder / path, entry.size)
                if file and file == self.folder / path and self._vouches_for(file, entry):
                    yield Candidate(path=file, sha256=entry.sha256, mtime_ns=entry.mtime_ns)
                elif file:
                    yield Candidate(path=file, sha256=None)

    def _vouches_for(self, file: Path, entry: Entry) -> bool:
        records = (self.folder, self.folder / STATE, self.folder / manifest.NAME, file)
        with suppress(OSError):
            there = file.stat()
            untouched = there.st_mtime_ns == entry.mtime_ns and entry.inode in (None, there.st_ino)
            return untouched and all(_is_theirs(path, self.trusted) for path in records)
        return False


def take(
    candidate: Candidate, needed: Needed, target: Path, *, advance: Advance, reused: Callable[[int], None]
) -> Digests | None:
    """Make `target`, which must not exist, the candidate's bytes if they are the needed ones, and sync it to the disk.

    None, and no target, where they are not, or where the candidate cannot be read. `reused` is told of bytes that are
    shared, `advance` of those that are copied, and of 0 now and then while shared ones are hashed, so that it may stop
    that. Raises NoSpaceError, UsageError; where no hash is promised, what is wrong with the candidate.
    """
    try:
        found = _taken(candidate, needed, target, advance=advance, reused=reused)
    except (NoSpaceError, UsageError):
        raise
    except Dsv4Error:
        if needed.is_promised:
            return None
        raise
    if not needed.is_met_by(found):
        target.unlink()
        return None
    return found


def _taken(
    candidate: Candidate, needed: Needed, target: Path, *, advance: Advance, reused: Callable[[int], None]
) -> Digests:
    if not clones.share(candidate.path, target):
        return clones.copy(candidate.path, target, advance=advance, git=needed.needs_git)
    with clones.removed_on_failure(target):
        if candidate.sha256 and candidate.sha256 == needed.sha256 and _is_as_vouched(candidate, target):
            reused(target.stat().st_size)
            return Digests(size=target.stat().st_size, sha256=candidate.sha256)

        def hashed(count: int) -> None:
            advance(0)
            reused(count)

        before = target.stat()
        with reading(target):
            found = digests.of_file(target, git=needed.needs_git, advance=hashed)
        if (before.st_size, before.st_mtime_ns) != (found.size, target.stat().st_mtime_ns):
            raise IntegrityError(
                f"{candidate.path} changed while it was read", "wait until nobody writes it, then run it again"
            )
        return found


def _is_as_vouched(candidate: Candidate, target: Path) -> bool:
    """Looked at once the bytes are ours: what comes later does not matter to a reflink, and the gate sees it."""
    with suppress(OSError):
        there = candidate.path.lstat()
        same = stat.S_ISREG(there.st_mode) and there.st_size == target.stat().st_size
        return same and candidate.mtime_ns in (None, there.st_mtime_ns)
    return False


def _vouched_first(candidate: Candidate) -> bool:
    return candidate.sha256 is None


def _place(folder: Path, trusted: frozenset[int]) -> _Place:
    resolved = folder.resolve()
    try:
        entries = manifest.load(resolved).files
    except Dsv4Error:
        entries = {}
    return _Place(folder=resolved, entries=entries, trusted=trusted)


def _in_hub_cache(cache: Path, needed: Needed, repo: str) -> Iterator[Path]:
    """Blobs are named after the sha256 of large files and the git hash of the others; snapshots have links to them.

    A blob may itself be a link into a store that all repositories share.
    https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    folder = cache / f"models--{repo.replace('/', '--')}"
    for name in (needed.sha256, needed.git_sha1):
        if name and _BLOB.fullmatch(name):
            yield folder / "blobs" / name
    if not names.problem_of(needed.name):
        for snapshot in _folders(folder / "snapshots")[:_MOST_FOLDERS]:
            yield snapshot / needed.name


def _regular(path: Path, size: int) -> Path | None:
    """The readable regular file of this size that a path is, or leads to."""
    with suppress(OSError):
        resolved = Path(os.path.realpath(path, strict=True))
        there = resolved.stat()
        if stat.S_ISREG(there.st_mode) and there.st_size == size and os.access(resolved, os.R_OK):
            return resolved
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        there = path.stat()
        return there.st_dev, there.st_ino
    return None


def _folders(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    return []


def _owner_around(path: Path) -> int:
    """Who can put another folder in this one's place."""
    return next(folder for folder in path.parents if folder.exists()).stat().st_uid


def _is_theirs(path: Path, users: frozenset[int]) -> bool:
    there = path.lstat()
    return there.st_uid in users and not there.st_mode & stat.S_IWOTH
