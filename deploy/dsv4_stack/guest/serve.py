"""The engine image's way to serve: weights as in their manifest, patches in effect, then vLLM under a watch.

It runs at every start, because `compose restart` and a reboot bypass the init container.
"""

import argparse
import os
import sys

from dsv4_stack.errors import UsageError
from dsv4_stack.guest import ready
from dsv4_stack.guest.serving import caches, patience, question, supervisor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    ready.add_arguments(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the engine and its flags")


def run(args: argparse.Namespace) -> None:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("there is no engine to serve with", "name it after --: … serve DIR -- vllm serve DIR")
    ready.run(args)
    site = supervisor.site_of(args.directory)
    caches.check(site.caches)
    asked = os.environ.get("DSV4_QUESTION", "")
    borne = patience.of_json(os.environ.get("DSV4_PATIENCE", "{}"))
    watched = supervisor.Supervisor(site, command, question.of_json(asked) if asked else None, borne)
    sys.exit(watched.run())
