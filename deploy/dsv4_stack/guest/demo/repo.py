"""A folder as the Hub would list it: a commit, and each file's size and hashes."""

import hashlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack.guest import digests, files
from dsv4_stack.guest.checkpoint import names

LFS_BYTES: Final = 64 << 10
_POINTER_BYTES: Final = 134


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One file. A large one's `oid` is the git hash of its LFS pointer on the real Hub, here of its bytes.

    `xet_hash` is "" where it is not in xet storage.
    """

    path: str
    size: int
    oid: str
    sha256: str
    is_lfs: bool
    xet_hash: str = ""

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.oid

    def as_sibling(self) -> dict[str, object]:
        """As `GET /api/models/…?blobs=true` lists it."""
        entry: dict[str, object] = {"rfilename": self.path, "size": self.size, "blobId": self.oid}
        return entry | ({"lfs": {"sha256": self.sha256, **self._lfs_sizes()}} if self.is_lfs else {}) | self._xet()

    def as_tree_entry(self) -> dict[str, object]:
        """As `GET /api/models/…/tree/…` lists it."""
        entry: dict[str, object] = {"type": "file", "path": self.path, "size": self.size, "oid": self.oid}
        return entry | ({"lfs": {"oid": self.sha256, **self._lfs_sizes()}} if self.is_lfs else {}) | self._xet()

    def linked(self) -> dict[str, str]:
        """Headers of an answer that is not the file itself, or may not be."""
        return {"X-Linked-ETag": f'"{self.etag}"', "X-Linked-Size": str(self.size)}

    def _xet(self) -> dict[str, str]:
        return {"xetHash": self.xet_hash} if self.xet_hash else {}

    def _lfs_sizes(self) -> dict[str, int]:
        return {"size": self.size, "pointerSize": _POINTER_BYTES}


class Repos:
    """All repositories below `root`, as org/name/files. A file is hashed once, and again when it changes.

    `known` are sha256 of large files by `org/name/path`, believed without reading: of files that nobody could hash
    in time, or that are holes and only seem to be large. Whoever states them answers for them.
    """

    def __init__(self, root: Path, known: Mapping[str, str] | None = None) -> None:
        self.root = root
        self._known = known or {}
        self._hashed: dict[tuple[Path, int, int], digests.Digests] = {}
        self._hashing = threading.Lock()

    def has(self, repo: str) -> bool:
        return not names.problem_of(repo) and (self.root / repo).is_dir()

    def files(self, repo: str) -> list[Stored]:
        folder = self.root / repo
        entries = sorted(files.plain_files(folder), key=lambda item: item[0])
        return [self._stored(repo, path, entry.stat()) for path, entry in entries]

    def _stored(self, repo: str, path: str, stat: os.stat_result) -> Stored:
        is_lfs = stat.st_size >= LFS_BYTES or path.endswith(".safetensors")
        sha256 = self._known.get(f"{repo}/{path}") if is_lfs else None
        if sha256:
            return Stored(path=path, size=stat.st_size, oid=_pointer(sha256, stat.st_size), sha256=sha256, is_lfs=True)
        found = self._digests(self.root / repo / path, stat)
        return Stored(path=path, size=found.size, oid=found.git_sha1, sha256=found.sha256, is_lfs=is_lfs)

    def _digests(self, path: Path, stat: os.stat_result) -> digests.Digests:
        key = path, stat.st_size, stat.st_mtime_ns
        if key not in self._hashed:
            with self._hashing:
                if key not in self._hashed:
                    self._hashed[key] = digests.of_file(path, git=True)
        return self._hashed[key]


def _pointer(sha256: str, size: int) -> str:
    """The git hash of a file's pointer: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return digests.of_bytes(text.encode()).git_sha1


def revision_of(stored: list[Stored]) -> str:
    """The commit of these files: the same files, the same commit."""
    lines = "".join(f"{file.oid} {file.path}\n" for file in sorted(stored, key=lambda file: file.path))
    return hashlib.sha1(lines.encode(), usedforsecurity=False).hexdigest()
