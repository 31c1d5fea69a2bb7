"""Answers of an HTTP server: JSON, refusals in the words of a Hub and of a content delivery network, and its log."""

import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dsv4_stack.guest.demo.faults import Refusal

if TYPE_CHECKING:
    from dsv4_stack.guest.demo.server import DemoHub

NOT_FOUND: Final = Refusal(status=404, message="Not found")
_CONTROL: Final = ("/__stats", "/__faults")
_XML: Final = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>{}</Message></Error>\n'


class Answers(BaseHTTPRequestHandler):
    """One connection; `answer` is for the routes to say."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 << 10
    server: "DemoHub"

    def do_GET(self) -> None:
        self.answer(b"")

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        self.answer(self.rfile.read(int(length)) if length.isdecimal() else b"")

    def answer(self, body: bytes) -> None:
        """Answer GET, HEAD or POST, as `command` is."""
        raise NotImplementedError

    @property
    def is_control(self) -> bool:
        return self.server.control and urlsplit(self.path).path in _CONTROL

    def _json(self, document: object, headers: dict[str, str] | None = None) -> None:
        self._whole(HTTPStatus.OK, json.dumps(document), {"Content-Type": "application/json"} | (headers or {}))

    def _refuse(self, refusal: Refusal) -> None:
        headers = {
            "Content-Type": "application/json",
            "X-Error-Code": refusal.code,
            "X-Error-Message": refusal.message,
            "Retry-After": refusal.retry_after,
        }
        filled = {key: value for key, value in headers.items() if value}
        self._whole(refusal.status, json.dumps({"error": refusal.message}), filled)

    def _deny(self, message: str) -> None:
        """As a content delivery network does."""
        self._whole(HTTPStatus.FORBIDDEN, _XML.format(message), {"Content-Type": "application/xml"})

    def _whole(self, status: int, text: str, headers: dict[str, str]) -> None:
        body = text.encode()
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_request(self, code: int | str = "-", _size: int | str = "-") -> None:
        """All but the health checks, and what is no request: `log_error` has said so."""
        if self.server.log and self.command and self.path != "/healthz" and not self.is_control:
            entry = {"method": self.command, "path": self.path, "status": int(code), "range": self.headers.get("Range")}
            print(json.dumps(entry), file=sys.stderr, flush=True)
