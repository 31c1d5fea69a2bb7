"""New files for a folder, in place only when every one of them is there; until then, and else, it stays as it was.

They are staged inside the folder: from another file system no rename leads in.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from dsv4_stack.guest.files import writing

NAME: Final = ".dsv4-stage"
_NEW: Final = "new"
_OLD: Final = "old"


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to fill with what shall be in `folder` when the block ends, and not when it fails.

    Raises as `writing` does.
    """
    root = folder / NAME
    with writing(folder):
        _clear(root)
        (root / _NEW).mkdir(parents=True)
    try:
        yield root / _NEW
        with writing(folder):
            _move(root / _NEW, folder, root / _OLD)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _clear(root: Path) -> None:
    """What a killed one left: if it was already about to put things in place, those that they replaced come back."""
    if not root.is_dir():
        return
    for left in root.iterdir():
        if left.name != _OLD:
            shutil.rmtree(left)
    if (root / _OLD).is_dir():
        _move(root / _OLD, root.parent, root / "undone")
    shutil.rmtree(root)


def _move(new: Path, folder: Path, old: Path) -> None:
    """All that `new` holds into the folder, over what is there, or nothing of it. Raises OSError."""
    with ExitStack() as undo:
        _place(new, folder, old, undo)
        # From here on a kill takes nothing back.
        old.rename(old.with_name(f"{old.name}-gone"))
        undo.pop_all()


def _place(new: Path, place: Path, old: Path, undo: ExitStack) -> None:
    """By renames alone; a folder that is not there yet goes as a whole."""
    if new.is_dir() and place.is_dir():
        old.mkdir()
        for each in list(new.iterdir()):
            _place(each, place / each.name, old / each.name, undo)
        return
    if os.path.lexists(place):
        place.rename(old)
        undo.callback(old.rename, place)
    new.rename(place)
    undo.callback(place.rename, new)
