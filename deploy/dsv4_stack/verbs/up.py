"""`dsv4 up`: first the checks, which touch nothing; then build, materialize and serve."""

import argparse
import time

from dsv4_stack import doctor, project, stack, verify
from dsv4_stack.verbs.common import (
    FLAGS,
    add_json,
    add_overlays,
    add_profile,
    add_site,
    overlays_of,
    overrides_of,
    plan_of,
    print_json,
    say,
)
from dsv4_stack.verbs.lock import add_no_lock, locked_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_site(parser)
    add_no_lock(parser)
    add_json(parser)
    add_overlays(parser)
    parser.add_argument("--skip-doctor", action="store_true", help="start although the machine does not fit")
    parser.add_argument(
        "--no-verify", action="store_true", help="stop at ready; do not hold what runs against the plan"
    )


def run(args: argparse.Namespace) -> None:
    started, overrides = time.monotonic(), overrides_of(args)
    if not args.skip_doctor:
        looked_at = plan_of(args)
        examined = doctor.examine(looked_at, overrides, overlays_of(args, looked_at))
        for finding in examined:
            if finding.level is doctor.Level.WARNING:
                say(str(finding))
        doctor.raise_for(examined)
    # Nothing was touched until here.
    plan = locked_plan(args)
    before, overlays = project.overlays(plan), overlays_of(args, plan)
    for name in [name for name in before if name in FLAGS]:
        say(f"up: {name} {f'stays; without it: --no-{name}' if name in overlays else 'is taken away'}")
    files = project.lay_over(plan, overlays)
    stack.build(plan, files, say)
    stack.up(plan, files, overrides, say)
    url = stack.url(plan, overrides)
    seconds = time.monotonic() - started
    say(f"up: ready after {seconds:.0f} s")
    if dashboard := stack.dashboard(plan):
        say(f"up: its dashboard is at {dashboard}")
    findings = [] if args.no_verify else verify.verify(plan, url)
    verify.raise_for(plan, findings)
    if args.json:
        print_json({"url": url, "ready_s": round(seconds, 1), "findings": [vars(finding) for finding in findings]})
    else:
        print(url)
