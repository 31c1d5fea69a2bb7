"""`dsv4 down`: the containers go, the weights stay."""

import argparse

from dsv4_stack import project, stack
from dsv4_stack.verbs.common import add_profile, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument(
        "--volumes", action="store_true", help="delete the kernel cache too; the weights stay in any case"
    )


def run(args: argparse.Namespace) -> None:
    stack.down(project.prepared(plan_of(args)), volumes=args.volumes)
