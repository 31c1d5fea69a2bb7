"""Every check, in the order in which a machine is set up."""

from collections.abc import Iterator

from dsv4_stack.doctor import (
    authority,
    certificate,
    clock,
    confidential,
    config,
    disk,
    driver,
    edge,
    gpus,
    hub,
    memory,
    port,
    protection,
    restrictions,
    smi,
    token,
    toolkit,
    tools,
    weights,
)
from dsv4_stack.doctor.finding import Finding
from dsv4_stack.plan import Plan


def examine(plan: Plan, overrides: dict[str, str], overlays: tuple[str, ...] = ()) -> list[Finding]:
    """Every check, whatever the one before it found."""
    info = tools.info()
    return [
        *tools.findings(),
        *(_of_nvidia(plan, info) if plan.profile.machine.gpus else ()),
        *disk.findings(plan, overrides, info),
        *memory.findings(plan),
        *port.findings(plan, overrides, overlays),
        *edge.findings(overrides, overlays),
        *certificate.findings(overrides, overlays),
        *authority.findings(),
        *token.findings(plan),
        *_of_the_hub(plan, overrides),
        *config.findings(plan, overrides),
    ]


def _of_nvidia(plan: Plan, info: tools.Info) -> Iterator[Finding]:
    listing = smi.listing()
    state = protection.state(answers=not listing.problem)
    yield from driver.findings(listing)
    yield from toolkit.findings(info)
    yield from gpus.findings(plan, listing)
    yield from confidential.findings(plan, state, len(listing.gpus))
    yield from restrictions.findings(plan, state)


def _of_the_hub(plan: Plan, overrides: dict[str, str]) -> Iterator[Finding]:
    there = weights.are_there(plan, overrides)
    answer = hub.asked(plan, there=there)
    yield from hub.findings(plan, answer, there=there)
    yield from clock.findings(answer.date if answer else None)
