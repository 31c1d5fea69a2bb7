"""How often everything is measured, in turns."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """`dropped` rounds come first and do not count: memory is touched for the first time, modules are compiled."""

    kept: int
    dropped: int = 1

    def __iter__(self) -> Iterator[bool]:
        """Whether the round counts."""
        yield from [False] * self.dropped + [True] * self.kept
