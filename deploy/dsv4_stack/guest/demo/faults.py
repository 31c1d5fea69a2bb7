"""What a Hub does wrong on purpose, so that tests and benchmarks can turn it on and off."""

import threading
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeVar

from dsv4_stack.errors import UsageError

EVERY: Final = "*"
PAGE: Final = "<html>Welcome to the hotel. Please log in.</html>\n"
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A status with the Hub's own word for it, as `X-Error-Code`; after so many `times` it is over."""

    status: int
    code: str = ""
    message: str = ""
    retry_after: str = ""
    times: int | None = None


@dataclass(frozen=True, kw_only=True)
class Redirect:
    """Files lie at signed addresses, each good for so many seconds and so many `uses`."""

    lifetime_s: float | None = None
    uses: int | None = None


@dataclass(kw_only=True)
class Faults:
    """Keys are a file (`org/name/path`), all files of a repository (`org/name`) or every file (`*`).

    `refuse` goes for a repository's listing as well where its key is `org/name`. What happens so many times only is
    counted down here: `cut_times`, `flip_times` and `stall_times`, alone or with `cut`, `flip` and `stall`, and
    `Refusal.times`.

    - Listing: `hide` is not listed, `gone` is listed but missing; `xet` are the xet hashes of files, `cas` the URL of
      their storage, and `xet_only` ones are refused to plain HTTP.
    - Answers: `refuse`; `silent` reads requests and never answers; `latency_s` before each answer; `redirect`, to this
      server by the name `redirect_host`; `no_ranges` ignores Range; `wrong_range` answers with another range; `page`
      with a page of HTML, as a hotel's network does until one has logged in.
    - Bodies: `flip` changes a byte, `cut` sends half and hangs up, `stall` sends so many bytes and then no more on a
      connection that stays open, `rate` is bytes per second on each connection, `drip` the same for some files.
    """

    flip: set[str] = field(default_factory=set)
    flip_times: dict[str, int] = field(default_factory=dict)
    hide: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    cut_times: dict[str, int] = field(default_factory=dict)
    stall: dict[str, int] = field(default_factory=dict)
    stall_times: dict[str, int] = field(default_factory=dict)
    refuse: dict[str, Refusal] = field(default_factory=dict)
    redirect: Redirect | None = None
    redirect_host: str = ""
    drip: dict[str, float] = field(default_factory=dict)
    rate: float | None = None
    latency_s: float = 0.0
    silent: bool = False
    no_ranges: bool = False
    wrong_range: set[str] = field(default_factory=set)
    page: set[str] = field(default_factory=set)
    xet: dict[str, str] = field(default_factory=dict)
    xet_only: set[str] = field(default_factory=set)
    cas: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def value(self, values: Mapping[str, _Value], name: str) -> _Value | None:
        """What goes for this file, by its nearest key."""
        return next((values[key] for key in _keys(name) if key in values), None) if values else None

    def takes(self, listed: Container[str], times: dict[str, int], name: str) -> bool:
        """Whether the fault happens to this file now; one that happens so many times is counted down."""
        if not listed and not times:
            return False
        with self._lock:
            limit = next((key for key in _keys(name) if key in times), None)
            if limit is None:
                return has(listed, name)
            left, times[limit] = times[limit], max(0, times[limit] - 1)
            return left > 0

    def refusal(self, key: str) -> Refusal | None:
        """What this key is refused with now; one that happens so many times is counted down."""
        with self._lock:
            refusal = self.refuse.get(key)
            if refusal is None or refusal.times is None:
                return refusal
            if refusal.times <= 0:
                return None
            self.refuse[key] = replace(refusal, times=refusal.times - 1)
            return refusal


def has(listed: Container[str], name: str) -> bool:
    """Whether this file is meant."""
    return bool(listed) and any(key in listed for key in _keys(name))


def parse(document: object) -> Faults:
    """Faults from JSON: sets are lists there, refusals and a redirect objects. Raises UsageError."""
    if not isinstance(document, dict):
        raise UsageError("faults are no JSON object", "send {} for none")
    known = {each.name: each.default_factory for each in fields(Faults) if each.init}
    if unknown := sorted(set(document) - set(known)):
        raise UsageError(f"no faults: {', '.join(unknown)}", f"choose among {', '.join(known)}")
    try:
        return Faults(**{name: _parsed(name, value, known[name]) for name, value in document.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"faults are not as they should be: {error}", "see guest/demo/faults.py") from None


def _parsed(name: str, value: Any, kind: object) -> Any:  # noqa: ANN401 - JSON
    if name == "refuse":
        return {key: Refusal(**fault) for key, fault in value.items()}
    if name == "redirect":
        return None if value is None else Redirect(**value)
    return kind(value) if kind in (set, dict) else value


def _keys(name: str) -> Iterator[str]:
    """Of `org/name/path`, from the nearest to the widest."""
    yield name
    yield "/".join(name.split("/", 2)[:2])
    yield EVERY
