"""A Hub and its xet store on loopback, as much of both as the real hf_xet needs to bring a file.

https://huggingface.co/docs/xet: a file is a row of chunks, which lie in xorbs; a reconstruction says which chunks of
which xorbs to fetch, by which URLs and ranges.
"""

import hashlib
import json
import re
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

CHUNK: Final = 64 << 10
_HEADER: Final = 8
_SPAN: Final = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(kw_only=True)
class Cas:
    """Serves `content` as the file `path` of `repo` at any revision.

    `stalls` says how often the data of a xorb, by its number, stops in its middle; `refusals` with which status a route
    is refused: resolve, token, reconstruction or data. `requests` are what was asked, `bearers` which tokens came along
    on each route, `served` counts the answers with data.
    """

    content: Path
    repo: str = "org/model"
    path: str = "model.safetensors"
    xorb_chunks: int = 64
    has_xet: bool = True
    stalls: dict[int, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    bearers: dict[str, set[str]] = field(default_factory=dict)
    served: int = 0
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def size(self) -> int:
        return self.content.stat().st_size

    @property
    def xet_hash(self) -> str:
        return hashlib.sha256(f"{self.repo}/{self.path}".encode()).hexdigest()

    def reconstruction(self, start: int, end: int) -> dict[str, Any]:
        """What to fetch for the bytes from `start` to `end` of the file."""
        xorb = self.xorb_chunks * CHUNK
        terms, fetch = [], {}
        for number in range(start // xorb, (end - 1) // xorb + 1):
            length = min(xorb, self.size - number * xorb)
            chunks = {"start": 0, "end": -(-length // CHUNK)}
            name = f"{number:064x}"
            terms.append({"hash": name, "unpacked_length": length, "range": chunks})
            last = length + _HEADER * chunks["end"] - 1
            url = f"{self.url}/data/{number}?signature=s"
            fetch[name] = [{"range": chunks, "url": url, "url_range": {"start": 0, "end": last}}]
        return {"offset_into_first_range": start % xorb, "terms": terms, "fetch_info": fetch}

    def xorb(self, number: int) -> bytes:
        """Uncompressed chunks, each behind a header of version, stored length, kind of compression and length."""
        with self.content.open("rb") as file:
            file.seek(number * self.xorb_chunks * CHUNK)
            chunks = iter(lambda: file.read(CHUNK), b"")
            rows = [_row(chunk) for _, chunk in zip(range(self.xorb_chunks), chunks, strict=False)]
        return b"".join(rows)


@contextmanager
def serving(cas: Cas) -> Iterator[Cas]:
    """Until the end of the block; what stalls then is let go."""

    class Handler(_Handler):
        pass

    Handler.cas = cas
    server = _Server(("127.0.0.1", 0), Handler)
    cas.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield cas
    finally:
        cas.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _row(chunk: bytes) -> bytes:
    length = struct.pack("<I", len(chunk))[:3]
    return b"\0" + length + b"\0" + length + chunk


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that is ended leaves its connections as they are."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cas: Cas

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        cas, path = self.cas, urlsplit(self.path).path
        cas.requests.append(f"{self.command} {path}")
        routes = {
            f"/{cas.repo}/resolve/": ("resolve", self._resolve),
            f"/api/models/{cas.repo}/xet-read-token/": ("token", self._token),
            "/v1/reconstructions/": ("reconstruction", self._reconstruction),
            "/data/": ("data", self._data),
        }
        for prefix, (name, answer) in routes.items():
            if path.startswith(prefix):
                cas.bearers.setdefault(name, set()).add(self.headers.get("Authorization", ""))
                if status := cas.refusals.get(name):
                    return self._answer(status)
                return answer()
        return self._answer(404)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _resolve(self) -> None:
        cas = self.cas
        headers = {
            "Location": "https://cdn.example/refused",
            "X-Repo-Commit": "a" * 40,
            "ETag": '"etag"',
            "X-Linked-Size": str(cas.size),
        }
        if not self.path.endswith(f"/{cas.path}"):
            return self._answer(404, headers={"X-Error-Code": "EntryNotFound"})
        if cas.has_xet:
            token = f"{cas.url}/api/models/{cas.repo}/xet-read-token/main"
            headers |= {"X-Xet-Hash": cas.xet_hash, "Link": f'<{token}>; rel="xet-auth"'}
        return self._answer(302, headers=headers)

    def _token(self) -> None:
        answer = {"accessToken": "of-the-store", "exp": int(time.time()) + 3600, "casUrl": self.cas.url}
        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _reconstruction(self) -> None:
        cas = self.cas
        asked = _SPAN.fullmatch(self.headers.get("Range", f"bytes=0-{cas.size - 1}"))
        assert asked
        start, end = int(asked[1]), min(int(asked[2]) + 1, cas.size)
        if start >= cas.size:
            return self._answer(416)
        body = json.dumps(cas.reconstruction(start, end)).encode()
        return self._answer(200, body, {"Content-Type": "application/json"})

    def _data(self) -> None:
        cas = self.cas
        asked = _SPAN.fullmatch(self.headers["Range"])
        assert asked
        start, end = int(asked[1]), int(asked[2]) + 1
        number = int(urlsplit(self.path).path.rpartition("/")[2])
        xorb = cas.xorb(number)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(xorb)}"}
        body = xorb[start:end]
        cas.served += 1
        if cas.stalls.get(number, 0):
            cas.stalls[number] -= 1
            self._answer(206, body[: len(body) // 2], headers | {"Content-Length": str(len(body))})
            cas.released.wait()
            self.close_connection = True
            return
        self._answer(206, body, headers)
