"""`dsv4 keys`: API keys for the edge, given and taken while it runs."""

import argparse
import os
from pathlib import Path

from dsv4_stack.errors import UsageError
from dsv4_stack.guest.keys import ring
from dsv4_stack.plan import KEYS_DIR
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
    except PermissionError as error:
        raise UsageError(
            f"{error.filename} cannot be written: {error.strerror}", "run it with sudo, or name a folder with --dir"
        ) from None


def _do(args: argparse.Namespace, file: Path) -> None:
    if args.action == "add":
        print(ring.add(file, args.name))
        say(f"keys: {file} has {args.name}'s hash; the key itself is kept nowhere")
    elif args.action == "revoke":
        ring.revoke(file, args.name)
        say(f"keys: {args.name} is revoked")
    elif args.json:
        print_json(list(ring.load(file)))
    else:
        print("".join(f"{name}\n" for name in ring.load(file)), end="")
