"""A Hub of one's own: serves the repositories below a folder with the Hub's protocol, to its own client as well."""

import signal
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dsv4_stack.errors import UsageError
from dsv4_stack.guest.demo import faults
from dsv4_stack.guest.demo.cdn import Cdn
from dsv4_stack.guest.demo.faults import Faults, Refusal
from dsv4_stack.guest.demo.handler import Handler as _Handler
from dsv4_stack.guest.demo.repo import Repos, Stored


class DemoHub(ThreadingHTTPServer):
    """`private` maps a repository to the token that opens it, `known` a file to its sha256 (see `Repos`).

    `requests` are all that came, as "GET /path"; `sent` the bytes of each file that went to a socket; `connections`
    how many were accepted, `peak` how many were open at once (one that a client has just closed may still count);
    `authorized_cdn` how many requests brought a token to where none belongs. `control` serves and resets them over
    HTTP, and takes faults.
    """

    daemon_threads = False  # they end with their connections, and those with `server_close`
    request_queue_size = 128

    def __init__(
        self,
        root: Path,
        host: str,
        port: int,
        *,
        private: dict[str, str] | None = None,
        known: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
        control: bool = False,
        log: bool = False,
    ) -> None:
        # Before the base class's, which calls `server_close` where it cannot listen.
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)
        self.repos = Repos(root, known)
        self.private = private or {}
        self.control = control
        self.log = log
        self.faults = Faults()
        self.cdn = Cdn()
        self.requests: list[str] = []
        self.sent: Counter[str] = Counter()
        self.connections = self.peak = self.authorized_cdn = 0
        self._context = context

    @property
    def url(self) -> str:
        return self.url_at("")

    def url_at(self, host: str) -> str:
        """The URL by another name of this machine; "" for the address that it listens on."""
        return f"http{'s' if self._context else ''}://{host or self.server_address[0]!s}:{self.server_address[1]}"

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def visible(self, repo: str) -> list[Stored]:
        wrong = self.faults
        shown = [file for file in self.repos.files(repo) if not faults.has(wrong.hide, f"{repo}/{file.path}")]
        if not wrong.xet:
            return shown
        return [replace(file, xet_hash=wrong.value(wrong.xet, f"{repo}/{file.path}") or "") for file in shown]

    def file(self, name: str) -> Stored | None:
        org, repo, path = name.split("/", 2)
        return next((file for file in self.visible(f"{org}/{repo}") if file.path == path), None)

    def refusal(self, repo: str, token: str) -> Refusal | None:
        """As on the real Hub, whoever may not see a repository is told that there is none."""
        if refusal := self.faults.refusal(repo):
            return refusal
        if not self.repos.has(repo) or (repo in self.private and not token):
            return Refusal(status=404 if token else 401, code="RepoNotFound", message="Repository not found")
        if repo in self.private and token != self.private[repo]:
            return Refusal(status=401, message="Invalid credentials in Authorization header")
        return None

    def count_sent(self, name: str, count: int) -> None:
        with self._lock:
            self.sent[name] += count

    def count_authorized(self) -> None:
        with self._lock:
            self.authorized_cdn += 1

    def stats(self) -> dict[str, object]:
        with self._lock:
            return {
                "sent": dict(self.sent),
                "requests": list(self.requests),
                "connections": self.connections,
                "peak": self.peak,
                "authorized_cdn": self.authorized_cdn,
            }

    def forget(self) -> None:
        """Count from zero; connections that are open stay part of the peak."""
        with self._lock:
            self.sent.clear()
            self.requests.clear()
            self.connections = self.authorized_cdn = 0
            self.peak = len(self._open)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The handshake waits for the connection's own thread."""
        connection, address = super().get_request()
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open.add(connection)
            self.connections += 1
            self.peak = max(self.peak, len(self._open))
        return connection, address

    def close_request(self, request: Any) -> None:  # noqa: ANN401 - the base class says so
        with self._lock:
            self._open.discard(request)
        super().close_request(request)

    def server_close(self) -> None:
        """End every connection, whatever it waits for, and then its thread."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which is not for two threads
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class says so
        """A client that hangs up, or does not believe our certificate, is no error of ours."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError | ssl.SSLError):
            super().handle_error(request, client_address)


def serve(
    root: Path, host: str, port: int, *, private: dict[str, str], known: Mapping[str, str], control: bool
) -> None:
    """Serve until SIGTERM or SIGINT, with a JSON line on stderr for each request. Raises UsageError.

    As a container's first process it would not end by itself on SIGTERM.
    """
    try:
        server = DemoHub(root, host, port, private=private, known=known, control=control, log=True)
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened on: {error.strerror}", "choose another --port") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with server, suppress(KeyboardInterrupt):
        print(f"hub: serves {root} at {server.url}", file=sys.stderr, flush=True)
        server.serve_forever()
