"""`.dsv4/manifest.json`: what a materialized directory holds, and where it came from. It is written last."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from dsv4_stack import __version__
from dsv4_stack.errors import IntegrityError, NotFoundError
from dsv4_stack.guest.checkpoint import names
from dsv4_stack.guest.files import reading, write_atomically

SCHEMA: Final = 1
TOOL: Final = f"dsv4-stack {__version__}"
STATE: Final = ".dsv4"
NAME: Final = f"{STATE}/manifest.json"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_MATERIALIZE: Final = "run: dsv4 materialize, which writes it"

T = TypeVar("T")


class ConfigKind(StrEnum):
    """Which config.json the directory has."""

    OVERLAY = "overlay"
    CONVERT = "convert"
    BASE = "base"


class Origin(StrEnum):
    """Where a file came from."""

    BASE = "base"
    OVERLAY = "overlay"
    CONVERTED = "converted"


class CheckedAgainst(StrEnum):
    """Who promised the bytes: the lock, the Hub's listing alone, or nobody (a local folder)."""

    LOCK = "lock"
    HUB = "hub"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class HubRecord:
    """A repository, the revision that was asked for, and the commit that it was."""

    repo: str
    requested: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:12]}…"


@dataclass(frozen=True, kw_only=True)
class FolderRecord:
    """An absolute path."""

    dir: str

    def __str__(self) -> str:
        return self.dir


SourceRecord = HubRecord | FolderRecord


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file as it was when it was proven: `size` in bytes, `mtime_ns` since 1970.

    `inode` is its number in the file system, None where an older release wrote the entry.
    """

    size: int
    sha256: str
    mtime_ns: int
    origin: Origin
    inode: int | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`conversion` is the kind of checkpoint whose config was converted, or None for an unchanged config.

    `allow` are the patterns of names that were taken beside the usual ones. `examined_for` is who the config was
    examined for (a Loader), or "".
    """

    tool: str
    base: SourceRecord
    overlay: SourceRecord | None
    config: ConfigKind
    conversion: str | None
    checked_against: CheckedAgainst
    files: dict[str, Entry]
    allow: tuple[str, ...] = ()
    examined_for: str = ""

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files.values())

    def provenance(self) -> dict[str, object]:
        """All but the files, as plain JSON."""
        return {key: value for key, value in asdict(self).items() if key != "files"}

    def __str__(self) -> str:
        return f"{self.conversion or self.config} from {self.base}"


def loader_name(release: str, ranks: int, *, mtp: bool) -> str:
    """As `examined_for` has it. A start that has nothing to do need not import the Loader for that."""
    return f"vLLM {release} on {ranks} GPUs{', with the MTP draft' if mtp else ''}"


def store(folder: Path, manifest: Manifest) -> None:
    """Raises NoSpaceError, UsageError, Dsv4Error."""
    fields = asdict(manifest)
    files = dict(sorted(fields.pop("files").items()))
    ordered = {"schema": SCHEMA, **fields, "files": files}
    write_atomically(folder / NAME, (json.dumps(ordered, indent=2) + "\n").encode())


def load(folder: Path) -> Manifest:
    """Raises NotFoundError where there is none, IntegrityError where it is none, Dsv4Error where it cannot be read."""
    path = folder / NAME
    try:
        with reading(path):
            content = path.read_bytes()
    except NotFoundError:
        raise NotFoundError(f"{folder} has no manifest, so it is not materialized", _MATERIALIZE) from None
    return parse(content, str(path))


def parse(content: bytes, name: str) -> Manifest:
    """`name` is for messages. Raises IntegrityError."""
    try:
        return _manifest(json.loads(content))
    except RecursionError:
        raise IntegrityError(f"{name} is no manifest: nested too deeply", _MATERIALIZE) from None
    except ValueError as error:
        raise IntegrityError(f"{name} is no manifest: {error}", _MATERIALIZE) from None


def entry_of(value: object, where: str) -> Entry:
    """An entry of `files`. Raises ValueError."""
    fields = _fields(value, where)
    size = _of_type(fields, "size", int, where)
    if size < 0:
        raise ValueError(f"{where}.size should not be negative")
    return Entry(
        size=size,
        sha256=_matching(fields, "sha256", _SHA256, where),
        mtime_ns=_of_type(fields, "mtime_ns", int, where),
        origin=Origin(_of_type(fields, "origin", str, where)),
        inode=None if fields.get("inode") is None else _of_type(fields, "inode", int, where),
    )


def _manifest(document: object) -> Manifest:
    fields = _fields(document, "manifest")
    if fields.get("schema") != SCHEMA:
        raise ValueError(f"schema should be {SCHEMA}, not {json.dumps(fields.get('schema'))}")
    listed = _fields(fields.get("files"), "files")
    if problems := names.problems_of(listed):
        raise ValueError(f"files: {'; '.join(problems)}")
    overlay = fields.get("overlay")
    conversion = fields.get("conversion")
    return Manifest(
        tool=_of_type(fields, "tool", str, "manifest"),
        base=_record(fields.get("base"), "base"),
        overlay=None if overlay is None else _record(overlay, "overlay"),
        config=ConfigKind(_of_type(fields, "config", str, "manifest")),
        conversion=None if conversion is None else _of_type(fields, "conversion", str, "manifest"),
        checked_against=CheckedAgainst(_of_type(fields, "checked_against", str, "manifest")),
        files={path: entry_of(value, f"files.{path}") for path, value in listed.items()},
        allow=_texts(fields.get("allow", []), "allow"),
        examined_for=_of_type({"examined_for": "", **fields}, "examined_for", str, "manifest"),
    )


def _record(value: object, where: str) -> SourceRecord:
    fields = _fields(value, where)
    if "dir" in fields:
        return FolderRecord(dir=_of_type(fields, "dir", str, where))
    return HubRecord(
        repo=_of_type(fields, "repo", str, where),
        requested=_of_type(fields, "requested", str, where),
        revision=_matching(fields, "revision", _COMMIT, where),
    )


def _fields(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} should be an object")  # noqa: TRY004 - of the file's content, not of a call
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{where} should be a list of strings")
    return tuple(value)


def _of_type(fields: Mapping[str, Any], key: str, kind: type[T], where: str) -> T:
    value = fields.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}.{key} should be {'an integer' if kind is int else 'a string'}")  # noqa: TRY004 - as above
    return value


def _matching(fields: Mapping[str, Any], key: str, pattern: re.Pattern[str], where: str) -> str:
    value = _of_type(fields, key, str, where)
    if not pattern.fullmatch(value):
        raise ValueError(f"{where}.{key} should be hex as {pattern.pattern}")
    return value
