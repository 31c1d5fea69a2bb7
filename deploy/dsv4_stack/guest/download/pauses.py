"""Hosts that are too busy: when each may be asked again, and when to open more connections."""

import threading
import time
from urllib.parse import urlsplit


class Pauses:
    """Shared by all connections, so that what one of them is told holds for the others. Times are in seconds."""

    def __init__(self, calm_s: float) -> None:
        self._calm_s = calm_s
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def begin(self, url: str, wait_s: float) -> None:
        """The host of this URL is too busy, and wants to be left alone for so long."""
        host, until = urlsplit(url).netloc, time.monotonic() + wait_s
        with self._lock:
            self._until[host] = max(until, self._until.get(host, until))

    def left_s(self, url: str) -> float:
        """How long its host is still to be left alone."""
        return max(0.0, self._until.get(urlsplit(url).netloc, 0.0) - time.monotonic())

    @property
    def is_calm(self) -> bool:
        """No host was too busy for `calm_s`."""
        with self._lock:
            return time.monotonic() >= max(self._until.values(), default=-self._calm_s) + self._calm_s
