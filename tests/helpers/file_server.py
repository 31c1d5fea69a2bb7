"""Files over HTTP on loopback, whole or in parts, and a registry that wants a token before it names a digest."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

TOKEN = "for-anybody"


@dataclass(kw_only=True)
class Site:
    """`files` by path; `digests` by image and tag ("org/name:tag"). What was asked stands in `requests`."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    parts: bool = True
    requests: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def put(self, file: Path) -> str:
        """The URL that a file has from now on."""
        path = f"/{quote(file.name)}"
        self.files[path] = file.read_bytes()
        return f"{self.url}{path}"


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """The test's own output is enough."""

        def do_GET(self) -> None:
            span = self.headers.get("Range", "")
            site.requests.append(f"{self.command} {self.path}{f' {span}' if span else ''}")
            image = re.fullmatch(r"/v2/(.+)/manifests/(.+)", self.path)
            if image:
                self.manifest(":".join(image.groups()))
            elif self.path.startswith("/token?"):
                self.answer(200, json.dumps({"token": TOKEN}).encode())
            elif self.path in site.files:
                self.file(site.files[self.path], span)
            else:
                self.answer(404, b"")

        def do_HEAD(self) -> None:
            self.do_GET()

        def file(self, data: bytes, span: str) -> None:
            if not span or not site.parts:
                self.answer(200, data)
                return
            first, _, last = span.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(data) - int(last))
            end = int(last) + 1 if first else len(data)
            place = f"bytes {start}-{end - 1}/{len(data)}"
            self.answer(206, data[start:end], {"Content-Range": place})

        def manifest(self, image: str) -> None:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                scope = f"repository:{image.rpartition(':')[0]}:pull"
                challenge = f'Bearer realm="{site.url}/token",service="registry",scope="{scope}"'
                self.answer(401, b"", {"WWW-Authenticate": challenge})
            elif image in site.digests:
                self.answer(200, b"{}", {"Docker-Content-Digest": site.digests[image]})
            else:
                self.answer(404, b"")

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
