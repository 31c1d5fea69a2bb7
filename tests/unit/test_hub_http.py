"""Downloads and JSON over HTTP: what arrives is proven, what fails has a name, and no secret is shown."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import certifi
import pytest
from helpers.hub import BASE, SHARDS, World

from dsv4_stack.errors import (
    ConfigError,
    Dsv4Error,
    IntegrityError,
    NetworkError,
    NoSpaceError,
    NotAllowedError,
    NotFoundError,
)
from dsv4_stack.guest import http
from dsv4_stack.guest.demo.faults import Refusal
from dsv4_stack.guest.digests import Digests, of_bytes

pytest_plugins = ["helpers.hub_fixtures"]

NAME = "check the name and the revision"
TOKEN = "set HF_TOKEN to a token that may read it"
NETWORK = "check the network, the proxy ($HTTPS_PROXY) and an extra CA ($DSV4_EXTRA_CA), then run it again"
BROKEN = "run it again; if it stays, the server or a proxy on the way is broken"


@pytest.fixture
def url(world: World) -> str:
    return f"{world.url}/{BASE}/resolve/main/{SHARDS[0]}"


@pytest.fixture
def content(world: World) -> bytes:
    return (world.root / BASE / SHARDS[0]).read_bytes()


def failure(call: Callable[[], object], error: type[Dsv4Error]) -> tuple[str, str]:
    with pytest.raises(error) as raised:
        call()
    return raised.value.message, raised.value.next_step


def test_a_download_is_written_and_hashed(url: str, content: bytes, tmp_path: Path) -> None:
    own = of_bytes(content)
    seen: list[int] = []
    partial = tmp_path / "partial"
    assert http.download(url, {}, partial, size=None, sha256=None) == Digests(size=own.size, sha256=own.sha256)
    assert http.download(url, {}, partial, size=own.size, sha256=None) == own
    digests = http.download(url, {}, partial, size=own.size, sha256=own.sha256, advance=seen.append)
    assert digests == Digests(size=own.size, sha256=own.sha256)
    assert partial.read_bytes() == content
    assert sum(seen) == len(content)
    assert http.size_of(url) == len(content)


def test_wrong_bytes_are_deleted(world: World, url: str, content: bytes, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    own = of_bytes(content)
    assert failure(lambda: http.download(url, {}, partial, size=own.size + 1, sha256=None), IntegrityError) == (
        f"{url}: the server sends {own.size} bytes, {own.size + 1} were promised",
        "run it again later, or pin another revision",
    )
    world.server.faults.flip.add(f"{BASE}/{SHARDS[0]}")
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    assert failure(lambda: http.download(url, {}, partial, size=own.size, sha256=own.sha256), IntegrityError) == (
        f"{url}: sha256 is {of_bytes(bytes(flipped)).sha256}, {own.sha256} was promised",
        BROKEN,
    )
    assert not partial.exists()


def test_a_broken_transfer_is_the_networks_fault(world: World, url: str, content: bytes, tmp_path: Path) -> None:
    world.server.faults.cut.add(f"{BASE}/{SHARDS[0]}")
    half = len(content) // 2
    assert failure(
        lambda: http.download(url, {}, tmp_path / "partial", size=len(content), sha256=None), NetworkError
    ) == (
        f"{url}: ChunkedEncodingError: IncompleteRead({half} bytes read, {len(content) - half} more expected)",
        NETWORK,
    )
    assert list(tmp_path.glob("partial*")) == []


@pytest.mark.parametrize(
    ("refusal", "error", "said", "step"),
    [
        (Refusal(status=401), NotAllowedError, "401", TOKEN),
        (
            Refusal(status=403, code="GatedRepo"),
            NotAllowedError,
            "403 (GatedRepo)",
            "set HF_TOKEN to a token that may read it",
        ),
        (
            Refusal(status=404, code="EntryNotFound"),
            NotFoundError,
            "404 (EntryNotFound)",
            "check the name and the revision",
        ),
        (Refusal(status=500), NetworkError, "500", NETWORK),
    ],
)
def test_a_status_has_its_error(
    world: World, url: str, *, tmp_path: Path, refusal: Refusal, error: type[Dsv4Error], said: str, step: str
) -> None:
    world.server.faults.refuse[f"{BASE}/{SHARDS[0]}"] = refusal
    message = f"{url}: the server answers {said}"
    assert failure(lambda: http.download(url, {}, tmp_path / "partial", size=1, sha256=None), error) == (message, step)
    assert failure(lambda: http.size_of(url), error) == (message, step)


def test_secrets_of_a_url_and_of_headers_are_not_shown(offline_environment: None, tmp_path: Path) -> None:  # noqa: ARG001
    url = "http://user:hunter2@127.0.0.1:9/file?signature=hunter2"
    headers = {"Authorization": "Bearer hunter2"}
    with pytest.raises(NetworkError) as raised:
        http.download(url, headers, tmp_path / "partial", size=1, sha256=None)
    assert raised.value.message == "http://127.0.0.1:9/file: ConnectionError: Connection refused"


def test_a_server_that_stays_silent_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_S", 0.05)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/models"
        assert failure(lambda: http.get_json(url), NetworkError) == (f"{url}: ReadTimeout: timed out", NETWORK)
    assert world.server.requests == []


@pytest.mark.parametrize(
    ("number", "error", "message", "step"),
    [
        (errno.ENOSPC, NoSpaceError, "{partial}: No space left on device", "make room there; see: df -h {folder}"),
        (errno.EDQUOT, NoSpaceError, "{partial}: Disk quota exceeded", "make room there; see: df -h {folder}"),
        (
            errno.EIO,
            Dsv4Error,
            "{partial} cannot be written: Input/output error",
            "see the kernel's log for the disk's own words: dmesg",
        ),
    ],
)
def test_a_disk_that_fails_is_named_and_nothing_stays(
    url: str,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Dsv4Error],
    message: str,
    step: str,
) -> None:
    def fail(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    partial = tmp_path / "partial"
    expected = (message.format(partial=partial), step.format(folder=tmp_path))
    assert failure(lambda: http.download(url, {}, partial, size=None, sha256=None), error) == expected
    assert not partial.exists()


def test_json_is_asked_without_a_proxy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert http.get_json(f"{world.url}/healthz") == {"status": "ok"}
    tree = f"{world.url}/api/models/{BASE}/tree/main"
    assert failure(lambda: http.get_json(tree), NetworkError) == (
        f"{tree}: the answer is no JSON object",
        "check what listens there",
    )
    url = f"{world.url}/{BASE}/resolve/main/README.md"
    assert failure(lambda: http.get_json(url), NetworkError) == (
        f"{url}: the answer is no JSON object",
        "check what listens there",
    )


def test_json_is_posted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(handler: object) -> None:
        length = int(handler.headers["Content-Length"])  # type: ignore[attr-defined]
        body = handler.rfile.read(length)  # type: ignore[attr-defined]
        handler._json({"got": body.decode(), "type": handler.headers["Content-Type"]})  # type: ignore[attr-defined]

    monkeypatch.setattr("dsv4_stack.guest.demo.server._Handler.do_POST", answer, raising=False)
    got = http.post_json(f"{world.url}/v1/completions", {"a": 1})
    assert got == {"got": '{"a": 1}', "type": "application/json"}


@pytest.mark.usefixtures("offline_environment")
@pytest.mark.parametrize("variable", ["DSV4_EXTRA_CA", "DSV4_EXTRA_CA_FILE"])
def test_an_extra_ca_joins_the_usual_or_the_chosen_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    extra, chosen = tmp_path / "extra.pem", tmp_path / "chosen.pem"
    extra.write_bytes(b"extra\n")
    chosen.write_bytes(b"chosen\n")
    assert http.ca_bundle() is None
    monkeypatch.setenv(variable, str(extra))
    usual = http.ca_bundle()
    assert usual is not None
    assert Path(usual).read_bytes() == Path(certifi.where()).read_bytes() + b"\nextra\n"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(chosen))
    both = http.ca_bundle()
    assert both is not None
    assert Path(both).read_bytes() == b"chosen\n\nextra\n"


@pytest.mark.usefixtures("offline_environment")
def test_an_empty_extra_ca_is_none_and_a_missing_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_EXTRA_CA_FILE", os.devnull)
    assert http.ca_bundle() is None
    monkeypatch.setenv("SSL_CERT_FILE", "/chosen.pem")
    assert http.ca_bundle() == "/chosen.pem"
    monkeypatch.setenv("DSV4_EXTRA_CA_FILE", str(tmp_path / "no.pem"))
    assert failure(http.ca_bundle, ConfigError) == (
        f"the CA file {tmp_path}/no.pem cannot be read: No such file or directory",
        "mend $DSV4_EXTRA_CA or $REQUESTS_CA_BUNDLE",
    )
