"""This machine's clock: TLS and the Hub's signed URLs fail with a wrong one."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from dsv4_stack.doctor.finding import Finding, ok, wrong

SUBJECT: Final = "clock"
TOLERANCE: Final = timedelta(minutes=5)
# The commit of pins.toml's default engine: no right clock is before it.
PINNED: Final = datetime(2026, 7, 7, tzinfo=UTC)
_MEND: Final = "set it: sudo timedatectl set-ntp true"


def now() -> datetime:
    return datetime.now(UTC)


def findings(hubs: datetime | None) -> Iterator[Finding]:
    """`hubs` is the Hub's clock of just now, None where it was not asked or did not say."""
    yield _beside(now(), hubs) if hubs else _alone(now())


def _beside(ours: datetime, hubs: datetime) -> Finding:
    difference = abs(ours - hubs)
    if difference <= TOLERANCE:
        return ok(SUBJECT, "within 5 minutes of the Hub's")
    side = "ahead of" if ours > hubs else "behind"
    minutes = difference // timedelta(minutes=1)
    return wrong(SUBJECT, f"{ours:%Y-%m-%d %H:%M} UTC, {minutes} minutes {side} the Hub's", _MEND)


def _alone(ours: datetime) -> Finding:
    if ours < PINNED:
        return wrong(SUBJECT, f"{ours:%Y-%m-%d}, before {PINNED:%Y-%m-%d}, when the default engine was made", _MEND)
    return ok(SUBJECT, f"{ours:%Y-%m-%d}, not held against another")
