"""Ways to our own Hub: TLS and a proxy; and where no way leads."""

import socket
import ssl
from pathlib import Path

import pytest
from helpers import tls
from helpers.hub import BASE, SHARDS, World
from helpers.proxy import Proxy
from helpers.serving import serving
from helpers.sockets import HOST, black_hole, closed_port

from dsv4_stack.errors import NetworkError
from dsv4_stack.guest import http
from dsv4_stack.guest.demo.server import DemoHub
from dsv4_stack.guest.digests import Digests

pytest_plugins = ["helpers.hub_fixtures"]

FILE = f"{BASE}/{SHARDS[0]}"
PATH = f"/{BASE}/resolve/main/{SHARDS[0]}"


def fetch(url: str, folder: Path) -> bytes:
    http.download(url, {}, folder / "partial", size=None, sha256=None)
    return (folder / "partial").read_bytes()


def hub_over_tls(root: Path) -> DemoHub:
    return DemoHub(root, HOST, 0, context=tls.context())


def test_a_hub_over_tls_with_an_extra_ca(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_EXTRA_CA", str(tls.CA))
    partial = tmp_path / "partial"
    with serving(hub_over_tls(world.root)) as hub:
        digests = http.download(f"{hub.url}{PATH}", {}, partial, size=None, sha256=None)
        assert fetch(f"{hub.url_at('localhost')}{PATH}", tmp_path) == (world.root / FILE).read_bytes()
    assert hub.url.startswith("https://127.0.0.1:")
    size = (world.root / FILE).stat().st_size
    assert digests == Digests(size=size, sha256=world.sha256(BASE, SHARDS[0]))
    assert hub.sent == {FILE: 2 * size}


def test_without_the_extra_ca_nothing_is_believed(world: World, tmp_path: Path) -> None:
    with serving(hub_over_tls(world.root)) as hub:
        with pytest.raises(NetworkError, match="certificate verify failed"):
            fetch(f"{hub.url}{PATH}", tmp_path)
        assert hub.requests == []


def test_faults_over_tls(world: World) -> None:
    content = bytearray((world.root / FILE).read_bytes())
    context = ssl.create_default_context(cafile=tls.CA)
    with serving(hub_over_tls(world.root)) as hub:
        hub.faults.flip.add(FILE)
        hub.faults.stall[FILE] = len(content) - 1
        with context.wrap_socket(socket.create_connection((HOST, hub.server_address[1])), server_hostname=HOST) as line:
            line.sendall(f"GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            with line.makefile("rb") as answer:
                while answer.readline().strip():
                    pass
                got = answer.read(len(content) - 1)
    content[len(content) // 2] ^= 1
    assert got == bytes(content)[:-1]
    assert hub.open_connections == 0


def test_whole_urls_through_a_proxy(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Proxy()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        assert fetch(f"{world.url}{PATH}", tmp_path) == (world.root / FILE).read_bytes()
    assert proxy.requests == [f"GET {world.url}{PATH}"]
    assert world.server.requests == [f"GET {PATH}"]


def test_a_tunnel_through_a_proxy(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_EXTRA_CA", str(tls.CA))
    with serving(hub_over_tls(world.root)) as hub, serving(Proxy("me:secret")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url("me:secret"))
        assert fetch(f"{hub.url}{PATH}", tmp_path) == (world.root / FILE).read_bytes()
    assert proxy.requests == [f"CONNECT {HOST}:{hub.server_address[1]}"]
    assert proxy.refused == 0


@pytest.mark.parametrize("login", ["", "me:wrong"])
def test_a_proxy_wants_a_login(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    with serving(Proxy("me:secret")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url(login))
        with pytest.raises(NetworkError, match="the server answers 407"):
            fetch(f"{world.url}{PATH}", tmp_path)
    assert (proxy.requests, proxy.refused) == ([], 1)
    assert world.server.requests == []


def test_a_proxy_names_a_dead_host(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as port, serving(Proxy()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        with pytest.raises(NetworkError, match="the server answers 502"):
            fetch(f"http://{HOST}:{port}{PATH}", tmp_path)
    assert world.server.requests == []


def test_a_black_hole_takes_no_connection_and_refuses_none() -> None:
    with black_hole() as port, pytest.raises(TimeoutError):
        socket.create_connection((HOST, port), timeout=0.1)


def test_a_closed_port_refuses() -> None:
    with closed_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=5)
