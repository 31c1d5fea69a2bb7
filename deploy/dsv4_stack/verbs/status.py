"""`dsv4 status`: what runs."""

import argparse

from dsv4_stack import engine
from dsv4_stack.errors import NotReadyError
from dsv4_stack.verbs.common import add_json, add_profile, plan_of, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Exit code 10 where the stack does not serve, so that scripts can ask."""
    plan = plan_of(args)
    states = engine.states(plan.project)
    if args.json:
        print_json([vars(state) for _, state in sorted(states.items())])
    else:
        for service, state in sorted(states.items()):
            print(f"{service:12} {describe(state):24} {state.image}")
    serve = states.get("serve")
    if serve is None or serve.health != "healthy":
        found = describe(serve) if serve else "not there"
        raise NotReadyError(f"{plan.project}: serve is {found}", f"run: dsv4 up --profile {plan.profile.name}")


def describe(state: engine.State) -> str:
    """`running (healthy)`, `exited (0)`."""
    if state.status == "running":
        return f"running ({state.health})" if state.health else "running"
    return f"{state.status} ({state.exit_code})" if state.status == "exited" else state.status
