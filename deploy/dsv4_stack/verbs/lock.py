"""`dsv4 lock`: what the network says, written down; and what `up` and `build` do where it is missing."""

import argparse
from pathlib import Path

from dsv4_stack import assets, lock, pins, render, resolve
from dsv4_stack.errors import StaleError
from dsv4_stack.plan import Plan
from dsv4_stack.profile import shipped
from dsv4_stack.verbs.common import add_json, plan_of, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where anything is unlocked or has moved"
    )
    add_json(parser)
    what.add_argument("--upgrade", action="store_true", help="ask again for everything, also for what is locked")


def run(args: argparse.Namespace) -> None:
    source, pinned = assets.known_lock(), pins.load(assets.pins_file())
    known = lock.Lock() if args.upgrade else lock.load(source)
    engines, checkpoints = list(pinned.engines.values()), list(pinned.checkpoints.values())
    if args.check:
        locked = lock.apply(pinned, known)
        missing = lock.unlocked(list(locked.engines.values()), list(locked.checkpoints.values()), known)
        if missing:
            raise StaleError(
                f"{source} is incomplete:\n" + "\n".join(f"  {entry}" for entry in missing), "run: dsv4 lock"
            )
        resolve.moved(engines, checkpoints, known)
        say(f"lock: {source} holds everything, and nothing has moved")
    else:
        known = resolve.resolve(engines, checkpoints, known, say)
        _write(assets.lock_file(), known, pinned)
    if args.json:
        print(known.text(), end="")


def locked_plan(args: argparse.Namespace) -> Plan:
    """The plan with everything locked that its profile needs; what is missing is asked for, said and written first."""
    plan = plan_of(args)
    if not plan.unlocked or args.no_lock:
        return plan
    for entry in plan.unlocked:
        say(f"lock: {entry}")
    path, pinned = assets.lock_file(), pins.load(assets.pins_file())
    engine, checkpoint = pinned.engines[plan.engine.name], pinned.checkpoints[plan.checkpoint.name]
    _write(path, resolve.resolve([engine], [checkpoint], plan.lock, say), pinned)
    return plan_of(args)


def add_no_lock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-lock", action="store_true", help="go on with what is unlocked, as `docker compose up` does"
    )


def _write(path: Path, found: lock.Lock, pinned: pins.Pins) -> None:
    path.write_text(found.text(), encoding="utf-8")
    say(f"lock: wrote {path}")
    if assets.IN_CHECKOUT and path == assets.ROOT / assets.LOCK_NAME:
        changed = render.write(render.render(lock.apply(pinned, found), shipped().values(), found), assets.ROOT)
        if changed:
            say(f"lock: rendered {', '.join(changed)}; commit them with the lock")
