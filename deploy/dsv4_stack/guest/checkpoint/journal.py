"""What we wrote into a directory that is not finished, so that a killed run neither forgets nor takes it for foreign.

`.dsv4/journal.jsonl` has a line for each file, with what it was proven to be. While it is there, there is no manifest.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Final

from dsv4_stack.guest.checkpoint.manifest import NAME, STATE, Entry, entry_of
from dsv4_stack.guest.files import reading, sync_folder, write_atomically, writing

_JOURNAL: Final = f"{STATE}/journal.jsonl"


def read(folder: Path) -> dict[str, Entry]:
    """What an unfinished run left, by path; the last line of a path counts. A torn line is none."""
    path = folder / _JOURNAL
    if not path.exists():
        return {}
    with reading(path):
        lines = path.read_bytes().splitlines()
    return dict(entry for line in lines for entry in _entries(line))


class Journal:
    """Opening it takes the directory's manifest away: what follows changes files. Raises as `writing` does."""

    def __init__(self, folder: Path, ours: Mapping[str, Entry]) -> None:
        self.entries = dict(ours)
        self._path = folder / _JOURNAL
        self._lock = Lock()
        write_atomically(self._path, b"".join(_line(path, entry) for path, entry in ours.items()))
        with writing(folder / NAME):
            (folder / NAME).unlink(missing_ok=True)
            sync_folder(folder / STATE)

    def add(self, path: str, entry: Entry) -> None:
        """Before the file is renamed into place: a rename keeps size and mtime, so a killed run can tell."""
        with self._lock, writing(self._path), self._path.open("ab") as file:
            file.write(_line(path, entry))
            file.flush()
            os.fsync(file.fileno())
            self.entries[path] = entry


def forget(folder: Path) -> None:
    """The manifest is written: it says all of this."""
    with writing(folder / _JOURNAL):
        (folder / _JOURNAL).unlink()
        sync_folder(folder / STATE)


def _line(path: str, entry: Entry) -> bytes:
    return (json.dumps({"path": path, **asdict(entry)}) + "\n").encode()


def _entries(line: bytes) -> list[tuple[str, Entry]]:
    try:
        fields = json.loads(line)
        return [(str(fields["path"]), entry_of(fields, "line"))]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
