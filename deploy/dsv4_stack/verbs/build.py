"""`dsv4 build`: a profile's images."""

import argparse

from dsv4_stack import project, stack
from dsv4_stack.verbs.common import add_json, add_profile, print_json, say
from dsv4_stack.verbs.lock import add_no_lock, locked_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_no_lock(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    plan = locked_plan(args)
    images = stack.build(plan, project.prepare(plan), say)
    if args.json:
        print_json(images)
    else:
        for reference, identity in images.items():
            print(f"{reference}  {identity}")
