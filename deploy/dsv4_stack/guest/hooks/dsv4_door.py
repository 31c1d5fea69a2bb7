"""An ASGI middleware in vLLM's API server (`--middleware dsv4_door.Door`): requests pass while the watch says so.

vLLM answers 200 as long as it runs: with garbage, while it hangs, and to what comes during a drain (an empty text with
the finish reason "abort"). Here they get 503 and the reason. What is let in is counted, so that a stop can wait for it.
"""

import hmac
import json
import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

IN_FLIGHT: Final = "/dsv4/in-flight"
PASS_HEADER: Final = b"x-dsv4-pass"
# What tells about the server and gives no answer of the model.
ALWAYS: Final = ("/metrics", "/version", "/v1/models")
RETRY_AFTER_S: Final = 5


class Door:
    """Closed while the file $DSV4_DOOR holds a text, which is the reason; $DSV4_PASS opens it for the watch itself."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._file = os.environ.get("DSV4_DOOR", "")
        self._pass = os.environ.get("DSV4_PASS", "").encode()
        self._seen = (-1, -1)
        self._reason = ""
        self._in_flight = 0
        logging.getLogger("uvicorn.access").addFilter(_is_no_look)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._is_ours(scope):
            await self._let_ours(scope, receive, send)
        elif scope["path"] not in ALWAYS and (reason := self._closed()):
            await _answer(send, 503, {"error": {"message": reason, "type": "not_ready", "code": 503}})
        elif scope["method"] == "POST":
            await self._count(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_ours(self, scope: Message) -> bool:
        given = dict(scope["headers"]).get(PASS_HEADER, b"")
        return bool(self._pass) and hmac.compare_digest(given, self._pass)

    async def _let_ours(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == IN_FLIGHT:
            await _answer(send, 200, {"in_flight": self._in_flight})
        else:
            await self._app(scope, receive, send)

    async def _count(self, scope: Message, receive: Receive, send: Send) -> None:
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1

    def _closed(self) -> str:
        """The reason, read again only when the file has changed. Without the file the watch is gone, and so are we."""
        if not self._file:
            return ""
        try:
            # Plain calls: this runs for every request.
            found = os.stat(self._file)  # noqa: PTH116
            if (found.st_ino, found.st_mtime_ns) != self._seen:
                with open(self._file, encoding="utf-8") as file:  # noqa: PTH123
                    self._reason = file.read().strip()
                self._seen = (found.st_ino, found.st_mtime_ns)
        except OSError:
            return "the watch over this engine is gone"
        return self._reason


async def _answer(send: Send, status: int, document: object) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        # The connection too: the next request is for whoever listens then.
        headers += [(b"retry-after", str(RETRY_AFTER_S).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_no_look(record: logging.LogRecord) -> bool:
    """The watch looks every second; the access log is for users' requests."""
    words = record.args if isinstance(record.args, tuple) else ()
    return len(words) < 3 or str(words[2]).partition("?")[0] not in ("/health", "/metrics", IN_FLIGHT)
