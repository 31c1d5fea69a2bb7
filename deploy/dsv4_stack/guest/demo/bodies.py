"""A file's bytes into a socket: by the kernel alone where nothing is wrong, slowly or altered where it shall be."""

import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = 8 << 20
_TLS_BLOCK: Final = 256 << 10
_TICK_S: Final = 0.01
_LATE_S: Final = 0.25
# Only Linux tells the end of a connection apart from bytes that came: https://man7.org/linux/man-pages/man2/poll.2.html
_GONE: Final = getattr(select, "POLLRDHUP", select.POLLIN)


@dataclass(frozen=True, kw_only=True)
class Body:
    """Bytes `start` up to but without `end` of a file; the one at `flipped` is altered. `rate` is bytes per second."""

    path: Path
    start: int
    end: int
    flipped: int | None = None
    rate: float | None = None


def send(body: Body, connection: socket.socket, count: Callable[[int], None]) -> None:
    """Tell `count` how many bytes go to the socket, before the client can have them; and less than nothing for those
    that it did not take after all. Raises ConnectionError where either side closed.
    """
    with body.path.open("rb", buffering=0) as file:
        position, due = body.start, time.monotonic()
        while position < body.end:
            end = min(body.end, position + _block(body, connection))
            if body.rate:
                now = time.monotonic()
                # After a break in which nothing could be sent there is no more to catch up with than this.
                due = max(due, now - _LATE_S) + (end - position) / body.rate
                rest(connection, due - now)
            count(end - position)
            sent = 0
            try:
                sent = _send(file.fileno(), position, end, body.flipped, connection)
            finally:
                position += sent
                count(position - end)


def rest(connection: socket.socket, seconds: float) -> None:
    """Wait. Raises ConnectionAbortedError as soon as either side has closed the connection."""
    if seconds <= 0:
        return
    poll = select.poll()
    poll.register(connection, _GONE)
    if poll.poll(seconds * 1000):
        raise ConnectionAbortedError


def _block(body: Body, connection: socket.socket) -> int:
    block = _TLS_BLOCK if isinstance(connection, ssl.SSLSocket) else _BLOCK
    return max(1, min(block, round(body.rate * _TICK_S))) if body.rate else block


def _send(handle: int, start: int, end: int, flipped: int | None, connection: socket.socket) -> int:
    is_whole = flipped is None or not start <= flipped < end
    if is_whole and not isinstance(connection, ssl.SSLSocket):
        sent = os.sendfile(connection.fileno(), handle, start, end - start)
        if not sent:
            raise ConnectionAbortedError  # the file has become shorter, the promised length cannot be kept
        return sent
    content = bytearray(os.pread(handle, end - start, start))
    if len(content) < end - start:
        raise ConnectionAbortedError
    if flipped is not None and not is_whole:
        content[flipped - start] ^= 1
    connection.sendall(content)
    return len(content)
