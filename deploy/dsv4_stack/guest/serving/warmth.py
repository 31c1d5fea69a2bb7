"""Prompts that make an engine compile its kernels before anybody waits for them.

A first prompt took 34 to 64 s on empty caches (docs/hopper.md); with the kernels in the cache volume some 9 s, of which
most are those that the model compiles at each start.
"""

import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from dsv4_stack.errors import ConfigError

# Of a config.json that does not say how many tokens there are.
_FEW_TOKENS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Warmed:
    """One prompt: how many tokens it had, and seconds until its one token came; `problem` where none came."""

    length: int
    seconds: float
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.length} tokens: {self.problem or f'{self.seconds:.1f} s'}"


class Prefiller(Protocol):
    def prefill(self, tokens: Sequence[int], within_s: float) -> str:
        """Why a prompt was not answered, or nothing."""


def lengths() -> tuple[int, ...]:
    """As the environment of the container says. Raises ConfigError."""
    text = os.environ.get("DSV4_WARM") or "[]"
    try:
        return tuple(int(length) for length in json.loads(text))
    except (ValueError, TypeError) as error:
        message = f"DSV4_WARM is no list of lengths: {error}"
        raise ConfigError(message, "render the project again: dsv4 render") from None


def warm(
    api: Prefiller, wanted: Sequence[int], vocabulary: int, within_s: float, occasion: int = 0
) -> Iterator[Warmed]:
    """Each length once, the shortest first, one after the other."""
    for length in sorted(wanted):
        began = time.monotonic()
        problem = api.prefill(prompt(length, vocabulary, occasion), within_s)
        yield Warmed(length=length, seconds=time.monotonic() - began, problem=problem)


def prompt(length: int, vocabulary: int, occasion: int = 0) -> list[int]:
    """Token ids, so that the length is exact; of no sense, so that no cache has them; the same at every start.

    An engine that serves has those of its start in its prefix cache: on another occasion they are others.
    """
    chance = random.Random(f"{length} {occasion}")  # noqa: S311 - no secret
    return [chance.randrange(vocabulary) for _ in range(length)]


def vocabulary_of(model: Path) -> int:
    """How many tokens a checkpoint knows."""
    try:
        known = json.loads((model / "config.json").read_text(encoding="utf-8")).get("vocab_size")
    except (OSError, ValueError, AttributeError):
        known = None
    return known if isinstance(known, int) and known > 0 else _FEW_TOKENS
