"""The volume of the kernel caches: an engine that cannot write there compiles for minutes, and then fails."""

from pathlib import Path
from typing import Final

from dsv4_stack.errors import NoSpaceError, UsageError
from dsv4_stack.guest.files import amount
from dsv4_stack.guest.serving import evidence

# The caches of one engine took some 26 MB on an H200 (docs/hopper.md); the rest is for a compiler's temporary files.
LEAST: Final = 256 << 20


def check(folder: Path) -> None:
    """Raises UsageError, NoSpaceError."""
    found = evidence.space(folder)
    if not found.is_writable:
        raise UsageError(
            f"the kernel caches' folder {folder} cannot be written to",
            "let the stack set up its volume: dsv4 down, then dsv4 up",
        )
    if found.free < LEAST:
        raise NoSpaceError(
            f"the kernel caches' folder {folder} has {amount(found.free)} free, and needs {amount(LEAST)}",
            "make room where Docker keeps its volumes, or delete the caches: dsv4 down --caches",
        )
