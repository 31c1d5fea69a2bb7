"""`dsv4 warm`: compiled kernels before anybody waits for them, and from one machine to the next."""

import argparse
from pathlib import Path

from dsv4_stack import engine, kernels
from dsv4_stack.errors import NotReadyError
from dsv4_stack.plan import Plan
from dsv4_stack.verbs.common import add_json, add_profile, plan_of, print_json, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_json(parser)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--export", type=Path, metavar="FILE", help="write the kernel caches into an archive (.tar.gz)")
    way.add_argument("--import", type=Path, metavar="FILE", dest="archive", help="take them from one, before `dsv4 up`")
    parser.add_argument("lengths", nargs="*", type=int, metavar="N", help="tokens of the prompts that warm it")


def run(args: argparse.Namespace) -> None:
    plan = plan_of(args)
    if args.export:
        kernels.export_to(plan, args.export, say)
    elif args.archive:
        kernels.import_from(plan, args.archive, say)
    else:
        _warm(plan, args)


def _warm(plan: Plan, args: argparse.Namespace) -> None:
    serve = engine.states(plan.project).get("serve")
    if serve is None or serve.health != "healthy":
        raise NotReadyError(f"{plan.project}: serve is not ready", f"run: dsv4 up --profile {plan.profile.name}")
    warmed = engine.ask_guest(serve, "warm", *map(str, args.lengths))
    if args.json:
        print_json(warmed)
        return
    for each in warmed:
        print(f"{each['length']} tokens: {each['seconds']:.1f} s")
