"""What a directory shall hold, decided before the first shard is fetched: which files, and which config.json."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack.errors import IntegrityError, NotFoundError
from dsv4_stack.guest import convert, digests
from dsv4_stack.guest.checkpoint import index, names
from dsv4_stack.guest.checkpoint.conversions import CheckpointKind
from dsv4_stack.guest.checkpoint.index import TensorNames
from dsv4_stack.guest.checkpoint.manifest import Origin
from dsv4_stack.guest.checkpoint.sources import HubSource, Source
from dsv4_stack.guest.digests import Advance, Digests
from dsv4_stack.guest.files import reading
from dsv4_stack.guest.hub import RemoteFile

CONFIG: Final = convert.CONFIG_NAME
INDEX: Final = "model.safetensors.index.json"
WEIGHTS: Final = ".safetensors"
_NUMBERED: Final = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<of>\d{5})\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Content:
    """Bytes that we have, or made."""

    content: bytes


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file of a repository."""

    source: HubSource
    file: RemoteFile


@dataclass(frozen=True, kw_only=True)
class Local:
    """A file on this machine. What is promised of it holds as long as its mtime is `mtime_ns`, if one is given."""

    path: Path
    mtime_ns: int | None


Supply = Content | Local | Remote
"""Where a file's bytes are to be had."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file to be, and what is promised of it: a sha256, a git hash, or neither for a file of a local folder.

    `tensors` are those that the index puts into a shard, None where there is no index.
    """

    path: str
    size: int
    origin: Origin
    sha256: str | None
    git_sha1: str | None
    supply: Supply
    tensors: TensorNames | None = None

    @property
    def is_weights(self) -> bool:
        return self.path.endswith(WEIGHTS)

    @property
    def needs_git(self) -> bool:
        return not self.sha256 and bool(self.git_sha1)

    @property
    def is_promised(self) -> bool:
        """Else the file of a local folder has to be hashed itself, before it is known what is wanted."""
        return bool(self.sha256 or self.git_sha1)

    def matches(self, found: Digests, advance: Advance) -> bool:
        """Whether these are the file's bytes. `found` has a git hash where that is all that is promised.

        `advance` is told of what has to be hashed for that. Raises NotFoundError, Dsv4Error.
        """
        if self.sha256:
            return found.sha256 == self.sha256
        if self.git_sha1:
            return found.git_sha1 == self.git_sha1
        if not isinstance(self.supply, Local):
            return False
        with reading(self.supply.path):
            return digests.of_file(self.supply.path, advance=advance).sha256 == found.sha256


@dataclass(frozen=True, kw_only=True)
class Selection:
    """All files of the directory, its config.json, and the kind of checkpoint whose config that was, if converted."""

    files: tuple[Wanted, ...]
    config: bytes
    conversion: str | None


def select(base: Source, overlay: Source | None, *, converted: bool, allow: Sequence[str]) -> Selection:
    """Fetches configs and the weights' index, nothing else. `allow` are patterns of names to take beside the usual.

    With an overlay its config.json is taken, if it is the base's after our own conversion; else the base's, `converted`
    or as it is. Raises NotFoundError, ConfigError, IntegrityError, and what the sources raise.
    """
    listed = {file.path: file for file in base.files if names.is_wanted(file.path, allow)}
    _refuse_unsafe(base, listed)
    config = _read(base, listed.get(CONFIG), CONFIG, convert.MAX_BYTES)
    shards = _shards(base, listed)
    conversion = None
    chosen = (config, Origin.BASE)
    if overlay:
        theirs = _read(overlay, {file.path: file for file in overlay.files}.get(CONFIG), CONFIG, convert.MAX_BYTES)
        conversion = _conversion_of_overlay(base, config, overlay, theirs)
        chosen = (theirs, Origin.OVERLAY)
    elif converted:
        conversion, content = convert.convert(config, f"{base.name}/{CONFIG}")
        chosen = (content, Origin.CONVERTED)
    rest = [_of_source(base, file, shards.get(path)) for path, file in sorted(listed.items()) if path != CONFIG]
    files = (_of_bytes(CONFIG, *chosen), *rest)
    return Selection(files=files, config=chosen[0], conversion=conversion and conversion.value)


def _refuse_unsafe(base: Source, listed: dict[str, RemoteFile]) -> None:
    if problems := names.problems_of(listed):
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise IntegrityError(f"{base.name} has names that are not safe to write:\n{lines}", "take another revision")


def _conversion_of_overlay(base: Source, config: bytes, overlay: Source, theirs: bytes) -> CheckpointKind:
    kind, differences = convert.compare_overlay(config, theirs, f"{base.name}/{CONFIG}", f"{overlay.name}/{CONFIG}")
    if differences:
        lines = "\n".join(f"  {line}" for line in differences)
        raise IntegrityError(
            f"{overlay.name}/{CONFIG} is not the {kind} conversion of {base.name}/{CONFIG}:\n{lines}",
            "materialize with --config convert, or pin the base's revision that the overlay was made of",
        )
    return kind


def _shards(base: Source, listed: dict[str, RemoteFile]) -> dict[str, TensorNames]:
    """The tensors of each shard, as far as an index names them. Raises NotFoundError for a shard that is not listed."""
    if not any(path.endswith(WEIGHTS) for path in listed):
        raise NotFoundError(f"{base.name} has no safetensors files", "give the repository of the weights as --base")
    if INDEX not in listed:
        _refuse_gaps(base, listed)
        return {}
    shards = index.parse(_read(base, listed[INDEX], INDEX, index.LIMIT), f"{base.name}/{INDEX}").shards
    if missing := sorted(shards.keys() - listed.keys()):
        lines = "\n".join(f"  {shard}" for shard in missing)
        raise NotFoundError(f"{base.name} lacks shards that its {INDEX} names:\n{lines}", "pin a complete revision")
    return shards


def _refuse_gaps(base: Source, listed: dict[str, RemoteFile]) -> None:
    """Without an index the shards' own numbers say how many there are."""
    missing = set()
    for path in listed:
        if match := _NUMBERED.fullmatch(path):
            rows = range(1, int(match["of"]) + 1)
            row = {f"{match['stem']}-{number:0{len(match['of'])}}-of-{match['of']}{WEIGHTS}" for number in rows}
            missing |= row - listed.keys()
    if missing:
        lines = "\n".join(f"  {shard}" for shard in sorted(missing))
        raise NotFoundError(
            f"{base.name} lacks shards that the others' names count:\n{lines}", "pin a complete revision"
        )


def _read(source: Source, file: RemoteFile | None, path: str, limit: int) -> bytes:
    """A small file's proven bytes."""
    if file is None:
        raise NotFoundError(f"{source.name} has no {path}", "check the repository and its revision")
    if file.size > limit:
        raise IntegrityError(
            f"{source.name}/{path} has {file.size} bytes, more than the {limit} that one may have",
            "pin another revision",
        )
    return source.read(file)


def _of_source(source: Source, file: RemoteFile, tensors: TensorNames | None) -> Wanted:
    return Wanted(
        path=file.path,
        size=file.size,
        origin=Origin.BASE,
        sha256=file.sha256,
        git_sha1=file.blob_id or None,
        supply=_supply(source, file),
        tensors=tensors,
    )


def _supply(source: Source, file: RemoteFile) -> Supply:
    if isinstance(source, HubSource):
        return Remote(source=source, file=file)
    proven = source.proven.get(file.path)
    return Local(path=source.folder / file.path, mtime_ns=proven.mtime_ns if proven else None)


def _of_bytes(path: str, content: bytes, origin: Origin) -> Wanted:
    return Wanted(
        path=path,
        size=len(content),
        origin=origin,
        sha256=digests.of_bytes(content).sha256,
        git_sha1=None,
        supply=Content(content=content),
    )
