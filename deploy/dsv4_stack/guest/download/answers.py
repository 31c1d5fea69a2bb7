"""An answer to a ranged request: what it says of its body, the body as it comes, and what each failure means."""

import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, LocationValueError, MaxRetryError

from dsv4_stack.guest import retry_after
from dsv4_stack.guest.download.limits import Limits

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_CONTENT_LENGTH: Final = re.compile(r"\d{1,18}")
# http.client's words for a proxy that lets nobody through; some of them go by.
_TUNNEL_REFUSED: Final = re.compile(r"Tunnel connection failed: (4(?!08|25|29)\d\d.*)")
_LEAST_READ: Final = 64 << 10
_ENOUGH: Final = 256 << 10


class BrokenError(Exception):
    """A connection failed: trying again may help, but not before `wait_s`."""

    def __init__(self, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class UntrustedError(Exception):
    """The other side's certificate is not one to believe: trying again does not help."""


class BlockedError(Exception):
    """A proxy does not let us through: trying again does not help."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Bytes `start` up to but without `end`, of `size` in all."""

    start: int
    end: int
    size: int

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.end == self.size

    def __str__(self) -> str:
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


class Answer:
    """An answer whose body is still to be read. `span` is what its body holds, as far as the server says so."""

    def __init__(self, response: urllib3.BaseHTTPResponse, limits: Limits, connections: int = 1) -> None:
        self._response = response
        self._limits = limits
        self._block = limits.block_of(connections)
        self.status = response.status
        self.code = response.headers.get("X-Error-Code", "")
        self.location = response.headers.get("Location", "")
        self.span = _span(response)
        self.is_read = False
        """To its end: only then can the connection be used again."""

    @property
    def retry_after_s(self) -> float:
        """What the server asks us to wait; 0 where it does not."""
        return retry_after.wait_s(self._response.headers)

    @property
    def is_page(self) -> bool:
        """For people, as a captive portal or a firewall sends it in the place of anything."""
        return self._response.headers.get("Content-Type", "").startswith("text/html")

    def blocks(self) -> Iterator[bytes]:
        """The body in blocks of about what `limits.block_of` says, or of what came within a second.

        Raises BrokenError where it ends early or hardly moves: a server that drips never meets a socket's timeout.
        """
        held = _Held(min(self._block, _ENOUGH))
        # What is asked for is allocated, whatever comes; so not much more than what came the last time.
        ask = least = min(self._block, _LEAST_READ)
        recent = 0
        window = time.monotonic()
        while True:
            try:
                with naming_failures():
                    data = self._response.read1(ask, decode_content=False)
            except BrokenError:
                # What came before is as good as any.
                yield from held.take()
                raise
            if not data:
                self.is_read = True
                yield from held.take()
                return
            ask = min(self._block, max(least, 2 * len(data)))
            now = time.monotonic()
            recent += len(data)
            is_enough = held.add(data, now)
            if now - window >= self._limits.stall_s:
                if recent < self._limits.trickle:
                    yield from held.take()
                    raise BrokenError(f"only {recent} bytes came in {now - window:.0f} s")
                window, recent = now, 0
            if is_enough:
                yield from held.take()
                # The time that a slow disk takes is not the server's.
                window += time.monotonic() - now


class _Held:
    """Pieces of a body that are too small to be worth writing, for a second at most."""

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self._parts: list[bytes] = []
        self._size = 0
        self._since = 0.0

    def add(self, data: bytes, now: float) -> bool:
        """True: it is time to take them."""
        if not self._parts:
            self._since = now
        self._parts.append(data)
        self._size += len(data)
        return self._size >= self._enough or now - self._since >= 1

    def take(self) -> Iterator[bytes]:
        """One block, or none. It is not held here while it is written."""
        if self._parts:
            block = [b"".join(self._parts)]
            self._parts, self._size = [], 0
            yield block.pop()


def _span(response: urllib3.BaseHTTPResponse) -> Span | None:
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        return Span(start=int(match[1]), end=int(match[2]) + 1, size=int(match[3])) if match else None
    length = response.headers.get("Content-Length", "")
    return Span(start=0, end=int(length), size=int(length)) if _CONTENT_LENGTH.fullmatch(length) else None


@contextmanager
def naming_failures() -> Iterator[None]:
    try:
        yield
    except (HTTPError, OSError, ValueError) as error:
        cause = _innermost(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UntrustedError(cause.verify_message) from error
        if refused := _TUNNEL_REFUSED.fullmatch(str(cause)):
            raise BlockedError(refused[1]) from error
        raise BrokenError(_words(cause)) from error


def _innermost(error: BaseException) -> BaseException:
    """The outer ones repeat URLs, which may be signed."""
    while True:
        reason = error.reason if isinstance(error, MaxRetryError) else None
        inner = reason or error.__cause__ or next((arg for arg in error.args if isinstance(arg, Exception)), None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came for too long"
    if isinstance(error, LocationValueError):
        return "its address makes no sense"
    if isinstance(error, socket.gaierror):
        return f"the name is not known: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, IncompleteRead):
        return f"the answer ended {error.expected} bytes too early"
    return f"{type(error).__name__}: {error}"
