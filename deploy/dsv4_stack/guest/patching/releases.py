"""vLLM releases as numbers, and ranges of them."""

import re
from dataclasses import dataclass
from typing import Final

from dsv4_stack.errors import ConfigError

# A local label (+cpu) is another build of the same code; a commit's version (1.2.3rc1.dev4) is not a release.
_RELEASE: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:\.post\d+)?(?:\+[\w.]+)?")


@dataclass(frozen=True, order=True)
class Release:
    """One vLLM release; releases are ordered."""

    major: int
    minor: int
    micro: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.micro}"


def parse(text: str) -> Release:
    """The release of a version. Raises ConfigError for anything else, a commit's version included."""
    match = _RELEASE.fullmatch(text)
    if not match:
        raise ConfigError(f"{text!r} is no vLLM release", "name one like 0.23.0; for a commit, the one that it is like")
    return Release(*map(int, match.groups()))


@dataclass(frozen=True, kw_only=True)
class Span:
    """From `since` on, and before `before`; without `before` there is no end yet."""

    since: Release
    before: Release | None = None

    def __contains__(self, release: Release) -> bool:
        return self.since <= release and (self.before is None or release < self.before)

    def __str__(self) -> str:
        return f"{self.since} and later" if self.before is None else f"{self.since} until before {self.before}"
