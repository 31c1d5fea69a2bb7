"""`dsv4 plan`: what pins and a profile come to, before anything is done."""

import argparse
import os
import shlex
from typing import Any

from dsv4_stack import assets, pins
from dsv4_stack.plan import Plan
from dsv4_stack.provenance import FROM_ENVIRONMENT, explain, explain_pins
from dsv4_stack.verbs.common import add_json, add_profile, add_site, overrides_of, plan_of, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_site(parser)
    add_json(parser)
    parser.add_argument("--explain", action="store_true", help="where each value comes from, and why it is so")


def run(args: argparse.Namespace) -> None:
    plan = plan_of(args)
    flags = {key: overrides_of(args).get(name, "") for key, name in FROM_ENVIRONMENT.items()} | {"engine": args.engine}
    origins = explain(plan, os.environ, flags) + explain_pins(plan, pins.load(assets.pins_file()))
    if args.json:
        print_json(summary(plan) | ({"origins": [vars(origin) for origin in origins]} if args.explain else {}))
        return
    for key, value in summary(plan).items():
        print(f"{key}: {_line(value)}")
    for origin in origins if args.explain else []:
        print(
            f"\n{origin.key} = {origin.value}    ({origin.source})" + (f"\n  {origin.reason}" if origin.reason else "")
        )


def summary(plan: Plan) -> dict[str, Any]:
    """The plan in a few lines."""
    engine, checkpoint = plan.engine, plan.checkpoint
    return {
        "profile": plan.profile.name,
        "engine": f"{engine.name} (vLLM {engine.version})",
        "engine base": engine.base,
        "engine wheel": engine.wheel.url if engine.wheel else "none, the base as it is",
        "patches": list(plan.patches) or "none",
        "beware": plan.beware or "nothing",
        "images": [image.reference for image in plan.images],
        "base": checkpoint.base.reference,
        "config": checkpoint.config.value,
        "overlay": checkpoint.overlay.reference if checkpoint.overlay else "none",
        "unlocked": list(plan.unlocked) or "nothing",
        "serve": ["vllm", "serve", plan.model_dir, *plan.serve_command],
        "environment": [f"{name}={value}" for name, value in plan.serve_env.items()],
        "weights": plan.weights_source,
        "port": plan.published_port,
    }


def _line(value: str | list[str]) -> str:
    return value if isinstance(value, str) else shlex.join(value) if value[0] == "vllm" else "; ".join(value)
