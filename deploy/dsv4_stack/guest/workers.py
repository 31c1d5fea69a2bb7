"""Work on many files at once, which ends for all as soon as it fails for one or the run is interrupted."""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

GoOn = Callable[[], None]
"""Raises where the rest is not wanted any more; to be called now and then."""


class _StoppedError(Exception):
    """It is over."""


def of_each(work: Callable[[T, GoOn], R], items: Iterable[T]) -> list[R]:
    """What `work` makes of each item, in their order, on all cores. Raises what it raises."""
    is_over = threading.Event()

    def go_on() -> None:
        if is_over.is_set():
            raise _StoppedError

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            return list(pool.map(lambda item: work(item, go_on), items))
        finally:
            # Whoever interrupts it shall not wait for shards of fifty gigabytes.
            is_over.set()
            pool.shutdown(wait=False, cancel_futures=True)
