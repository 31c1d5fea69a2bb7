"""What the edge is given: its limits and its keys.

Of a slip in them its containers would tell nobody but their logs, and start again for ever.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dsv4_stack.doctor.finding import Finding, ok, warning, wrong
from dsv4_stack.errors import ConfigError, UsageError
from dsv4_stack.guest.keys import allowance, ring
from dsv4_stack.plan import EDGE, KEYS_DIR

_LIMITS: Final = "edge's limits"
_KEYS: Final = "edge's keys"

Check = Callable[[str], str]
"""What is wrong with a setting; nothing where all is well."""


def findings(overrides: dict[str, str], overlays: tuple[str, ...] = ()) -> Iterator[Finding]:
    if EDGE in overlays:
        settings = {**os.environ, **overrides}
        yield _limits(settings)
        yield _keys(settings)


def _limits(settings: dict[str, str]) -> Finding:
    given = {name: settings[name] for name in _CHECKS if settings.get(name)}
    problems = [f"{name}: {problem}" for name, text in given.items() if (problem := _CHECKS[name](text))]
    if problems:
        return wrong(_LIMITS, "; ".join(problems), "mend what is named, or unset it", ConfigError)
    return ok(_LIMITS, ", ".join(f"{name}={text}" for name, text in given.items()) or "as they are by default")


def _keys(settings: dict[str, str]) -> Finding:
    file = Path(settings.get("DSV4_KEYS_DIR") or KEYS_DIR).expanduser() / ring.NAME
    if _is_closed(file):
        return warning(_KEYS, f"{file} is closed to this user, so it was not looked at")
    try:
        names = ring.load(file)
    except ConfigError as error:
        return wrong(_KEYS, error.message, error.next_step, ConfigError)
    if not names:
        return warning(_KEYS, f"there are none in {file}, so nobody gets in", "run: dsv4 keys add NAME")
    return ok(_KEYS, f"{len(names)} in {file}")


def _is_closed(file: Path) -> bool:
    try:
        file.open("rb").close()
    except PermissionError:
        return True
    except OSError:
        # What is wrong then is told by who reads it.
        return False
    return False


def _of_the_desk(reading: Callable[[str], float]) -> Check:
    def problem(text: str) -> str:
        try:
            reading(text)
        except UsageError as error:
            return error.message
        return ""

    return problem


def _of_caddy(pattern: str, what: str) -> Check:
    return lambda text: "" if re.fullmatch(pattern, text) else f"{text!r} is no {what}"


# https://caddyserver.com/docs/conventions#durations
_DURATION: Final = _of_caddy(r"0|(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+", "duration, such as 60s")
_CHECKS: Final[dict[str, Check]] = {
    "DSV4_EDGE_PER_MINUTE": _of_the_desk(allowance.rate),
    "DSV4_EDGE_BURST": _of_the_desk(allowance.burst),
    # https://caddyserver.com/docs/caddyfile/directives/request_body
    "DSV4_EDGE_MAX_BODY": _of_caddy(r"(?i)\d+(\.\d+)?([kmgtpe]i?)?b?", "size, such as 16MB"),
    "DSV4_EDGE_WAIT": _DURATION,
    "DSV4_EDGE_GRACE": _DURATION,
}
