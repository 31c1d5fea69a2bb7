"""Where files come from: a repository of the Hub at one commit, or a local folder. Both look the same from here on."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from dsv4_stack.errors import Dsv4Error, IntegrityError, UsageError
from dsv4_stack.guest import access, digests, gate, hub, listing
from dsv4_stack.guest.checkpoint import locked, manifest
from dsv4_stack.guest.checkpoint.locked import Lock, LockedRepo
from dsv4_stack.guest.checkpoint.manifest import CheckedAgainst, Entry, FolderRecord, HubRecord
from dsv4_stack.guest.checkpoint.reuse import Needed, Reuse
from dsv4_stack.guest.checkpoint.specs import FolderSpec, Spec
from dsv4_stack.guest.download.address import Address
from dsv4_stack.guest.download.crew import fetch_all
from dsv4_stack.guest.download.download import Download, Quiet
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.files import plain_files, reading, writing
from dsv4_stack.guest.hub import RemoteFile, Snapshot


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A repository at one commit; `known` are the places on this machine where bytes of it may be.

    `scratch` is where small files lie while they come, None for where temporary files go.
    """

    snapshot: Snapshot
    is_locked: bool
    limits: Limits
    known: Reuse
    scratch: Path | None

    @property
    def name(self) -> str:
        return f"{self.snapshot.repo}@{self.snapshot.revision}"

    @property
    def record(self) -> HubRecord:
        return HubRecord(repo=self.snapshot.repo, requested=self.snapshot.requested, revision=self.snapshot.revision)

    @property
    def checked_against(self) -> CheckedAgainst:
        return CheckedAgainst.LOCK if self.is_locked else CheckedAgainst.HUB

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        return self.snapshot.files

    def address(self, file: RemoteFile) -> Address:
        return Address(hub.resolve_url(self.snapshot.repo, self.snapshot.revision, file.path), access.bearer())

    def read(self, file: RemoteFile) -> bytes:
        """A small file's proven bytes. Raises one of the errors."""
        return self._known(file) or self._fetched(file)

    def _known(self, file: RemoteFile) -> bytes | None:
        needed = Needed(name=file.path, size=file.size, sha256=file.sha256, git_sha1=file.blob_id or None)
        own = self.known.at_home(needed)
        others = (candidate.path for candidate in self.known.candidates(needed, self.snapshot.repo))
        for path in chain([own] if own else [], others):
            with suppress(OSError):
                content = path.read_bytes()
                if needed.is_met_by(digests.of_bytes(content)):
                    return content
        return None

    def _fetched(self, file: RemoteFile) -> bytes:
        refuse_offline(f"{self.name}/{file.path}")
        with _room(self.scratch) as folder:
            target = folder / "file"
            download = Download(
                path=file.path,
                address=self.address(file),
                target=target,
                size=file.size,
                sha256=file.sha256,
                git_sha1=file.blob_id,
            )
            fetch_all([download], replace(self.limits, jobs=1), Quiet(), lambda _download, _digests: None)
            return target.read_bytes()


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """A local folder, read as it is.

    Its own manifest, if it has one, says what its files were proven to be; without `believe` they are hashed.
    """

    folder: Path
    believe: bool

    @property
    def name(self) -> str:
        return str(self.folder)

    @property
    def record(self) -> FolderRecord:
        return FolderRecord(dir=str(self.folder))

    @property
    def checked_against(self) -> CheckedAgainst:
        return CheckedAgainst.NONE

    @cached_property
    def files(self) -> tuple[RemoteFile, ...]:
        proven = {path: entry.sha256 for path, entry in self.proven.items()}
        with reading(self.folder):
            paths = sorted(
                path
                for path, entry in plain_files(self.folder)
                if not path.startswith(f"{manifest.STATE}/") and entry.is_file()
            )
            return tuple(
                RemoteFile(path=path, size=(self.folder / path).stat().st_size, sha256=proven.get(path), blob_id="")
                for path in paths
            )

    @cached_property
    def proven(self) -> dict[str, Entry]:
        """Those of its files that are as its manifest says."""
        if not self.believe:
            return {}
        try:
            known = manifest.load(self.folder)
            problems = gate.problems(self.folder, known, deep=False)
        except Dsv4Error:
            return {}
        return {path: entry for path, entry in known.files.items() if path not in problems}

    def read(self, file: RemoteFile) -> bytes:
        """A small file's bytes. Raises NotFoundError, Dsv4Error."""
        with reading(self.folder / file.path):
            return (self.folder / file.path).read_bytes()


Source = HubSource | FolderSource
"""A list of files, each with its size and what is promised of its bytes."""


def refuse_offline(what: str) -> None:
    """Raise NetworkError where nobody may be asked for a file."""
    access.refuse_offline(
        what, "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, or name a folder that has it: --reuse DIR"
    )


@contextmanager
def _room(scratch: Path | None) -> Iterator[Path]:
    """A folder for a moment. Raises as `writing` does, and UsageError where temporary files may be nowhere."""
    try:
        parent = scratch or Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise UsageError("no folder for temporary files can be written", "set TMPDIR to one that can") from None
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix="dsv4-", dir=parent))
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)
        if scratch:
            with suppress(OSError):
                scratch.rmdir()


def open_source(
    spec: Spec, lock: Lock, limits: Limits, known: Reuse, note: Callable[[str], None], *, scratch: Path | None
) -> Source:
    """Ask what is there; offline, the lock says so. Raises as `listing.listing`, and IntegrityError where the listing
    is not as in the lock.
    """
    if isinstance(spec, FolderSpec):
        return FolderSource(folder=spec.folder, believe=known.believe)
    found = locked.find(lock, spec.repo, spec.requested)
    if found and access.is_offline():
        snapshot = _as_locked(spec.repo, found)
    else:
        listed = listing.listing(spec.repo, found.revision if found else spec.requested, limits, note)
        snapshot = _agreed(listed, found) if found else listed
    return HubSource(
        snapshot=replace(snapshot, requested=spec.requested),
        is_locked=found is not None,
        limits=limits,
        known=known,
        scratch=scratch,
    )


def _as_locked(repo: str, lock: LockedRepo) -> Snapshot:
    files = tuple(
        RemoteFile(path=path, size=size, sha256=sha256, blob_id="") for path, (size, sha256) in lock.files.items()
    )
    return Snapshot(repo=repo, requested=lock.requested, revision=lock.revision, files=files)


def _agreed(listed: Snapshot, lock: LockedRepo) -> Snapshot:
    """The listing with the lock's sha256 of every file, small ones too."""
    there = {file.path: file for file in listed.files}
    problems = [f"{path}: in the lock, not in the listing" for path in sorted(lock.files.keys() - there.keys())]
    problems += [f"{path}: in the listing, not in the lock" for path in sorted(there.keys() - lock.files.keys())]
    for path in sorted(there.keys() & lock.files.keys()):
        size, sha256 = lock.files[path]
        if (there[path].size, there[path].sha256 or sha256) != (size, sha256):
            problems.append(f"{path}: another size or sha256 than in the lock")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise IntegrityError(
            f"{listed.repo}@{listed.revision} is not as in the lock:\n{lines}", "see what moved: dsv4 lock --check"
        )
    return replace(listed, files=tuple(replace(file, sha256=lock.files[file.path][1]) for file in listed.files))
