"""How a repository and its revision are written on the command line."""

import re
from typing import Final

from dsv4_stack.errors import UsageError

_REFERENCE: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


def parse_reference(reference: str) -> tuple[str, str]:
    """`org/name@revision` as repository and revision; without one, main. Raises UsageError."""
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise UsageError(
            f"{reference!r} is no repository", "write org/name@revision, for example demo/tiny-counter@main"
        )
    return match["repo"], match["revision"] or "main"
