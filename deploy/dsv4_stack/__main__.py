"""The command `dsv4`. Its verbs stand in the order of the way: plan, render, build, materialize, serve, verify."""

import sys
from typing import Final

from dsv4_stack.guest.cli import Verb, dispatch

VERBS: Final = {
    "profiles": Verb("verbs.profiles", "list the profiles"),
    "engines": Verb("verbs.engines", "list the engines: what each needs, and what to beware of"),
    "plan": Verb("verbs.plan", "show what a profile and the pins come to, and where each value is from"),
    "lock": Verb("verbs.lock", "ask the network for what is unlocked, and write dsv4.lock"),
    "render": Verb("verbs.render", "write Dockerfiles and compose files, or check them"),
    "doctor": Verb("verbs.doctor", "look at this machine before anything is touched"),
    "build": Verb("verbs.build", "build a profile's images"),
    "up": Verb("verbs.up", "build, materialize and serve"),
    "warm": Verb("verbs.warm", "compile kernels before anybody waits, and carry them to other machines"),
    "status": Verb("verbs.status", "what runs, and how well"),
    "logs": Verb("verbs.logs", "what the containers say"),
    "verify": Verb("verbs.verify", "hold what runs against the plan"),
    "keys": Verb("verbs.keys", "API keys for the edge: add, revoke, list"),
    "down": Verb("verbs.down", "stop; weights stay"),
    "convert": Verb("guest.convert", "turn a W4A16 config.json into the W4A8 one"),
    "materialize": Verb("guest.materialize", "make one complete checkpoint directory"),
    "gate": Verb("guest.gate", "check a directory against its manifest"),
    "patches": Verb("verbs.patches", "list the patch series, or prove that it applies to a vLLM tree"),
}


def main(argv: list[str] | None = None) -> int:
    """Exit codes: errors.py."""
    return dispatch(
        "dsv4", "Serve DeepSeek-V4-Flash W4A8 in containers, and prove what runs.", "dsv4_stack", VERBS, argv
    )


if __name__ == "__main__":
    sys.exit(main())
