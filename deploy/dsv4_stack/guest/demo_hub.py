"""The demo's Hub: seed two tiny repositories, then serve them. Each request is a JSON line on stderr."""

import argparse
import json
import tempfile
from pathlib import Path

from dsv4_stack.errors import UsageError
from dsv4_stack.guest import files
from dsv4_stack.guest.demo import seed, server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, nargs="?", help="a folder of org/name/files to serve instead")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--private",
        action="append",
        default=[],
        metavar="ORG/NAME=TOKEN",
        help="show this repository to one token only",
    )
    parser.add_argument(
        "--known", type=Path, metavar="FILE", help='JSON of large files\' sha256, {"ORG/NAME/PATH": "…"}; taken as said'
    )
    # For benchmarks: whoever reaches the port may see what was asked, and change what is answered.
    parser.add_argument("--control", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    private = dict(entry.partition("=")[::2] for entry in args.private)
    if not all(private.values()):
        raise UsageError("--private takes ORG/NAME=TOKEN", "for example --private demo/tiny-counter=secret")
    known = _known(args.known) if args.known else {}
    if args.root and not args.root.is_dir():
        raise UsageError(f"there is no folder {args.root}", "name one that holds org/name/files")
    with tempfile.TemporaryDirectory() as folder:
        root = args.root or Path(folder)
        if not args.root:
            seed.write_repos(root)
        server.serve(root, args.host, args.port, private=private, known=known, control=args.control)


def _known(path: Path) -> dict[str, str]:
    with files.reading(path):
        content = path.read_bytes()
    try:
        return {str(name): str(sha256) for name, sha256 in json.loads(content).items()}
    except (ValueError, AttributeError):
        raise UsageError(f"{path} is no JSON object", 'write {"ORG/NAME/PATH": "sha256 in hex"}') from None
