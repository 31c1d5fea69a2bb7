"""Python imports this first where the benchmarks put it on PYTHONPATH: BENCH_HOOK says what a process shall see.

`fsync-off` makes fsync do nothing, which is how the cost of fsync is measured; `clock-jump` sets the clock ten years on
after half a second, and back to 1990 after another.
"""

import os
import time
from typing import Final

_YEARS_NS: Final = 365 * 24 * 3600 * 10**9


def _switch_fsync_off() -> None:
    def nothing(_handle: int) -> None:
        pass

    os.fsync = os.fdatasync = nothing  # type: ignore[assignment]


def _make_clock_jump() -> None:
    start, right = time.monotonic(), time.time_ns

    def jumping_ns() -> int:
        elapsed = time.monotonic() - start
        if elapsed < 0.5:
            return right()
        return right() + (10 * _YEARS_NS if elapsed < 1.0 else -36 * _YEARS_NS)

    time.time_ns = jumping_ns
    time.time = lambda: jumping_ns() / 1e9


match os.environ.get("BENCH_HOOK"):
    case "fsync-off":
        _switch_fsync_off()
    case "clock-jump":
        _make_clock_jump()
