"""What most verbs take: a profile, and the plan that comes of it."""

import argparse
import json
import os
import sys
from typing import Any, Final

from dsv4_stack import assets, lock, pins, profile, project
from dsv4_stack.plan import Plan, make_plan

FLAGS: Final = {
    "edge": "TLS and API keys in front, and no port of the engine's",
    "monitoring": "Prometheus and Grafana beside it, on loopback",
}


def add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        default=os.environ.get("DSV4_PROFILE") or profile.DEFAULT,
        metavar="P",
        help=f"a shipped profile's name or a .toml file (default: $DSV4_PROFILE, else {profile.DEFAULT})",
    )
    parser.add_argument(
        "--engine",
        default=os.environ.get("DSV4_ENGINE", ""),
        metavar="E",
        help="an engine of pins.toml (default: $DSV4_ENGINE, else the profile's)",
    )


def add_json(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def plan_of(args: argparse.Namespace) -> Plan:
    """The plan of `--profile` and `--engine` with the lock as it is now."""
    known = lock.load(assets.known_lock())
    return make_plan(
        lock.apply(pins.load(assets.pins_file()), known), profile.load(args.profile), known, engine=args.engine
    )


def say(text: str) -> None:
    """Progress, on stderr, so that stdout is the result alone."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:  # noqa: ANN401
    print(json.dumps(value, indent=2, ensure_ascii=False))


def add_site(parser: argparse.ArgumentParser) -> None:
    """Where this machine differs from its profile."""
    parser.add_argument("--port", help="publish the API here (default: $DSV4_PORT, else the profile's)")
    parser.add_argument("--bind", help="publish it on this address (default: $DSV4_BIND, else the profile's)")
    parser.add_argument("--weights", metavar="DIR", help="host folder (default: $DSV4_WEIGHTS_DIR, else the profile's)")


def add_overlays(parser: argparse.ArgumentParser) -> None:
    """What may be laid over a stack; what is not named stays as it is."""
    for name, text in FLAGS.items():
        parser.add_argument(
            f"--{name}", action=argparse.BooleanOptionalAction, help=f"{text} (default: as at the last `up`)"
        )


def overlays_of(args: argparse.Namespace, plan: Plan) -> tuple[str, ...]:
    """What the flags say, and where they say nothing what is there."""
    before = project.overlays(plan)
    flags = {name: getattr(args, name) for name in FLAGS}
    return plan.laid_over([name for name, flag in flags.items() if (name in before if flag is None else flag)])


def overrides_of(args: argparse.Namespace) -> dict[str, str]:
    """The flags as the variables that the rendered compose file reads."""
    values = {"DSV4_PORT": args.port, "DSV4_BIND": args.bind, "DSV4_WEIGHTS_DIR": args.weights}
    return {name: str(value) for name, value in values.items() if value is not None}
