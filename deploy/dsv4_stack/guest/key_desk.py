"""The edge's key desk as a service: `python -m dsv4_stack.guest key-desk`."""

import argparse
import signal
import threading
from pathlib import Path

from dsv4_stack.guest.keys import allowance, desk, ring


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help=f"the folder that holds the file {ring.NAME}")
    parser.add_argument("--port", type=int, default=8002, help="where to listen (default: %(default)s)")
    parser.add_argument(
        "--per-minute", type=allowance.rate, default=600, help="requests for each key (default: %(default)s)"
    )
    parser.add_argument(
        "--burst", type=allowance.burst, default=100, help="how many may come at once (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    server = desk.serve(desk.Desk(args.folder / ring.NAME, args.per_minute, args.burst), args.port)
    # As a container's first process it would not end on SIGTERM by itself.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    with server:
        server.serve_forever()
