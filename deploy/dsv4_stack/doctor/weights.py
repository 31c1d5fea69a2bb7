"""The checkpoint on this machine: where it belongs, how large it is, and whether it is there."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from dsv4_stack.guest.checkpoint import manifest
from dsv4_stack.lock import repos_of
from dsv4_stack.plan import Plan

GIB: Final = 1 << 30
# What vLLM's log says of the base repository: https://github.com/canada-quant/dsv4-flash-w4a16-fp8-mtp
CHECKPOINT_BYTES: Final = int(158.19 * GIB)
# The same on a disk, with the tokenizer and the records, where no lock knows it to the byte.
WEIGHTS_BYTES: Final = 160 * GIB


def folder(plan: Plan, overrides: dict[str, str]) -> Path:
    """Where this machine keeps checkpoints."""
    settings = {**os.environ, **overrides}
    return Path(settings.get("DSV4_WEIGHTS_DIR") or plan.profile.weights.directory).expanduser()


def checkpoint(plan: Plan, overrides: dict[str, str]) -> Path:
    return folder(plan, overrides) / plan.profile.weights.name


def are_there(plan: Plan, overrides: dict[str, str]) -> bool:
    """Whether they were materialized, so that the next start asks nobody."""
    return os.path.isfile(checkpoint(plan, overrides) / manifest.NAME)  # noqa: PTH113 - False where it may not look


def needed_bytes(plan: Plan) -> int:
    """The checkpoint's size in bytes: to the byte where the lock holds it, else the published one."""
    return _locked_bytes(plan) or (WEIGHTS_BYTES if repos_of(plan.checkpoint) else 0)


def loaded_bytes(plan: Plan) -> int:
    """What the ranks load together: the published size, or the lock's."""
    return _locked_bytes(plan) or CHECKPOINT_BYTES


def missing_bytes(plan: Plan, overrides: dict[str, str]) -> int:
    """What is still to be fetched."""
    return max(0, needed_bytes(plan) - _size_of(checkpoint(plan, overrides)))


def _locked_bytes(plan: Plan) -> int:
    """0 where the lock does not know it."""
    locked = plan.lock.repos.get(plan.checkpoint.base.repo) if repos_of(plan.checkpoint) else None
    return sum(entry.size for entry in locked.files.values()) if locked else 0


def _size_of(place: Path) -> int:
    """In bytes; what may not be looked at counts as not there."""
    size = 0
    for within, _, names in os.walk(place):
        for name in names:
            with suppress(OSError):
                size += Path(within, name).stat().st_size
    return size
