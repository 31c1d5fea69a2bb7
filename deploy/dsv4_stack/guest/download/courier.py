"""Brings one piece of a file: asks, follows redirects, and asks again until it is there or it is hopeless."""

import threading
import time
from typing import Final

from dsv4_stack.errors import Dsv4Error, NetworkError, NotAllowedError, NotFoundError
from dsv4_stack.guest import http
from dsv4_stack.guest.download.address import Address
from dsv4_stack.guest.download.answers import Answer, BlockedError, BrokenError, Span, UntrustedError
from dsv4_stack.guest.download.connections import Connections
from dsv4_stack.guest.download.download import Download, Listener
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.download.partial import Partial, Piece, SupersededError
from dsv4_stack.guest.download.pauses import Pauses

_CHECK_NETWORK: Final = (
    "check the network, the proxy ($HTTPS_PROXY) and an extra CA ($DSV4_EXTRA_CA), then run it again"
)
_REDIRECTS: Final = {301, 302, 303, 307, 308}
# 416 as well: a file that is shorter there than it should be is not the file, and another address may have it.
_TRANSIENT: Final = {408, 416, 425, 429, 500, 502, 503, 504}
_TOO_BUSY: Final = {429, 503}
_MOST_HOPS: Final = 8
_SAY_TROUBLE_EVERY_S: Final = 10.0
_KINDS: Final = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError}
_STEPS: Final = {
    NotAllowedError: "set HF_TOKEN to a token that may read it",
    NotFoundError: "check the name and the revision",
}


class PlainRefusedError(Exception):
    """Plain HTTP is refused for this file, and there may be another way. `refusal` is what it ends with if not."""

    def __init__(self, refusal: Dsv4Error) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Courier:
    """Shared by all threads. `received` counts the bytes of this run, `trouble` is the last one that was met."""

    def __init__(self, limits: Limits, listener: Listener, stop: threading.Event) -> None:
        self.received = 0
        self.trouble = ""
        self.connections = Connections(limits)
        self.pauses = Pauses(limits.calm_s)
        self._limits = limits
        self._listener = listener
        self._stop = stop
        self._said_trouble: float | None = None

    def bring(self, download: Download, partial: Partial, piece: Piece) -> None:
        """Fetch what is missing of a piece; returns early only when it is told to stop.

        Raises SupersededError, PlainRefusedError, and the errors that trying again does not mend.
        """
        failures = 0
        while not (piece.is_done or self._stop.is_set()):
            before = piece.done
            try:
                self._ask(download, partial, piece)
            except BrokenError as error:
                failures = 1 if piece.done > before else failures + 1
                wait_s = error.wait_s + self._limits.backoff(failures)
                self._note(f"{download.path}: {error}", wait_s)
                self._stop.wait(wait_s)

    def advance(self, path: str, count: int) -> None:
        self.received += count
        self._listener.advance(path, count)

    def _note(self, trouble: str, wait_s: float) -> None:
        self.trouble = trouble
        now = time.monotonic()
        # Many connections meet the same trouble at once.
        if not self._stop.is_set() and (self._said_trouble is None or now - self._said_trouble >= _SAY_TROUBLE_EVERY_S):
            self._said_trouble = now
            self._listener.say("retry", f"{trouble}; again in {wait_s:.1f} s", trouble=trouble, wait_s=wait_s)

    def _ask(self, download: Download, partial: Partial, piece: Piece) -> None:
        """One request for what is missing of a piece, over the redirects to where it is. Raises BrokenError."""
        address = download.address
        span = Span(start=piece.start + piece.done, end=piece.end, size=download.size)
        for hop in range(_MOST_HOPS):
            url, headers, is_signed = address.current()
            self._wait_for(url)
            if self._stop.is_set():
                return
            try:
                with self.connections.get(url, headers, span) as answer:
                    if answer.status in _REDIRECTS and answer.location:
                        _follow(address, url, answer.location)
                    elif answer.status in (200, 206):
                        self._receive(download, partial, piece, span, answer)
                        return
                    elif is_signed and _may_have_expired(answer) and hop < _MOST_HOPS - 2:
                        address.forget(url)
                    else:
                        if answer.status in _TOO_BUSY:
                            self.pauses.begin(url, answer.retry_after_s)
                        raise _refusal(download, answer)
            except UntrustedError as error:
                raise NetworkError(f"{http.shown(url)} is not to be trusted: {error}", _CHECK_NETWORK) from None
            except BlockedError as error:
                raise NetworkError(f"{http.shown(url)}: the proxy refuses: {error}", _CHECK_NETWORK) from None
            except BrokenError:
                address.forget(url)
                raise
        raise BrokenError("it redirects without end")

    def _wait_for(self, url: str) -> None:
        """Until its host may be asked; those who wait for it do not come back all at once."""
        while left_s := self.pauses.left_s(url):
            if self._stop.wait(left_s + self._limits.backoff(1)):
                return

    def _receive(self, download: Download, partial: Partial, piece: Piece, asked: Span, answer: Answer) -> None:
        sends_all = answer.status == 200
        promised = Span(start=0, end=download.size, size=download.size) if sends_all else asked
        if answer.span and answer.span != promised:
            # A page for people, or another part: nothing of it is written, so what is there is as good as before.
            raise BrokenError(f"the server sends {_told(answer.span)}, {_told(promised)} were promised")
        if sends_all and not asked.is_whole:
            # It does not send parts, or not of this file: then all of it, from the start, over one connection.
            if not answer.span and answer.is_page:
                raise BrokenError("the server sends a page of HTML")
            if partial.start_again(piece.generation, in_one=True):
                self._listener.retreat(download.path)
            raise SupersededError
        for block in answer.blocks():
            if self._stop.is_set():
                return
            put = partial.write(piece, block)
            self.advance(download.path, put)
            if put < len(block):
                # Nobody knows where it ends.
                break
            # Else it would stay until the next one is whole, a quarter of a mebibyte for each connection.
            del block
        if not piece.is_done:
            missing = piece.end - piece.start - piece.done
            raise BrokenError(f"the answer ended {missing} bytes too early")


def _follow(address: Address, asked: str, location: str) -> None:
    try:
        address.follow(asked, location)
    except ValueError:
        raise BrokenError("it redirects to something that is no address") from None


def _may_have_expired(answer: Answer) -> bool:
    return 400 <= answer.status < 500 and answer.status not in _TRANSIENT


def _told(span: Span) -> str:
    return f"{span.size} bytes" if span.is_whole else str(span)


def _refusal(download: Download, answer: Answer) -> Exception:
    """What a status means: some go by themselves, some another way may get around, and some are final."""
    status, code = answer.status, f" ({answer.code})" if answer.code else ""
    if status in _TRANSIENT or status >= 520:
        return BrokenError(f"the server answers {status}{code}", wait_s=answer.retry_after_s)
    kind = _KINDS.get(status, NetworkError)
    where = http.shown(download.address.url)
    refusal = kind(f"{where}: the server answers {status}{code}", _STEPS.get(kind, _CHECK_NETWORK))
    may_come_otherwise = download.otherwise and status not in (401, 404, 407) and not answer.code
    return PlainRefusedError(refusal) if may_come_otherwise else refusal
