"""The ports where the API, and what is laid over it, are to be published."""

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from dsv4_stack import engine
from dsv4_stack.doctor.finding import Finding, ok, wrong
from dsv4_stack.errors import NoEngineError, UsageError
from dsv4_stack.plan import EDGE, MONITORING, Plan


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A port that a service is to be reached at, and what chooses another."""

    subject: str
    service: str
    address: str
    port: int
    other: str


def findings(plan: Plan, overrides: dict[str, str], overlays: tuple[str, ...] = ()) -> Iterator[Finding]:
    for at in _published(plan, {**os.environ, **overrides}, overlays):
        if _can_bind(at.address, at.port) or _is_ours(plan, at):
            yield ok(at.subject, f"{at.address}:{at.port} is free or ours")
        else:
            yield wrong(at.subject, f"{at.address}:{at.port} is taken", f"choose another: {at.other}")


def _published(plan: Plan, settings: dict[str, str], overlays: tuple[str, ...]) -> Iterator[_Published]:
    again = f"dsv4 up --profile {plan.profile.name}"
    serve = plan.profile.serve

    def beside(service: str, address: str, default: int) -> _Published:
        variable = f"DSV4_{service.upper()}_PORT"
        port = port_number(settings.get(variable) or str(default), f"mend {variable}")
        other = f"{variable}=N {again}"
        return _Published(subject=f"{service}'s port", service=service, address=address, port=port, other=other)

    if EDGE in overlays:
        yield beside("edge", settings.get("DSV4_EDGE_BIND") or "0.0.0.0", 443)  # noqa: S104 - as edge.yaml publishes it
    else:
        yield _Published(
            subject="port",
            service="serve",
            address=settings.get("DSV4_BIND") or serve.bind,
            port=port_number(settings.get("DSV4_PORT") or str(serve.port)),
            other=f"{again} --port N",
        )
    if MONITORING in overlays:
        yield beside("prometheus", "127.0.0.1", 9090)
        yield beside("grafana", "127.0.0.1", 3000)


def port_number(text: str, mend: str = "mend --port or DSV4_PORT") -> int:
    """A TCP port. Raises UsageError."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UsageError(f"the port should be a number from 1 to 65535, not {text!r}", mend)
    return int(text)


def _can_bind(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            # Low ports are Docker's to bind, not ours; who listens there answers us too.
            return not _answers(family, address, port)
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _answers(family: socket.AddressFamily, address: str, port: int) -> bool:
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def _is_ours(plan: Plan, at: _Published) -> bool:
    try:
        state = engine.states(plan.project).get(at.service)
    except NoEngineError:
        return False
    return state is not None and state.reserved.endswith(f":{at.port}")
