"""What the edge asks before it lets a request pass: a key that is known, and an allowance that is not used up.

It speaks to the edge alone, which sends the client's own headers (Caddy's forward_auth).
"""

import json
import math
import sys
import threading
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.keys import ring
from dsv4_stack.guest.keys.allowance import Allowance
from dsv4_stack.guest.keys.ring import Ring

# Of strangers, who have no key.
REFUSALS_PER_MINUTE: Final = 60
_Version = tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    status: HTTPStatus
    name: str = ""
    reason: str = ""
    retry_s: int = 0


class Desk:
    """The keys' file is read again whenever it has changed: a key is given and taken without a restart."""

    def __init__(self, file: Path, per_minute: float, burst: int) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._seen: _Version = ()
        self._problem = ""
        self._ring: Ring = {}
        self._allowance = Allowance(per_minute, burst)
        self._refusals = Allowance(REFUSALS_PER_MINUTE, REFUSALS_PER_MINUTE)

    def judge(self, key: str, address: str) -> Verdict:
        """A key, "" where there is none, and where it comes from."""
        name = ring.owner(self._keys(), key)
        if name:
            wait_s = self._allowance.wait_s(name)
            reason = f"{name} has used up its requests" if wait_s else ""
            status = HTTPStatus.TOO_MANY_REQUESTS if wait_s else HTTPStatus.OK
            return Verdict(status=status, name=name, reason=reason, retry_s=math.ceil(wait_s))
        wait_s = self._refusals.wait_s(address)
        if wait_s:
            return Verdict(
                status=HTTPStatus.TOO_MANY_REQUESTS, reason="too many requests without a key", retry_s=math.ceil(wait_s)
            )
        return Verdict(status=HTTPStatus.UNAUTHORIZED, reason="a known API key is needed: Authorization: Bearer KEY")

    def _keys(self) -> Ring:
        # One thread at a time, from the look to the new ring: else the slower of two puts the older ring in place.
        with self._lock:
            version = _version(self._file)
            # What failed is tried again: the reason need not be in the file.
            if version != self._seen or self._problem:
                self._read(version)
            return self._ring

    def _read(self, version: _Version) -> None:
        problem = ""
        try:
            self._ring = ring.load(self._file)
        except ConfigError as error:
            # Those of before still hold: a slip of the pen must not lock everybody out.
            problem = str(error)
        if (version, problem) != (self._seen, self._problem):
            print(f"keys: {problem or f'{len(self._ring)} known'}", file=sys.stderr, flush=True)
        self._seen, self._problem = version, problem


def _version(file: Path) -> _Version:
    """Another one whenever the file is; () while there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return ()
    except OSError as error:
        return (str(error),)
    return found.st_ino, found.st_mtime_ns


def key_of(headers: Message) -> str:
    """As OpenAI's clients send it, or Anthropic's."""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else headers.get("X-Api-Key", "")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # As many as may come before they are taken: with Python's own 5 a burst would be refused by the kernel.
    request_queue_size = 1024


def serve(desk: Desk, port: int) -> ThreadingHTTPServer:
    """A server that is to be started with `serve_forever`. Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._say(Verdict(status=HTTPStatus.OK))
            else:
                self._say(desk.judge(key_of(self.headers), self.headers.get("X-Forwarded-For", "")))

        def _say(self, verdict: Verdict) -> None:
            error = {"error": {"message": verdict.reason, "type": "invalid_request_error", "code": verdict.status}}
            body = json.dumps(error).encode() if verdict.reason else b""
            self.send_response(verdict.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if verdict.name:
                self.send_header("X-Dsv4-Key", verdict.name)
            if verdict.status == HTTPStatus.UNAUTHORIZED:
                self.send_header("WWW-Authenticate", "Bearer")
            if verdict.retry_s:
                self.send_header("Retry-After", str(verdict.retry_s))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """The edge has the access log, without keys."""

    return _Server(("", port), Handler)
