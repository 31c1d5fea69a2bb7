"""The port where the API is to be published."""

import errno
import os
import socket
from collections.abc import Iterator

from dsv4_stack import engine
from dsv4_stack.doctor.finding import Finding, ok, wrong
from dsv4_stack.errors import NoEngineError, UsageError
from dsv4_stack.plan import Plan


def findings(plan: Plan, overrides: dict[str, str]) -> Iterator[Finding]:
    settings = {**os.environ, **overrides}
    bind = settings.get("DSV4_BIND") or plan.profile.serve.bind
    port = port_number(settings.get("DSV4_PORT") or str(plan.profile.serve.port))
    if _can_bind(bind, port) or _is_ours(plan, port):
        yield ok("port", f"{bind}:{port} is free or ours")
    else:
        mend = f"choose another: dsv4 up --profile {plan.profile.name} --port N"
        yield wrong("port", f"{bind}:{port} is taken", mend)


def port_number(text: str) -> int:
    """A TCP port. Raises UsageError."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UsageError(f"the port should be a number from 1 to 65535, not {text!r}", "mend --port or DSV4_PORT")
    return int(text)


def _can_bind(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _is_ours(plan: Plan, port: int) -> bool:
    try:
        serve = engine.states(plan.project).get("serve")
    except NoEngineError:
        return False
    return serve is not None and serve.reserved.endswith(f":{port}")
