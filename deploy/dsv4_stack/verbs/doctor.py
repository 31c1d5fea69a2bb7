"""`dsv4 doctor`: look at this machine before anything is touched."""

import argparse

from dsv4_stack import doctor
from dsv4_stack.verbs.common import (
    add_json,
    add_overlays,
    add_profile,
    add_site,
    overlays_of,
    overrides_of,
    plan_of,
    print_json,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_site(parser)
    add_overlays(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    plan = plan_of(args)
    findings = doctor.examine(plan, overrides_of(args), overlays_of(args, plan))
    if args.json:
        print_json([finding.document() for finding in findings])
    else:
        for finding in findings:
            print(finding)
    doctor.raise_for(findings)
