"""`dsv4 render`: pins and profiles become the committed files, or a project of their own."""

import argparse
import os
from pathlib import Path

from dsv4_stack import assets, lock, pins, profile, render
from dsv4_stack.errors import UsageError
from dsv4_stack.verbs.common import plan_of, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is not as rendered")
    parser.add_argument("--profile", metavar="P", help="one profile as compose/compose.yaml of a project of its own")
    parser.add_argument("--engine", metavar="E", help="with --profile: another engine (default: $DSV4_ENGINE)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the project's folder; needs no Python to run")


def run(args: argparse.Namespace) -> None:
    known = lock.load(assets.known_lock())
    locked = lock.apply(pins.load(assets.pins_file()), known)
    if args.profile:
        args.engine = args.engine or os.environ.get("DSV4_ENGINE", "")
        _render_one(args, known)
        return
    if args.engine:
        raise UsageError("--engine goes with --profile", "run: dsv4 render --profile P --engine E --out DIR")
    rendered = render.render(locked, profile.shipped().values(), known)
    root = args.out or assets.ROOT
    if args.check:
        render.check(rendered, root)
        say(f"render: {len(rendered)} files are as rendered")
    elif args.out:
        render.write_project(rendered, known, args.out)
        say(f"render: a project with {len(rendered)} rendered files in {args.out}")
    elif assets.IN_CHECKOUT:
        changed = render.write(rendered, root)
        say("render: " + (", ".join(changed) if changed else "nothing changed"))
    else:
        raise UsageError("an installed dsv4 has no checkout to render into", "run: dsv4 render --out DIR")


def _render_one(args: argparse.Namespace, known: lock.Lock) -> None:
    rendered = render.render_plan(plan_of(args))
    if args.out is None:
        raise UsageError(
            "--profile renders a project of its own", f"run: dsv4 render --profile {args.profile} --out DIR"
        )
    if args.check:
        render.check(rendered, args.out)
        say(f"render: {len(rendered)} files are as rendered")
        return
    render.write_project(rendered, known, args.out)
    say(f"render: {args.profile} in {args.out}; run: docker compose -f {args.out}/compose/compose.yaml up")
