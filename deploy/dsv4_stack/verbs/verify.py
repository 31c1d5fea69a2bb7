"""`dsv4 verify`: hold what runs against the plan."""

import argparse

from dsv4_stack import stack, verify
from dsv4_stack.verbs.common import add_json, add_profile, add_site, overrides_of, plan_of, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_site(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    plan = plan_of(args)
    findings = verify.verify(plan, stack.url(plan, overrides_of(args)))
    if args.json:
        print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            print(finding)
    verify.raise_for(plan, findings)
