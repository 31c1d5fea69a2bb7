"""`dsv4 down`: the containers go, the weights stay."""

import argparse

from dsv4_stack import engine, project, stack
from dsv4_stack.verbs.common import add_profile, plan_of


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
    plan = plan_of(args)
    stack.down(project.prepared(plan), volumes=args.volumes)
    if args.caches:
        engine.remove_volume(plan.cache_volume)
