"""`dsv4 keys`: API keys for the edge, given and taken while it runs."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from dsv4_stack.errors import UsageError
from dsv4_stack.guest.keys import ring
from dsv4_stack.plan import KEYS_DIR, UID
from dsv4_stack.verbs.common import add_json, print_json, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(os.environ.get("DSV4_KEYS_DIR") or KEYS_DIR),
        metavar="DIR",
        help=f"the folder that holds the keys' hashes (default: $DSV4_KEYS_DIR, else {KEYS_DIR})",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    adding = actions.add_parser("add", help="make a key, print it once and keep its hash")
    revoking = actions.add_parser("revoke", help="take a key back; the edge knows it no more from the next request on")
    for action in (adding, revoking):
        action.add_argument("name", help="whose key it is")
    add_json(actions.add_parser("list", help="the names of the keys"))


def run(args: argparse.Namespace) -> None:
    file = args.dir / ring.NAME
    try:
        _do(args, file)
    except UsageError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        raise UsageError(error.message, f"name a folder of yours with --dir, or run: {_as_root(args)}") from error


def _as_root(args: argparse.Namespace) -> str:
    """sudo has another PATH and drops the environment, so everything is named."""
    words = ["sudo", sys.executable, "-m", "dsv4_stack", "keys", "--dir", str(args.dir.absolute())]
    return shlex.join([*words, args.action, args.name])


def _do(args: argparse.Namespace, file: Path) -> None:
    if args.action == "add":
        print(ring.add(file, args.name))
        say(f"keys: {file} has {args.name}'s hash; the key itself is kept nowhere")
        _warn_of_a_closed_folder(args.dir)
    elif args.action == "revoke":
        ring.revoke(file, args.name)
        say(f"keys: {args.name} is revoked")
    elif args.json:
        print_json(list(ring.load(file)))
    else:
        print("".join(f"{name}\n" for name in ring.load(file)), end="")


def _warn_of_a_closed_folder(folder: Path) -> None:
    """One that was there before. Who gave the containers another user knows what that one may read."""
    found = folder.stat()
    is_theirs = os.environ.get("DSV4_UID") or os.environ.get("DSV4_GID") or found.st_uid == UID
    if found.st_mode & 0o005 != 0o005 and not is_theirs:
        say(f"keys: the edge runs as user {UID}, which may not read {folder}\n  next: run: chmod a+rx {folder}")
