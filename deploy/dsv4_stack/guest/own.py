"""Folders are made and given to the user that the other containers run as; the one step of a stack that needs root.

Volumes come into being as root's. Nothing is followed out of a folder: what lies in it may be anybody's.
"""

import argparse
import os
import stat
from pathlib import Path
from typing import Final

from dsv4_stack.errors import UsageError
from dsv4_stack.guest.checkpoint.manifest import STATE
from dsv4_stack.guest.files import is_of_file_system

ALSO: Final = "DSV4_OWN_"
_NEXT: Final = "name a folder on a file system that knows owners: --weights DIR, or $DSV4_WEIGHTS_DIR"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--uid", type=int, required=True, help="the user's number")
    parser.add_argument("--gid", type=int, required=True, help="the group's number")
    parser.add_argument(
        "--folders", nargs="*", type=Path, default=[], metavar="DIR", help="whose folders are given, and our records"
    )
    parser.add_argument("--enter", type=Path, metavar="DIR", help="a folder that the user has to come through")
    parser.add_argument("--trees", nargs="*", type=Path, default=[], metavar="DIR", help="given with all they hold")


def run(args: argparse.Namespace) -> None:
    given, root = 0, Path()
    # What is laid over a stack has volumes of its own, and may add to the environment but not to the command.
    trees = [*args.trees, *(Path(value) for name, value in sorted(os.environ.items()) if name.startswith(ALSO))]
    try:
        if args.enter and let_in(args.enter, args.uid, args.gid):
            print(f"own: {args.enter} may be entered by everybody who comes so far")
        for root in [*args.folders, *trees]:
            root.mkdir(parents=True, exist_ok=True)
            given += give(root, args.uid, args.gid, files=root in trees)
    except OSError as error:
        where = error.filename or root
        raise UsageError(f"{where} cannot be given to user {args.uid}: {error.strerror}", _NEXT) from None
    print(f"own: {given} given to {args.uid}:{args.gid}")


def let_in(folder: Path, uid: int, gid: int) -> bool:
    """Whether a folder had to be opened. It stays its owner's: it may be any folder of the host. Raises OSError."""
    found = folder.stat()
    needed = 0o500 if found.st_uid == uid else 0o050 if found.st_gid == gid else 0o005
    if found.st_mode & needed == needed:
        return False
    folder.chmod(stat.S_IMODE(found.st_mode) | needed)
    return True


def give(root: Path, uid: int, gid: int, *, files: bool) -> int:
    """How many had another owner. Weights stay whose they are: they may be hard links to somebody's originals.

    Raises OSError.
    """
    count = 0
    for path, folders, names, handle in os.fwalk(root, follow_symlinks=False):
        # What the walk does not find in the list it does not enter.
        folders[:] = [name for name in folders if not is_of_file_system(str((Path(path) / name).relative_to(root)))]
        ours = [""] + (names if files or STATE in Path(path).relative_to(root).parts else [])
        for name in ours:
            count += _give_one(name, handle, uid, gid)
    return count


def _give_one(name: str, folder: int, uid: int, gid: int) -> bool:
    """A file in an open folder, or the folder itself for ""."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False) if name else os.fstat(folder)
    is_shared = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
    if (found.st_uid, found.st_gid) == (uid, gid) or stat.S_ISLNK(found.st_mode) or is_shared:
        return False
    if name:
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
    else:
        os.fchown(folder, uid, gid)
    return True
