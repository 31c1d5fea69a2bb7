"""A server that answers requests in turn with the bytes that it was told to, whatever is asked."""

import socketserver
import threading
from dataclasses import dataclass

CHUNKED = "Transfer-Encoding: chunked\r\n"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Goes out as it is; `closes`: and then the connection."""

    content: bytes
    closes: bool = False


class Scripted(socketserver.ThreadingTCPServer):
    """For `helpers.serving`. `heads` are the requests' lines, `accepted` its connections, of which one has `ended`."""

    request_queue_size = 16

    def __init__(self, *replies: bytes | Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = [each if isinstance(each, Reply) else Reply(content=each) for each in replies]
        self.heads: list[bytes] = []
        self.accepted = 0
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class _Handler(socketserver.StreamRequestHandler):
    server: Scripted
    # Longer than any test waits for it to end a connection by itself.
    timeout = 30

    def handle(self) -> None:
        self.server.accepted += 1
        while head := self._head():
            self.server.heads.append(head)
            reply = self.server.replies.pop(0)
            self.wfile.write(reply.content)
            if reply.closes:
                return

    def finish(self) -> None:
        super().finish()
        self.server.ended.set()

    def _head(self) -> bytes:
        """Empty when the client has gone."""
        lines = []
        while (line := self.rfile.readline()) not in (b"", b"\r\n"):
            lines.append(line)
        return b"".join(lines)


def reply(body: bytes, headers: str = "", *, status: str = "200 OK", length: int | None = None) -> bytes:
    """`length` is what is promised, the body's own where none is given; -1 promises none."""
    promised = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\n" + (f"Content-Length: {promised}\r\n" if promised >= 0 else "") + headers
    return head.encode() + b"\r\n" + body
