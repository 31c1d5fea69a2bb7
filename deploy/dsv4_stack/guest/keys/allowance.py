"""How often somebody may ask: a bucket for each, that fills at a steady rate."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dsv4_stack.errors import UsageError

# Names of keys are few; addresses of strangers are not.
_MOST: Final = 4096


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Allowance:
    """`per_minute` requests, of which `burst` may come at once; safe for all threads."""

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_minute / 60
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def wait_s(self, name: str) -> float:
        """0 where this request may pass, and is counted; else the seconds until the next one may."""
        with self._lock:
            bucket = self._bucket(name)
            if bucket.tokens >= 1:
                bucket.tokens -= 1
                return 0.0
            return (1 - bucket.tokens) / self._per_s

    def _bucket(self, name: str) -> _Bucket:
        now = self._clock()
        # Put last, so that those that were not seen for longest stand first.
        bucket = self._buckets.pop(name, None) or _Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_s)
        bucket.at = now
        self._buckets[name] = bucket
        while len(self._buckets) > _MOST:
            del self._buckets[next(iter(self._buckets))]
        return bucket


def rate(text: str) -> float:
    """Requests a minute. Raises UsageError."""
    return _above_zero(text, float, "number", "DSV4_EDGE_PER_MINUTE")


def burst(text: str) -> int:
    """Requests at once. Raises UsageError."""
    return int(_above_zero(text, int, "whole number", "DSV4_EDGE_BURST"))


def _above_zero(text: str, reading: Callable[[str], float], what: str, variable: str) -> float:
    try:
        value = reading(text)
    except ValueError:
        value = 0
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{text!r} is no {what} above 0", f"mend {variable}")
    return value
