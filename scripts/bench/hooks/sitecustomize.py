"""Python imports this first where the benchmarks put it on PYTHONPATH: BENCH_HOOK says what a process shall see.

`fsync-off` makes fsync do nothing, which is how the cost of fsync is measured; `clock-jump` sets the clock ten years on
after half a second, and back to 1990 after another; `no-fallocate` is a file system that claims no room beforehand.
"""

import ctypes
import errno
import os
import time
from typing import Any, Final

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


def _refuse_fallocate() -> None:
    plain = ctypes.CDLL.__getattr__

    def refuse(*_arguments: object) -> int:
        ctypes.set_errno(errno.EOPNOTSUPP)
        return -1

    def refusing(library: ctypes.CDLL, name: str) -> Any:  # noqa: ANN401 - a function of the C library
        return refuse if name == "fallocate" else plain(library, name)

    ctypes.CDLL.__getattr__ = refusing  # type: ignore[method-assign]


match os.environ.get("BENCH_HOOK"):
    case "fsync-off":
        _switch_fsync_off()
    case "clock-jump":
        _make_clock_jump()
    case "no-fallocate":
        _refuse_fallocate()
