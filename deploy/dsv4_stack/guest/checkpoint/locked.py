"""The part of dsv4.lock that concerns weights: which commit a revision stands for, and each file's size and sha256."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.files import reading

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class LockedRepo:
    """`files` are sizes in bytes and sha256 by path."""

    requested: str
    revision: str
    files: dict[str, tuple[int, str]]


Lock = dict[str, LockedRepo]


def load(path: Path) -> Lock:
    """What is locked, by repository; an empty file locks nothing. Raises NotFoundError, ConfigError, Dsv4Error."""
    # Docker makes a folder where a file that it should mount is missing.
    with reading(path, "let everybody read it: chmod a+r dsv4.lock"):
        content = b"" if path.is_dir() else path.read_bytes()
    if not content.strip():
        return {}
    try:
        return _lock(json.loads(content))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is not a lock: {type(error).__name__}: {error}", "run: dsv4 lock") from None


def find(lock: Lock, repo: str, requested: str) -> LockedRepo | None:
    """The lock of this repository, if it is one of this revision, be it by its branch or by its commit."""
    locked = lock.get(repo)
    return locked if locked and requested in (locked.requested, locked.revision) else None


def _lock(document: dict[str, Any]) -> Lock:
    if document["schema"] != 1:
        raise ValueError(f"schema {document['schema']}, expected 1")
    return {str(name): _repo(repo) for name, repo in document["repos"].items()}


def _repo(repo: dict[str, Any]) -> LockedRepo:
    files = {path: (entry["size"], entry["sha256"]) for path, entry in repo["files"].items()}
    wrong = [path for path, (size, sha256) in files.items() if type(size) is not int or not _SHA256.fullmatch(sha256)]
    if wrong or not _COMMIT.fullmatch(repo["revision"]):
        raise ValueError(f"no size, sha256 or commit of {', '.join(wrong) or 'the repository'}")
    return LockedRepo(requested=str(repo["requested"]), revision=repo["revision"], files=files)
