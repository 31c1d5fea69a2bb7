"""What the command line asks for: sources, and which config.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack.errors import NotFoundError, UsageError
from dsv4_stack.guest import references
from dsv4_stack.guest.checkpoint import locked, names
from dsv4_stack.guest.checkpoint.locked import Lock
from dsv4_stack.guest.checkpoint.manifest import ConfigKind, FolderRecord, HubRecord, Manifest, Origin, SourceRecord
from dsv4_stack.guest.files import plain_files

CONFIG: Final = "config.json"
_FOLDER_STARTS: Final = ("/", "./", "../", "~")


@dataclass(frozen=True, kw_only=True)
class HubSpec:
    """What the command line asks for: `requested` is a branch, a tag or a commit."""

    repo: str
    requested: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.requested}"


@dataclass(frozen=True, kw_only=True)
class FolderSpec:
    """`folder` is absolute."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)


Spec = HubSpec | FolderSpec


@dataclass(frozen=True, kw_only=True)
class Request:
    """One directory's worth. `overlay` belongs to the config kind of that name, and only to it.

    `allow` are patterns of file names to take beside weights, configs and tokenizers.
    """

    base: Spec
    overlay: Spec | None
    config: ConfigKind
    allow: tuple[str, ...] = ()

    def has_old_sources(self, manifest: Manifest, written_ns: int) -> bool:
        """Whether the local sources are as they were when a manifest was written that answers this."""
        base = {path for path, entry in manifest.files.items() if entry.origin is Origin.BASE} | {CONFIG}
        if isinstance(self.base, FolderSpec) and not _is_old(self.base.folder, base, self.allow, written_ns):
            return False
        return not isinstance(self.overlay, FolderSpec) or _is_old(self.overlay.folder, {CONFIG}, None, written_ns)

    def is_answered_by(self, manifest: Manifest, lock: Lock) -> bool:
        """Whether the directory of this manifest is what is asked for, as far as can be told without the network."""
        if (
            manifest.config is not self.config
            or manifest.allow != self.allow
            or (manifest.overlay is None) != (self.overlay is None)
        ):
            return False
        pairs = [(self.base, manifest.base), (self.overlay, manifest.overlay)]
        return all(_is_answered(spec, record, lock) for spec, record in pairs if spec) and _agrees(manifest, lock)


def _is_old(folder: Path, files: set[str], allow: tuple[str, ...] | None, time_ns: int) -> bool:
    """Whether these files of a local source have not changed since; with `allow`, whether it has no others either.

    By their change times, which no copy brings along. A new name for one of them changes it too: then the source is
    looked into again, which costs time and nothing else.
    """
    try:
        there = {
            path: entry.stat().st_ctime_ns for path, entry in plain_files(folder) if names.is_wanted(path, allow or ())
        }
    except OSError:
        return False
    has_others = allow is not None and bool(there.keys() - files)
    return not has_others and files <= there.keys() and all(there[path] <= time_ns for path in files)


def _is_answered(spec: Spec, record: SourceRecord | None, lock: Lock) -> bool:
    if isinstance(spec, FolderSpec):
        return record == FolderRecord(dir=str(spec.folder))
    if not isinstance(record, HubRecord) or record.repo != spec.repo:
        return False
    found = locked.find(lock, spec.repo, spec.requested)
    return record.revision == found.revision if found else spec.requested in (record.requested, record.revision)


def _agrees(manifest: Manifest, lock: Lock) -> bool:
    """Whether the files of each repository are those of its lock, where there is one of the same commit."""
    for origin, record in ((Origin.BASE, manifest.base), (Origin.OVERLAY, manifest.overlay)):
        found = lock.get(record.repo) if isinstance(record, HubRecord) else None
        if not isinstance(record, HubRecord) or not found or found.revision != record.revision:
            continue
        files = {path: entry for path, entry in manifest.files.items() if entry.origin is origin}
        if any(found.files.get(path) != (entry.size, entry.sha256) for path, entry in files.items()):
            return False
    return True


def parse(reference: str) -> Spec:
    """SRC of the command line: a folder that is there, or a repository. Raises UsageError, NotFoundError.

    What begins with `/`, `./`, `../` or `~` is meant as a folder even if there is none.
    """
    if not _is_folder(reference):
        repo, revision = references.parse_reference(reference)
        return HubSpec(repo=repo, requested=revision)
    folder = _folder(reference)
    if not _is_dir(folder):
        raise NotFoundError(f"there is no folder {folder}", "give a folder that exists, or org/name@revision")
    return FolderSpec(folder=folder)


def _is_folder(reference: str) -> bool:
    return reference.startswith(_FOLDER_STARTS) or _is_dir(Path(reference))


def _folder(reference: str) -> Path:
    """Absolute, or as it was written where that is no path at all: no such user, a loop of links, a null byte."""
    try:
        return Path(reference).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        return Path(reference)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def refuse_overlap(spec: Spec | None, dest: Path) -> None:
    """Raise UsageError where a local source and the destination lie in one another."""
    if isinstance(spec, FolderSpec) and (spec.folder.is_relative_to(dest) or dest.is_relative_to(spec.folder)):
        raise UsageError(f"{spec.folder} and {dest} lie in one another", "choose a --dest apart from the source")
