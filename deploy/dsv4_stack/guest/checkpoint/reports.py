"""What `dsv4 materialize` says at its end: a sentence or a list for people, one JSON line for programs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dsv4_stack.guest.checkpoint.manifest import Manifest
from dsv4_stack.guest.files import amount, count

if TYPE_CHECKING:
    from dsv4_stack.guest.checkpoint.steps import Steps

HOWS = {"fetch": "fetched", "link": "linked", "copy": "copied", "write": "written"}


def nothing_to_do(dest: Path, known: Manifest, *, dry: bool, as_json: bool) -> None:
    """The directory is as asked for already."""
    if dry:
        plan(dest, None, as_json=as_json)
    else:
        outcome(dest, known, None, as_json=as_json)


def outcome(dest: Path, made: Manifest, steps: "Steps | None", *, as_json: bool) -> None:
    """What there is now, and what this run brought of it."""
    brought = steps.bring if steps else ()
    if as_json:
        by_how = {past: sorted(step.file.path for step in brought if step.how == how) for how, past in HOWS.items()}
        summary = {"dest": str(dest), **by_how, "files": len(made.files), "bytes": made.size, **made.provenance()}
        print(json.dumps({"event": "done", **summary}), flush=True)
        return
    done = f"brought {count(len(brought))}" if brought else "nothing to fetch"
    print(f"materialize: {done}, {dest} holds {count(len(made.files))}, {amount(made.size)} ({made})")


def plan(dest: Path, steps: "Steps | None", *, as_json: bool) -> None:
    """What a run would do; without steps, nothing."""
    if as_json:
        bring = [
            {"path": step.file.path, "how": step.how, "size": step.file.size, "there": step.there}
            for step in (steps.bring if steps else ())
        ]
        keep, remove = (sorted(steps.keep), list(steps.remove)) if steps else (None, [])
        print(json.dumps({"event": "plan", "dest": str(dest), "bring": bring, "keep": keep, "remove": remove}))
    elif steps is None:
        print(f"materialize: nothing to do, {dest} is as asked for")
    else:
        for line in _lines(steps):
            print(line)


def _lines(steps: "Steps") -> list[str]:
    bring = [
        f"{step.how:6} {step.file.path}, {amount(step.file.size)}"
        + (f", {amount(step.there)} of it are there" if step.there else "")
        for step in steps.bring
    ]
    keep = [f"keep   {path}" for path in sorted(steps.keep)]
    remove = [f"remove {path}" for path in steps.remove]
    return [*bring, *keep, *remove, f"materialize: {steps.sentence()}; nothing was done"]
