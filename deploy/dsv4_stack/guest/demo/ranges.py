"""Which bytes of a file a `Range` header asks for."""

import re
from typing import Final

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


def span(header: str, size: int) -> tuple[int, int] | None:
    """The bytes asked for, as start and end; None where the file has none of them."""
    match = _RANGE.fullmatch(header)
    if not match or match[0] == "bytes=-":
        return 0, size
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    return (start, end) if start < end else None


def another(start: int, end: int) -> tuple[int, int]:
    """A range that was not asked for: as long and a byte earlier, or at the file's start a byte shorter."""
    return (start - 1, end - 1) if start else (1, end)
