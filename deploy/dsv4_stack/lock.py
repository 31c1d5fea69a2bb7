"""dsv4.lock: what the network said, written down. Reading it and laying it over the pins is pure; `resolve` asks."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dsv4_stack.errors import ConfigError
from dsv4_stack.pins import Checkpoint, Engine, Pins, Repo


@dataclass(frozen=True, kw_only=True)
class LockedFile:
    """Size in bytes and sha256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class LockedRepo:
    """A repository at the commit that `requested` (a branch or a commit) stood for, and its files."""

    requested: str
    revision: str
    files: dict[str, LockedFile]


@dataclass(frozen=True, kw_only=True)
class LockedWheel:
    """The wheel behind a URL, by its sha256 and size in bytes, and the sha256 of the RECORD in it."""

    url: str
    sha256: str
    size: int
    record: str = ""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """All of dsv4.lock; an empty one is "unlocked"."""

    engines: dict[str, LockedWheel] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    """Tag -> digest, of images that are pinned by tag alone."""
    repos: dict[str, LockedRepo] = field(default_factory=dict)

    def text(self) -> str:
        """The file's text: stable order, so that a diff shows what moved."""
        document = {
            "schema": 1,
            "engines": {name: vars(wheel) for name, wheel in self.engines.items()},
            "images": self.images,
            "repos": {
                name: {
                    "requested": repo.requested,
                    "revision": repo.revision,
                    "files": {path: vars(entry) for path, entry in repo.files.items()},
                }
                for name, repo in self.repos.items()
            },
        }
        return json.dumps(document, indent=2, sort_keys=True) + "\n"


def load(path: Path) -> Lock:
    """The lock, or an empty one where there is no file. Raises ConfigError."""
    if not path.exists():
        return Lock()
    try:
        return _lock(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise ConfigError(
            f"{path} is not a lock: {type(error).__name__}: {error}", "run: dsv4 lock --upgrade"
        ) from None


def _lock(document: dict[str, Any]) -> Lock:
    if document["schema"] != 1:
        raise ValueError(f"schema {document['schema']}, expected 1")
    return Lock(
        engines={name: LockedWheel(**wheel) for name, wheel in document["engines"].items()},
        images={name: str(digest) for name, digest in document.get("images", {}).items()},
        repos={
            name: LockedRepo(
                requested=repo["requested"],
                revision=repo["revision"],
                files={path: LockedFile(**entry) for path, entry in repo["files"].items()},
            )
            for name, repo in document["repos"].items()
        },
    )


def apply(pins: Pins, lock: Lock) -> Pins:
    """The pins with everything filled in that the lock knows. An entry that no longer fits its pin is left out."""
    return replace(
        pins,
        engines={name: _locked_engine(engine, lock) for name, engine in pins.engines.items()},
        checkpoints={name: _locked_checkpoint(checkpoint, lock) for name, checkpoint in pins.checkpoints.items()},
    )


def _locked_engine(engine: Engine, lock: Lock) -> Engine:
    digest = lock.images.get(engine.base)
    if digest:
        engine = replace(engine, base=f"{engine.base}@{digest}")
    locked = lock.engines.get(engine.name)
    if engine.wheel is None or locked is None or locked.url != engine.wheel.url or engine.wheel.sha256:
        return engine
    return replace(engine, wheel=replace(engine.wheel, sha256=locked.sha256, record=locked.record))


def _locked_checkpoint(checkpoint: Checkpoint, lock: Lock) -> Checkpoint:
    overlay = checkpoint.overlay and _locked_repo(checkpoint.overlay, lock)
    return replace(checkpoint, base=_locked_repo(checkpoint.base, lock), overlay=overlay)


def _locked_repo(repo: Repo, lock: Lock) -> Repo:
    locked = lock.repos.get(repo.repo)
    if repo.revision or locked is None or locked.requested != repo.branch:
        return repo
    return replace(repo, revision=locked.revision)


def repos_of(checkpoint: Checkpoint) -> list[Repo]:
    """The repositories whose files the lock holds; the demo's own are made on the spot."""
    return [] if checkpoint.seeded else [repo for repo in (checkpoint.base, checkpoint.overlay) if repo]


def unlocked(engines: list[Engine], checkpoints: list[Checkpoint], lock: Lock) -> list[str]:
    """What is still to be asked of the network for these (already `apply`-ed) pins, in words and in order."""
    wheels = [
        f"engine {engine.name}: wheel sha256 unlocked" for engine in engines if engine.wheel and not engine.wheel.sha256
    ]
    images = [f"engine {engine.name}: digest of {engine.base} unlocked" for engine in engines if not engine.base_locked]
    repos = {repo.repo: _unlocked_repo(repo, lock) for checkpoint in checkpoints for repo in repos_of(checkpoint)}
    return images + wheels + [f"repo {name}: {problem}" for name, problem in sorted(repos.items()) if problem]


def _unlocked_repo(repo: Repo, lock: Lock) -> str:
    if not repo.revision:
        return f"revision of {repo.branch} unlocked"
    locked = lock.repos.get(repo.repo)
    if locked is None or locked.revision != repo.revision:
        return "file sizes and sha256 unlocked"
    return ""
