"""Requests to a Hub's stand-in by the standard library alone, with what came of an answer that never ends."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, IncompleteRead

from dsv4_stack.guest.demo.server import DemoHub


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`is_cut` where fewer bytes came than were promised."""

    status: int
    headers: HTTPMessage
    body: bytes
    is_cut: bool = False

    @property
    def span(self) -> str | None:
        return self.headers["Content-Range"]


@contextmanager
def connected(server: DemoHub) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(str(server.server_address[0]), server.server_address[1], timeout=30)
    try:
        yield connection
    finally:
        connection.close()


def ask(
    server: DemoHub,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: str | None = None,
) -> Answer:
    """One request on a connection of its own."""
    with connected(server) as connection:
        connection.request(method, path, body, dict(headers or {}))
        return read(connection.getresponse())


def read(response: HTTPResponse) -> Answer:
    try:
        body, is_cut = response.read(), False
    except IncompleteRead as error:
        body, is_cut = error.partial, True
    return Answer(status=response.status, headers=response.headers, body=body, is_cut=is_cut)


def part(start: int, end: int) -> dict[str, str]:
    """The header that asks for bytes `start` up to but without `end`."""
    return {"Range": f"bytes={start}-{end - 1}"}
