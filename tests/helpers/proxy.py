"""A forward proxy on loopback: whole URLs, and tunnels by CONNECT."""

import base64
import http.client
import shutil
import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOPS = {"connection", "host", "keep-alive", "proxy-authorization", "proxy-connection", "transfer-encoding"}


class Proxy(ThreadingHTTPServer):
    """`requests` are all that it let pass, as "GET http://…" or "CONNECT host:port"; `refused` counts the others.

    With a `login`, "user:password", it lets pass only who has it.
    """

    def __init__(self, login: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.login = login
        self.requests: list[str] = []
        self.refused = 0

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class says so
        """A client that hangs up is no error of ours."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def url(self, login: str = "") -> str:
        """For $HTTP_PROXY, with a login in it."""
        return f"http://{login and login + '@'}127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        if self._may_pass():
            url = urlsplit(self.path)
            upstream = http.client.HTTPConnection(url.netloc, timeout=10)
            headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOPS}
            try:
                upstream.request(self.command, url._replace(scheme="", netloc="").geturl(), headers=headers)
                self._pass_on(upstream.getresponse())
            except ConnectionRefusedError:
                self._answer(502)
            finally:
                upstream.close()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        if self._may_pass():
            host, _, port = self.path.rpartition(":")
            try:
                upstream = socket.create_connection((host, int(port)), timeout=10)
            except OSError:
                self._answer(502)
                return
            with upstream:
                upstream.settimeout(None)
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_pump, args=(upstream, self.connection))
                back.start()
                _pump(self.connection, upstream)
                back.join()

    def _may_pass(self) -> bool:
        wanted = f"Basic {base64.b64encode(self.server.login.encode()).decode()}" if self.server.login else None
        if wanted and self.headers.get("Proxy-Authorization") != wanted:
            self.server.refused += 1
            self._answer(407)
            return False
        self.server.requests.append(f"{self.command} {self.path}")
        return True

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status == 407:
            self.send_header("Proxy-Authenticate", 'Basic realm="tests"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _pass_on(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in {*_HOPS, "date", "server"}:
                self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            shutil.copyfileobj(answer, self.wfile)

    def log_message(self, *_: object) -> None:
        """Tests look at `requests`."""


def _pump(one: socket.socket, other: socket.socket) -> None:
    """What comes from `one` goes to `other`, until it ends; then `other` is told so."""
    with suppress(OSError):
        while data := one.recv(64 << 10):
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)
