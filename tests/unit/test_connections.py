"""Answers over real sockets: what is asked, what is believed, what is kept open, and what no message may say."""

import gzip
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import tls
from helpers.clock import Clock
from helpers.proxy import Proxy
from helpers.scripted import CHUNKED, Reply, Scripted, reply
from helpers.serving import serving
from helpers.sockets import black_hole, closed_port
from helpers.wait import wait_until
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import ConfigError, NetworkError
from dsv4_stack.guest import retry_after
from dsv4_stack.guest.demo.server import DemoHub
from dsv4_stack.guest.digests import of_bytes
from dsv4_stack.guest.download import answers, crew
from dsv4_stack.guest.download.address import Address
from dsv4_stack.guest.download.answers import Answer, BlockedError, BrokenError, Span, UntrustedError
from dsv4_stack.guest.download.connections import Connections
from dsv4_stack.guest.download.download import Download, Quiet
from dsv4_stack.guest.download.limits import Limits

pytest_plugins = ["helpers.hub_fixtures"]

# Nothing ends by itself, however slow the machine is.
PATIENT = Limits(jobs=2, connect_s=30, stall_s=30, patience_s=30, backoff_s=0.01, backoff_most_s=0.02, block=64)
# For silence: nothing that has to come may be waited for with these.
IMPATIENT = replace(PATIENT, connect_s=0.1, stall_s=0.2)
# Whoever is not woken waits for longer: as long as PATIENT lets it.
WOKEN_S = 5
WHOLE = Span(start=0, end=10, size=10)
PART = Span(start=2, end=5, size=10)
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, offline_environment: None) -> None:
    assert offline_environment is None
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def connected(limits: Limits = PATIENT) -> Iterator[Connections]:
    opened = Connections(limits)
    try:
        yield opened
    finally:
        opened.close()


def read(opened: Connections, url: str, span: Span = WHOLE, headers: Mapping[str, str] | None = None) -> bytes:
    with opened.get(url, headers or {}, span) as answer:
        return b"".join(answer.blocks())


def trouble(url: str, span: Span = WHOLE, *, kind: type[Exception] = BrokenError, limits: Limits = PATIENT) -> str:
    """What is said of a request that fails."""
    with connected(limits) as opened, pytest.raises(kind) as caught:
        read(opened, url, span)
    return str(caught.value)


# What is asked


def test_a_whole_file_is_asked_for_without_a_range_and_a_part_with_one() -> None:
    with serving(Scripted(reply(b"0123456789"), reply(b"234", status="206 Partial Content"))) as server:
        with connected() as opened:
            assert read(opened, f"{server.url}?signature=s") == b"0123456789"
            assert read(opened, server.url, PART, {"Authorization": "Bearer hf_x"}) == b"234"
        host = f"Host: 127.0.0.1:{server.server_address[1]}\r\n"
        plain = "Accept-Encoding: identity\r\nUser-Agent: dsv4-stack\r\n"
        assert [head.decode() for head in server.heads] == [
            f"GET /file?signature=s HTTP/1.1\r\n{host}{plain}",
            f"GET /file HTTP/1.1\r\n{host}{plain}Authorization: Bearer hf_x\r\nRange: bytes=2-4\r\n",
        ]


def test_nobody_logs_in_with_what_lies_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serving(Scripted(reply(b"0123456789"))) as server:
        with connected() as opened:
            read(opened, server.url)
        assert b"Authorization" not in server.heads[0]


# What is believed


@pytest.mark.parametrize(
    ("status", "headers", "span"),
    [
        ("206 Partial", "Content-Range: bytes 2-4/10\r\n", PART),
        ("206 Partial", "Content-Range: bytes 2-4/*\r\n", None),
        ("206 Partial", "Content-Range: bytes */10\r\n", None),
        ("206 Partial", f"Content-Range: bytes 0-{'9' * 5000}/{'9' * 5000}\r\n", None),
        ("206 Partial", "", None),
        ("200 OK", "Content-Length: 10\r\n", WHOLE),
        ("200 OK", "Content-Length: ten\r\n", None),
        ("200 OK", f"Content-Length: {'9' * 5000}\r\n", None),
        ("200 OK", "", None),
    ],
)
def test_the_span_is_what_the_server_says(status: str, headers: str, span: Span | None) -> None:
    content = reply(b"", headers, status=status, length=-1)
    with (
        serving(Scripted(Reply(content=content, closes=True))) as server,
        connected() as opened,
        opened.get(server.url, {}, PART) as answer,
    ):
        assert answer.span == span


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, 0),
        ({"Retry-After": "5"}, 5),
        ({"Retry-After": "7200"}, 3600),
        ({"Retry-After": "9" * 500}, 3600),
        ({"Retry-After": "-1"}, 0),
        ({"Retry-After": "1.5"}, 0),
        ({"Retry-After": "\u00b2"}, 0),
        ({"Retry-After": DATE}, 0),
        ({"Retry-After": DATE, "Date": "soon"}, 0),
        ({"Retry-After": DATE, "Date": "Wed, 21 Oct 2015 07:27:00 GMT"}, 60),
        ({"Retry-After": DATE, "Date": "Tue, 20 Oct 2015 07:28:00 GMT"}, 3600),
        ({"Retry-After": DATE, "Date": "Wed, 21 Oct 2015 07:28:01 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 09:28:00 +0200", "Date": "Wednesday, 21-Oct-15 07:27:50 GMT"}, 10),
        ({"Retry-After": "Wed, 99 Oct 99999999999 99:99:99 GMT", "Date": DATE}, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api"; r=0; t=55', "Retry-After": "5"}, 5),
        ({"RateLimit": '"api";r=10;t=55'}, 0),
    ],
)
def test_the_wait_that_a_server_asks_for_is_believed_within_limits(headers: dict[str, str], wait_s: float) -> None:
    assert faked(Fake([], headers=headers)).retry_after_s == wait_s


@given(text=st.text(max_size=40) | st.text("0123456789 :,+-GMTWedOct", max_size=40))
def test_any_wait_may_be_asked_for(text: str) -> None:
    for headers in ({"Retry-After": text, "Date": DATE}, {"Retry-After": DATE, "Date": text}, {"RateLimit": text}):
        assert 0 <= retry_after.wait_s(headers) <= 3600


def test_what_a_refusal_says_is_kept() -> None:
    headers = "X-Error-Code: GatedRepo\r\nLocation: /elsewhere\r\n"
    with serving(Scripted(reply(b"no", headers, status="403 Forbidden"))) as server, connected() as opened:
        asked = opened.get(server.url, {}, WHOLE)
        with asked as answer:
            assert (answer.status, answer.code, answer.location) == (403, "GatedRepo", "/elsewhere")


# Bodies


def test_a_body_that_ends_early_is_broken_and_what_came_is_given() -> None:
    with serving(Scripted(Reply(content=reply(b"012", length=10), closes=True))) as server, connected() as opened:
        came: list[bytes] = []
        with opened.get(server.url, {}, WHOLE) as answer, pytest.raises(BrokenError) as caught:
            came.extend(answer.blocks())
    assert came == [b"012"]
    assert str(caught.value) == "the answer ended 7 bytes too early"


def test_what_comes_behind_a_body_does_not_get_into_it_or_into_the_next() -> None:
    with serving(Scripted(reply(b"0123456789beyond", length=10), reply(b"abc"))) as server, connected() as opened:
        assert read(opened, server.url) == b"0123456789"
        assert read(opened, server.url) == b"abc"


def test_a_body_in_chunks_has_no_length_and_leaves_the_connection_open() -> None:
    content = reply(b"3\r\n012\r\n7\r\n3456789\r\n0\r\n\r\n", CHUNKED, length=-1)
    with serving(Scripted(content, reply(b"abc"))) as server, connected() as opened:
        with opened.get(server.url, {}, WHOLE) as answer:
            assert answer.span is None
            assert b"".join(answer.blocks()) == b"0123456789"
        assert read(opened, server.url) == b"abc"
        assert server.accepted == 1


@pytest.mark.parametrize("body", [b"3\r\n012\r\n", b"3\r\n012\r\n7\r\n345", b"nine\r\n012"])
def test_chunks_that_end_early_or_are_none_are_broken(body: bytes) -> None:
    with serving(Scripted(Reply(content=reply(body, CHUNKED, length=-1), closes=True))) as server:
        assert trouble(server.url) == "IncompleteRead: IncompleteRead(0 bytes read)"


def test_a_body_of_no_stated_length_ends_with_its_connection() -> None:
    with serving(Scripted(Reply(content=reply(b"0123", length=-1), closes=True))) as server, connected() as opened:
        assert read(opened, server.url) == b"0123"


def test_what_is_compressed_stays_so() -> None:
    """Hashes and sizes are those of the bytes that the Hub has, which may well be compressed ones."""
    body = gzip.compress(b"0123456789")
    with serving(Scripted(reply(body, "Content-Encoding: gzip\r\n"))) as server, connected() as opened:
        assert read(opened, server.url) == body


@dataclass
class Fake:
    """A response whose pieces come `every` so many seconds."""

    pieces: list[bytes]
    every: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    status: int = 200

    def read1(self, amount: int, *, decode_content: bool) -> bytes:
        assert (amount, decode_content) == (64, False)
        self.clock.now += self.every
        return self.pieces.pop(0) if self.pieces else b""


def faked(response: Any, limits: Limits = PATIENT) -> Answer:  # noqa: ANN401 - as much of one as is needed
    return Answer(response, limits)


def slow(monkeypatch: pytest.MonkeyPatch, response: Fake) -> Answer:
    monkeypatch.setattr(answers, "time", SimpleNamespace(monotonic=response.clock))
    return faked(response, replace(PATIENT, stall_s=20, trickle=100))


def test_a_server_that_drips_is_found_out_and_its_drops_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = slow(monkeypatch, Fake([b"0123456789"] * 50, every=3.0))
    came = []
    with pytest.raises(BrokenError) as caught:
        came.extend(answer.blocks())
    assert str(caught.value) == "only 70 bytes came in 21 s"
    assert b"".join(came) == b"0123456789" * 7
    assert not answer.is_read


def test_a_slow_server_is_borne_with(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = slow(monkeypatch, Fake([b"x" * 60] * 50, every=10.0))
    assert sum(map(len, answer.blocks())) == 3000
    assert answer.is_read


def test_a_slow_disk_is_no_slow_server(monkeypatch: pytest.MonkeyPatch) -> None:
    response = Fake([b"x" * 64] * 50, every=0.1)
    count = 0
    for block in slow(monkeypatch, response).blocks():
        response.clock.now += 60
        count += len(block)
    assert count == 3200


def test_small_pieces_are_joined_for_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = slow(monkeypatch, Fake([b"0123456789"] * 15, every=0.01))
    assert list(map(len, quick.blocks())) == [70, 70, 10]
    late = slow(monkeypatch, Fake([b"0123456789"] * 15, every=0.3))
    assert list(map(len, late.blocks())) == [50, 50, 50]


# What is kept open


def test_a_connection_is_used_again_when_all_of_the_body_was_read() -> None:
    with serving(Scripted(*[reply(b"0123456789")] * 3)) as server, connected() as opened:
        for _ in range(3):
            read(opened, server.url)
        assert server.accepted == 1


def test_a_connection_is_not_used_again_when_the_body_was_not_read_or_the_caller_failed() -> None:
    answers = [reply(b"go away", status="403 Forbidden"), reply(b"0123456789"), reply(b"0123456789")]
    with serving(Scripted(*answers)) as server, connected() as opened:
        with opened.get(server.url, {}, WHOLE) as answer:
            assert answer.status == 403
        with pytest.raises(KeyError), opened.get(server.url, {}, WHOLE):
            raise KeyError
        assert read(opened, server.url) == b"0123456789"
        assert server.accepted == 3


def test_a_connection_that_the_server_closed_meanwhile_is_opened_anew() -> None:
    content = Reply(content=reply(b"0123456789"), closes=True)
    with serving(Scripted(content, content)) as server, connected() as opened:
        assert read(opened, server.url) == b"0123456789"
        with socket.create_connection(server.server_address[:2]) as last:
            # The first has ended when this one is served.
            last.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert last.recv(9) == b"HTTP/1.1 "
        server.replies.append(content)
        assert read(opened, server.url) == b"0123456789"


def test_all_are_closed_in_the_end_even_while_an_answer_is_still_known() -> None:
    """As the traceback of an error knows it."""
    with serving(Scripted(reply(b"0123456789"))) as server:
        with connected() as opened, opened.get(server.url, {}, WHOLE) as answer:
            list(answer.blocks())
        assert server.ended.wait(10)
        assert answer.is_read


# What ends it


def stalled(url: str) -> tuple[float, str]:
    """Read a body that stops after 3 bytes until another thread aborts. How long that took, and what was said."""
    with connected() as opened, opened.get(url, {}, WHOLE) as answer:
        blocks = answer.blocks()
        told: list[str] = []

        def wait() -> None:
            with pytest.raises(BrokenError) as caught:
                list(blocks)
            told.append(str(caught.value))

        thread = threading.Thread(target=wait)
        thread.start()
        # Cut before they came, it would say that more is missing.
        assert wait_until(lambda: answer._response.tell() == 3, timeout_s=30, interval_s=0.01)
        began = time.monotonic()
        opened.abort()
        thread.join(20)
        took = time.monotonic() - began
        # One that comes later does not even begin to wait.
        with opened.get(url, {}, WHOLE) as late, pytest.raises(BrokenError):
            list(late.blocks())
    return took, told[0]


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
def test_abort_wakes_who_waits(headers: str) -> None:
    """Where the server will close, urllib3's connection has let go of the socket already."""
    with serving(Scripted(*[reply(b"012", headers, length=10)] * 2)) as server:
        took, told = stalled(server.url)
    assert told == "the answer ended 7 bytes too early"
    assert took < WOKEN_S


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[DemoHub]:
    """With one file of 100 bytes, over TLS."""
    (tmp_path / "hub/org/base").mkdir(parents=True)
    (tmp_path / "hub/org/base/file").write_bytes(b"0123456789" * 10)
    with serving(DemoHub(tmp_path / "hub", "127.0.0.1", 0, context=tls.context())) as server:
        yield server


def url_of(hub: DemoHub) -> str:
    return f"{hub.url}/org/base/resolve/main/file"


def test_abort_wakes_who_waits_behind_tls(hub: DemoHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_EXTRA_CA", str(tls.CA))
    hub.faults.stall["*"] = 3
    took, told = stalled(url_of(hub))
    assert told == "the answer ended 97 bytes too early"
    assert took < WOKEN_S


def test_silence_is_waited_for_so_long_and_no_longer() -> None:
    with serving(Scripted(reply(b"012", length=10))) as server:
        assert trouble(server.url, limits=IMPATIENT) == "nothing came for too long"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert trouble(f"http://127.0.0.1:{silent.getsockname()[1]}/", limits=IMPATIENT) == "nothing came for too long"
    with black_hole() as port:
        assert trouble(f"http://127.0.0.1:{port}/", limits=IMPATIENT) == "nothing came for too long"


# TLS


@pytest.mark.parametrize("variable", ["DSV4_EXTRA_CA", "DSV4_EXTRA_CA_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_an_authority_of_ones_own_is_believed(hub: DemoHub, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, str(tls.CA))
    with connected() as opened:
        for _ in range(2):
            assert read(opened, url_of(hub), Span(start=0, end=100, size=100)) == b"0123456789" * 10
    assert hub.connections == 1


def test_a_certificate_that_nobody_vouches_for_ends_it_at_once(hub: DemoHub, tmp_path: Path) -> None:
    assert trouble(url_of(hub), kind=UntrustedError) == "unable to get local issuer certificate"
    digests = of_bytes(b"0123456789" * 10)
    download = Download(
        path="file",
        address=Address(f"{url_of(hub)}?signature={SECRET}", {}),
        target=tmp_path / "target/file",
        size=100,
        sha256=digests.sha256,
        git_sha1=None,
    )
    with pytest.raises(NetworkError) as caught:
        crew.fetch_all([download], PATIENT, Quiet(), lambda *_: None)
    assert str(caught.value) == (
        f"{url_of(hub)} is not to be trusted: unable to get local issuer certificate\n"
        "  next: check the network, the proxy ($HTTPS_PROXY) and an extra CA ($DSV4_EXTRA_CA), then run it again"
    )
    assert hub.requests == []


def test_a_certificate_for_another_host_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_EXTRA_CA", str(tls.CA))
    with serving(DemoHub(tmp_path, "127.0.0.2", 0, context=tls.context())) as other:
        said = trouble(url_of(other), kind=UntrustedError)
    assert said == "IP address mismatch, certificate is not valid for '127.0.0.2'."


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), (b"no certificate", "[X509: NO_CERTIFICATE_OR_CRL_FOUND]")],
)
def test_a_ca_file_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    said = trouble("https://127.0.0.1:9/", kind=ConfigError)
    assert said.startswith(f"the CA file {path} cannot be used: {reason}")
    assert said.endswith("\n  next: mend $DSV4_EXTRA_CA or $REQUESTS_CA_BUNDLE")


# Proxies

LOGIN = "user:p@ss w/rd"
LOGIN_QUOTED = "user:p%40ss%20w%2Frd"


def test_a_proxy_is_asked_for_whole_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Scripted(reply(b"0123456789"))) as server, serving(Proxy(LOGIN)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url(LOGIN_QUOTED))
        with connected() as opened:
            assert read(opened, server.url, headers={"Authorization": "Bearer hf_x"}) == b"0123456789"
        assert proxy.requests == [f"GET {server.url}"]
        assert proxy.refused == 0
        assert b"\r\nAuthorization: Bearer hf_x\r\n" in server.heads[0]


def test_a_proxy_that_wants_a_login_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Scripted()) as server, serving(Proxy(LOGIN)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        with connected() as opened, opened.get(server.url, {}, WHOLE) as answer:
            assert answer.status == 407
        assert (proxy.refused, server.heads) == (1, [])


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_tls_goes_through_a_tunnel_and_keeps_it(hub: DemoHub, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("DSV4_EXTRA_CA", str(tls.CA))
    with serving(Proxy(LOGIN)) as proxy:
        monkeypatch.setenv(variable, proxy.url(LOGIN_QUOTED).removeprefix("http://" if variable == "ALL_PROXY" else ""))
        with connected() as opened:
            for _ in range(2):
                assert len(read(opened, url_of(hub))) == 100
        assert proxy.requests == [f"CONNECT 127.0.0.1:{hub.server_address[1]}"]


def test_the_end_wakes_who_waits_behind_a_tunnel(hub: DemoHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_EXTRA_CA", str(tls.CA))
    hub.faults.stall["*"] = 3
    with serving(Proxy()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        assert stalled(url_of(hub))[0] < WOKEN_S


def test_a_tunnel_that_is_refused_ends_it_unless_that_goes_by(hub: DemoHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Proxy(LOGIN)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url("user:wrong"))
        assert trouble(url_of(hub), kind=BlockedError) == "407 Proxy Authentication Required"
        monkeypatch.setenv("HTTPS_PROXY", proxy.url(LOGIN_QUOTED))
        with closed_port() as port:
            assert trouble(f"https://127.0.0.1:{port}/") == "OSError: Tunnel connection failed: 502 Bad Gateway"
    assert hub.requests == []


def test_a_tunnel_that_is_refused_is_told_with_the_host(
    hub: DemoHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Proxy(LOGIN)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url(f"user:{SECRET}"))
        download = Download(
            path="file",
            address=Address(f"{url_of(hub)}?signature={SECRET}", {}),
            target=tmp_path / "target/file",
            size=100,
            sha256="0" * 64,
            git_sha1=None,
        )
        with pytest.raises(NetworkError) as caught:
            crew.fetch_all([download], PATIENT, Quiet(), lambda *_: None)
    assert str(caught.value) == (
        f"{url_of(hub)}: the proxy refuses: 407 Proxy Authentication Required\n"
        "  next: check the network, the proxy ($HTTPS_PROXY) and an extra CA ($DSV4_EXTRA_CA), then run it again"
    )


@pytest.mark.parametrize("proxy", [f"socks5://user:{SECRET}@127.0.0.1:9", f"http://user:{SECRET}@127.0.0.1:nine"])
def test_a_proxy_that_is_none_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert trouble("https://127.0.0.1:9/", kind=ConfigError) == (
        "the proxy is not an address that begins with http:// or https://\n"
        "  next: mend $HTTPS_PROXY, $HTTP_PROXY or $ALL_PROXY"
    )


@pytest.mark.parametrize(
    ("near", "is_direct"),
    [
        ("*", True),
        ("127.0.0.1", True),
        ("example.com, 127.0.0.1:{port}", True),
        ("127.0.0.0/8", True),
        ("example.com,127.0.0.1/31 ", True),
        ("127.0.0.1:1", False),
        ("10.0.0.0/8,::1/128,no/network", False),
        ("", False),
    ],
)
def test_some_hosts_are_near(monkeypatch: pytest.MonkeyPatch, near: str, *, is_direct: bool) -> None:
    with serving(Scripted(reply(b"0123456789"))) as server, serving(Proxy()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        monkeypatch.setenv("NO_PROXY", near.format(port=server.server_address[1]))
        with connected() as opened:
            assert read(opened, server.url) == b"0123456789"
        assert proxy.requests == ([] if is_direct else [f"GET {server.url}"])


# What no message may say


@contextmanager
def nobody() -> Iterator[str]:
    with closed_port() as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def babbling() -> Iterator[str]:
    with serving(Scripted(Reply(content=b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", closes=True))) as server:
        yield server.url.removesuffix("/file")


@contextmanager
def malformed() -> Iterator[str]:
    with serving(Scripted(Reply(content=reply(b"012", "no header\r\n", length=10), closes=True))) as server:
        yield server.url.removesuffix("/file")


@contextmanager
def named(url: str) -> Iterator[str]:
    yield url


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (nobody, "Connection refused"),
        (babbling, "BadStatusLine: SSH-2.0-OpenSSH_9.2p1\r\n"),
        (malformed, "the answer ended 7 bytes too early"),
        (lambda: named("http://127.0.0.1:99999"), "its address makes no sense"),
        (lambda: named(f"http://{'a' * 70}.example"), "its address makes no sense"),
        (lambda: named("ftp://127.0.0.1"), "its address makes no sense"),
        (lambda: named("http://"), "its address makes no sense"),
        (lambda: named("http://[::1"), "ValueError: Invalid IPv6 URL"),
    ],
)
def test_a_signature_is_in_no_message_and_in_no_log(
    host: Callable[[], Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with host() as where:
        told = trouble(f"{where}/file?signature={SECRET}")
    assert told == said
    assert caplog.text == ""


def test_urllib3_would_log_it(caplog: pytest.LogCaptureFixture) -> None:
    """As long as it does, the test above can fail."""
    with caplog.at_level(logging.DEBUG, "urllib3"), malformed() as where:
        trouble(f"{where}/file?signature={SECRET}")
    assert SECRET in caplog.text


def test_a_password_is_in_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{SECRET}@127.0.0.1:nine")
    with connected() as opened, pytest.raises(ConfigError) as caught:
        read(opened, "https://127.0.0.1:9/")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
