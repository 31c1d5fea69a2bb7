"""What a folder takes on its disk."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

RECORD_BYTES: Final = 64 << 10
"""Files up to this size are a tool's own records; a larger one that is no part of the checkpoint is an orphan."""


def allocated(folders: Iterable[Path]) -> int:
    """Bytes of the blocks that the files take, claimed ones as well."""
    return sum(stat.st_blocks * 512 for folder in folders for _, stat in files(folder))


def written(folder: Path) -> int:
    """Bytes that were really written, to a page: what is claimed but empty does not count."""
    return sum(_written(path) for path, _ in files(folder))


def orphans(folder: Path, wanted: Iterable[str]) -> int:
    """Bytes in files that are neither wanted nor small enough for records."""
    known = {folder / path for path in wanted}
    return sum(stat.st_size for path, stat in files(folder) if path not in known and stat.st_size > RECORD_BYTES)


def files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All regular files below; one that goes away meanwhile is left out."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    yield from files(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)


def _written(path: Path) -> int:
    total = 0
    with suppress(OSError), path.open("rb") as file:  # ENXIO: no data after this offset
        end = 0
        while True:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            total += end - start
    return total
