"""`dsv4 logs`: what the containers say."""

import argparse

from dsv4_stack import engine, project
from dsv4_stack.verbs.common import add_profile, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("--follow", "-f", action="store_true", help="go on as they speak")
    parser.add_argument("--tail", default="all", metavar="N", help="the last N lines of each")
    parser.add_argument("services", nargs="*", help="materialize, serve; all without a name")


def run(args: argparse.Namespace) -> None:
    plan = plan_of(args)
    follow = ["--follow"] if args.follow else []
    engine.compose(project.prepared(plan), "logs", "--tail", args.tail, *follow, *args.services, to_stdout=True)
