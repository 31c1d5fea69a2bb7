"""`dsv4 down`: the containers go, the weights stay."""

import argparse

from dsv4_stack import project, render, stack, volumes
from dsv4_stack.verbs.common import add_profile, plan_of, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument(
        "--caches", action="store_true", help="delete the engine's compiled kernels too; the next start compiles again"
    )
    parser.add_argument(
        "--volumes",
        action="store_true",
        help="delete those, what was measured, and the edge's certificates with their authority; the weights stay",
    )


def run(args: argparse.Namespace) -> None:
    files = project.prepared(plan_of(args))
    stack.down(files, volumes=args.volumes)
    if args.caches:
        # Of the engine that was started, be it today's choice or not.
        name = render.cache_volume(files[0])
        say(f"down: {name} is deleted" if volumes.remove(name) else f"down: there is no volume {name}")
