"""What `dsv4 lock` asks the network: image digests, wheel hashes, revisions, and each file's size and sha256."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from dsv4_stack import registry, wheels
from dsv4_stack.errors import StaleError
from dsv4_stack.guest import http, hub
from dsv4_stack.lock import Lock, LockedFile, LockedRepo, LockedWheel, repos_of
from dsv4_stack.pins import Checkpoint, Engine, Repo
from dsv4_stack.releases import Wheel

Say = Callable[[str], None]


def resolve(engines: list[Engine], checkpoints: list[Checkpoint], known: Lock, say: Say) -> Lock:
    """A lock for these pins; what `known` holds for the same pin is kept. Raises NetworkError, NotFoundError."""
    images = {engine.base: _digest(engine.base, known, say) for engine in engines if not engine.base_locked}
    hashed = {engine.name: _wheel(engine, engine.wheel, known, say) for engine in engines if engine.wheel}
    repos = {repo.repo: repo for checkpoint in checkpoints for repo in repos_of(checkpoint)}
    return Lock(
        engines=known.engines | hashed,
        images=known.images | images,
        repos=known.repos | {name: _repo(repo, known, say) for name, repo in repos.items()},
    )


def _digest(image: str, known: Lock, say: Say) -> str:
    if image in known.images:
        return known.images[image]
    digest = registry.digest(image)
    say(f"lock: {image} is {digest}")
    return digest


def _wheel(engine: Engine, wheel: Wheel, known: Lock, say: Say) -> LockedWheel:
    locked = known.engines.get(engine.name)
    if locked and locked.url == wheel.url and wheel.sha256 in ("", locked.sha256):
        return locked
    say(f"lock: fetching {wheel.url} to hash it")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wheel")
        digests = http.download(wheel.url, {}, path, size=None, sha256=wheel.sha256 or None)
        record = wheels.record_sha256(path)
    say(f"lock: engine {engine.name}: sha256 {digests.sha256}")
    return LockedWheel(url=wheel.url, sha256=digests.sha256, size=digests.size, record=record)


def _repo(repo: Repo, known: Lock, say: Say) -> LockedRepo:
    requested = repo.revision or repo.branch
    locked = known.repos.get(repo.repo)
    if locked and locked.requested == requested:
        return locked
    snapshot = hub.snapshot(repo.repo, requested)
    say(f"lock: {repo.repo}: {requested} is {snapshot.revision}, {len(snapshot.files)} files")
    files = {file.path: LockedFile(size=file.size, sha256=_sha256(snapshot, file)) for file in snapshot.files}
    return LockedRepo(requested=requested, revision=snapshot.revision, files=files)


def _sha256(snapshot: hub.Snapshot, file: hub.RemoteFile) -> str:
    """The Hub knows the sha256 of large files alone; a small one is fetched, held against its git hash and hashed."""
    if file.sha256:
        return file.sha256
    with tempfile.TemporaryDirectory() as folder:
        return hub.fetch(snapshot, file, Path(folder, "file")).sha256


def moved(engines: list[Engine], checkpoints: list[Checkpoint], known: Lock) -> None:
    """Raise StaleError that names everything whose pin now stands for something else than the lock says."""
    pinned = [(known.engines[engine.name], engine) for engine in engines if engine.name in known.engines]
    problems = [
        f"{engine.base} is now {now}, the lock says {known.images[engine.base]}"
        for engine in engines
        if not engine.base_locked and (now := registry.digest(engine.base)) != known.images[engine.base]
    ]
    problems += [
        f"engine {engine.name}: {locked.url} {problem}"
        for locked, engine in pinned
        if (problem := _moved_wheel(locked))
    ]
    for repo in {repo.repo: repo for checkpoint in checkpoints for repo in repos_of(checkpoint)}.values():
        problems += _moved_repo(repo, known.repos[repo.repo])
    if problems:
        raise StaleError(
            "the lock is out of date:\n" + "\n".join(f"  {problem}" for problem in problems), "run: dsv4 lock --upgrade"
        )


def _moved_wheel(locked: LockedWheel) -> str:
    """What is no longer as in the lock. The RECORD stands for the whole, which is not fetched for this."""
    if (size := http.size_of(locked.url)) != locked.size:
        return f"has {size} bytes, the lock says {locked.size}"
    if locked.record and wheels.remote_record_sha256(locked.url) not in ("", locked.record):
        return "is another wheel of the same size"
    return ""


def _moved_repo(repo: Repo, locked: LockedRepo) -> list[str]:
    snapshot = hub.snapshot(repo.repo, locked.requested)
    if snapshot.revision != locked.revision:
        return [f"{repo.repo}: {locked.requested} is now {snapshot.revision}, the lock says {locked.revision}"]
    now = {file.path: (file.size, file.sha256) for file in snapshot.files}
    then = {path: (entry.size, entry.sha256) for path, entry in locked.files.items()}
    differ = sorted(
        path
        for path in now.keys() | then.keys()
        if path not in now
        or path not in then
        or now[path][0] != then[path][0]
        or now[path][1] not in (None, then[path][1])
    )
    return [f"{repo.repo}: {path} is not as in the lock" for path in differ]
