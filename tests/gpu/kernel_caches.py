"""What engines leave in their home directory: which folders, how large, and how long each file was waited for."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# How many of a path's first parts tell caches apart.
_DEPTHS = {".cache": 2, ".cache/vllm": 3, "home": 2, "home/.cache": 3, "vllm": 2, "xdg": 2}


@dataclass(frozen=True, kw_only=True)
class Folder:
    """`waited_s` adds up, for each file, the seconds since the file before it was written, of whatever folder."""

    files: int
    bytes: int
    waited_s: float


def files(home: Path) -> set[Path]:
    """Relative to the home."""
    return {path.relative_to(home) for path in home.rglob("*") if path.is_file() and not path.is_symlink()}


def states(home: Path) -> dict[Path, tuple[int, int, int]]:
    """Files as `files` has them, and what changes when one is written again: inode, size, time of the last change."""
    found = {}
    for file in files(home):
        stat = (home / file).stat()
        found[file] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def folder_of(file: Path) -> str:
    """The cache that a file belongs to."""
    depth = _DEPTHS.get("/".join(file.parts[:2]), _DEPTHS.get(file.parts[0], 1))
    return "/".join(file.parts[: min(depth, len(file.parts) - 1)] or ["."])


def folders(home: Path, begun: float) -> dict[str, Folder]:
    """Every cache in the home; `begun` is when the engine was, in seconds since the epoch."""
    stats = sorted(
        ((home / file).stat().st_mtime, (home / file).stat().st_size, folder_of(file)) for file in files(home)
    )
    number, size, waited = Counter[str](), Counter[str](), dict[str, float]()
    for written, length, name in stats:
        number[name] += 1
        size[name] += length
        waited[name] = waited.get(name, 0.0) + max(written - begun, 0.0)
        begun = max(begun, written)
    return {name: Folder(files=number[name], bytes=size[name], waited_s=waited[name]) for name in sorted(number)}


@contextmanager
def without(home: Path, name: str) -> Iterator[None]:
    """That folder lies aside meanwhile, and what takes its place is deleted. With no name nothing is missing."""
    if not name:
        yield
        return
    aside = home.with_name(f"{home.name}.aside") / name
    # A run that was killed left it there.
    if not aside.exists():
        aside.parent.mkdir(parents=True, exist_ok=True)
        (home / name).rename(aside)
    shutil.rmtree(home / name, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(home / name, ignore_errors=True)
        aside.rename(home / name)
