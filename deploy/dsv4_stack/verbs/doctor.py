"""`dsv4 doctor`: look at this machine before anything is touched."""

import argparse

from dsv4_stack import doctor
from dsv4_stack.verbs.common import add_json, add_profile, add_site, overrides_of, plan_of, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_site(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    findings = doctor.examine(plan_of(args), overrides_of(args))
    if args.json:
        print_json([finding.document() for finding in findings])
    else:
        for finding in findings:
            print(finding)
    doctor.raise_for(findings)
