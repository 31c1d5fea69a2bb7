"""Where an engine stands that does not start or does not move: what helps whoever reads its log."""

from collections.abc import Iterator, Mapping

from dsv4_stack.guest.files import amount
from dsv4_stack.guest.serving import remedies
from dsv4_stack.guest.serving.evidence import Evidence, Space

# vLLM's processes have dozens of threads that sleep. What a process is at is what its main thread does, which is the
# one that takes the signal.
_LINES = 40
_MAIN = "Current thread"


def lines(evidence: Evidence) -> Iterator[str]:
    """The whole report, line by line."""
    yield f"phase: {evidence.phase}"
    names = ", ".join(f"{process.name} ({process.pid}, {process.state})" for process in evidence.processes)
    yield f"processes: {names or 'none'}"
    yield from _stacks(evidence.stacks)
    yield f"shared memory: {_room(evidence.shm)}"
    yield f"kernel caches: {_room(evidence.caches)}"
    yield f"confidential computing: {' '.join(evidence.confidential.split()) or 'unknown, nvidia-smi does not say'}"
    for row in evidence.topology.splitlines():
        yield f"topology: {row}"
    yield from _remedies(evidence)


def _stacks(stacks: Mapping[str, str]) -> Iterator[str]:
    for name, text in stacks.items():
        threads = text.strip().split("\n\n")
        main = next((thread for thread in threads if thread.startswith(_MAIN)), text)
        rows = main.splitlines()
        yield f"stack of {name}, one of {len(threads)} threads:"
        yield from (f"  {row}" for row in rows[:_LINES])
        if len(rows) > _LINES:
            yield f"  … {len(rows) - _LINES} lines more"
    if not stacks:
        yield "stacks: none could be had"


def _room(space: Space) -> str:
    written = "" if space.is_writable else ", not writable"
    return f"{amount(space.free)} of {amount(space.size)} free{written}"


def _remedies(evidence: Evidence) -> Iterator[str]:
    found = remedies.likely(evidence)
    for remedy in found:
        yield f"likely: {remedy.trouble}"
        yield f"  next: {remedy.mend}"
    if not found:
        yield "likely: nothing that is known; please report this log"
