"""What the edge is given, before its containers are."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import tls

from dsv4_stack.doctor import certificate, edge
from dsv4_stack.doctor.finding import Finding
from dsv4_stack.guest.keys import ring

EDGE = ("edge",)
TWO = f"/certs/{tls.CERTIFICATE.name} /certs/{tls.KEY.name}"
MEND = "set DSV4_EDGE_TLS to internal, to an e-mail address, or to: /certs/cert.pem /certs/key.pem"


def lines(findings: Iterable[Finding]) -> list[str]:
    return [line for finding in findings for line in str(finding).splitlines()]


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ring's file; nothing else is set."""
    for name in [name for name in os.environ if name.startswith("DSV4_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DSV4_KEYS_DIR", str(tmp_path))
    return tmp_path / ring.NAME


def test_without_the_edge_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_EDGE_BURST", "many")
    monkeypatch.setenv("DSV4_EDGE_TLS", "many")
    assert lines([*edge.findings({}), *certificate.findings({}, ("monitoring",))]) == []


def test_all_is_well(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring.add(keys, "alice")
    assert lines(edge.findings({}, EDGE)) == [
        "ok    edge's limits: as they are by default",
        f"ok    edge's keys: 1 in {keys}",
    ]
    for name, text in {"PER_MINUTE": "0.5", "BURST": "1", "MAX_BODY": "1.5MiB", "WAIT": "1m30s", "GRACE": "0"}.items():
        monkeypatch.setenv(f"DSV4_EDGE_{name}", text)
    assert lines(edge.findings({}, EDGE))[0] == (
        "ok    edge's limits: DSV4_EDGE_PER_MINUTE=0.5, DSV4_EDGE_BURST=1, DSV4_EDGE_MAX_BODY=1.5MiB, "
        "DSV4_EDGE_WAIT=1m30s, DSV4_EDGE_GRACE=0"
    )


def test_every_limit_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_EDGE_PER_MINUTE", "0")
    monkeypatch.setenv("DSV4_EDGE_BURST", "1.5")
    # Caddy would read two words.
    monkeypatch.setenv("DSV4_EDGE_MAX_BODY", "16 MB")
    monkeypatch.setenv("DSV4_EDGE_WAIT", "60")
    fact, mend = lines(edge.findings({"DSV4_EDGE_GRACE": "2 min"}, EDGE))[:2]
    assert fact.removeprefix("WRONG edge's limits: ").split("; ") == [
        "DSV4_EDGE_PER_MINUTE: '0' is no number above 0",
        "DSV4_EDGE_BURST: '1.5' is no whole number above 0",
        "DSV4_EDGE_MAX_BODY: '16 MB' is no size, such as 16MB",
        "DSV4_EDGE_WAIT: '60' is no duration, such as 60s",
        "DSV4_EDGE_GRACE: '2 min' is no duration, such as 60s",
    ]
    assert mend == "      mend what is named, or unset it"


def test_an_edge_without_keys_lets_nobody_in(keys: Path) -> None:
    assert lines(edge.findings({}, EDGE))[1:] == [
        f"WARN  edge's keys: there are none in {keys}, so nobody gets in",
        "      run: dsv4 keys add NAME",
    ]
    keys.write_text("alice\n")
    assert lines(edge.findings({}, EDGE))[1:] == [
        f"WRONG edge's keys: {keys} is no list of API keys:",
        "  line 1: no name and sha256",
        "      run: dsv4 keys add NAME",
    ]


def test_keys_that_this_user_may_not_read_are_not_judged(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Path.open

    def closed(path: Path, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Path.open
        if path == keys:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)
    assert lines(edge.findings({}, EDGE))[1:] == [
        f"WARN  edge's keys: {keys} is closed to this user, so it was not looked at"
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ["ok    edge's certificate: for llm.example, of its own authority"]),
        ("internal", ["ok    edge's certificate: for llm.example, of its own authority"]),
        ("me@llm.example", ["ok    edge's certificate: for llm.example, of Let's Encrypt"]),
        ("external", ["WRONG edge's certificate: DSV4_EDGE_TLS is 'external'", f"      {MEND}"]),
        ("a b c", ["WRONG edge's certificate: DSV4_EDGE_TLS is 'a b c'", f"      {MEND}"]),
        (
            TWO,
            ["WRONG edge's certificate: DSV4_EDGE_CERTS is not set", "      set it to the folder that is to be /certs"],
        ),
    ],
)
def test_where_the_certificate_comes_from(words: str, found: list[str]) -> None:
    assert lines(certificate.findings({"DSV4_EDGE_TLS": words, "DSV4_EDGE_HOST": "llm.example"}, EDGE)) == found


def of(folder: Path, words: str = TWO, **more: str) -> list[str]:
    folder.chmod(0o755)
    return lines(certificate.findings({"DSV4_EDGE_TLS": words, "DSV4_EDGE_CERTS": str(folder), **more}, EDGE))


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A folder with a certificate and its key, which everybody may read."""
    folder = tmp_path / "certs"
    folder.mkdir()
    for file in (tls.CERTIFICATE, tls.KEY):
        shutil.copyfile(file, folder / file.name)
        (folder / file.name).chmod(0o644)
    return folder


def test_a_certificate_of_ones_own_and_its_key(certs: Path) -> None:
    assert of(certs) == [f"ok    edge's certificate: {certs}/server.pem, with its key"]


def test_a_certificate_in_a_folder_of_the_folder(certs: Path) -> None:
    (certs / "live").mkdir(mode=0o755)
    for file in list(certs.glob("server.*")):
        file.rename(certs / "live" / file.name)
    words = "/certs/live/server.pem /certs/live/server.key"
    assert of(certs, words) == [f"ok    edge's certificate: {certs}/live/server.pem, with its key"]
    assert of(certs, "/certs/../server.pem /certs/server.key")[1:] == [f"      {MEND}"]


def test_a_key_for_the_containers_user_alone(certs: Path) -> None:
    (certs / "server.key").chmod(0o400)
    assert of(certs, DSV4_UID=str(os.getuid())) == [f"ok    edge's certificate: {certs}/server.pem, with its key"]
    assert of(certs) == [
        f"WRONG edge's certificate: the edge runs as user 10001, which may not read {certs}/server.key",
        f"      run: chown 10001 {certs}/server.key",
    ]
    (certs / "server.key").chmod(0o440)
    assert of(certs, DSV4_GID=str(os.getgid()))[0].startswith("ok ")


def test_a_folder_that_the_containers_user_cannot_enter(certs: Path) -> None:
    certs.chmod(0o700)
    found = certificate.findings({"DSV4_EDGE_TLS": TWO, "DSV4_EDGE_CERTS": str(certs)}, EDGE)
    assert lines(found)[1] == f"      run: chown 10001 {certs}"


def test_files_elsewhere_are_not_in_the_container(certs: Path) -> None:
    words = "/etc/ssl/server.pem /certs/server.key"
    assert of(certs, words) == [
        f"WRONG edge's certificate: the edge has {certs} as /certs, and no {words.replace(' ', ' or ')}",
        f"      {MEND}",
    ]


def test_a_file_that_is_not_there(certs: Path) -> None:
    (certs / "server.key").unlink()
    assert of(certs) == [
        f"WRONG edge's certificate: {certs}/server.key: No such file or directory",
        f"      put it there, or {MEND}",
    ]


def test_another_certificates_key(certs: Path) -> None:
    found = of(certs, "/certs/server.key /certs/server.pem")
    assert found[0].startswith(
        f"WRONG edge's certificate: {certs}/server.key and {certs}/server.pem are no certificate"
    )
    assert found[1:] == ["      put both there in PEM, the key without a passphrase"]


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(certs: Path) -> None:
    shutil.copyfile(tls.CLOSED_KEY, certs / tls.KEY.name)
    assert of(certs)[1:] == ["      put both there in PEM, the key without a passphrase"]
