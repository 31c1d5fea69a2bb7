"""Our own Hub against the Hub's real client, and the corners of its protocol."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import requests
from helpers.hub import BASE, OVERLAY, SHARDS, World, contents, dsv4, write_base
from helpers.wait import wait_until

from dsv4_stack.guest.demo import seed
from dsv4_stack.guest.demo.server import DemoHub
from dsv4_stack.guest.digests import of_bytes

pytest_plugins = ["helpers.hub_fixtures"]


def test_the_real_client_gets_the_whole_repository(world: World, tmp_path: Path) -> None:
    target = tmp_path / "download"
    huggingface_hub.snapshot_download(BASE, local_dir=target, endpoint=world.url, token=False)
    got = {path: content for path, content in contents(target).items() if not path.startswith(".cache/")}
    assert got == contents(world.root / BASE)


def test_the_commit_depends_on_the_files_alone(world: World, tmp_path: Path) -> None:
    write_base(tmp_path / "other" / BASE)
    with DemoHub(tmp_path / "other", "127.0.0.1", 0) as other:
        assert other.repos.files(BASE) == world.server.repos.files(BASE)
    before = world.revision(BASE)
    (world.root / BASE / "config.json").write_bytes(b"{}")
    assert world.revision(BASE) != before


@pytest.mark.parametrize(
    ("asked", "status", "span", "said"),
    [
        (None, 200, (0, 100), None),
        ("bytes=0-", 206, (0, 100), "bytes 0-99/100"),
        ("bytes=40-", 206, (40, 100), "bytes 40-99/100"),
        ("bytes=40-49", 206, (40, 50), "bytes 40-49/100"),
        ("bytes=40-1000", 206, (40, 100), "bytes 40-99/100"),
        ("bytes=-10", 206, (90, 100), "bytes 90-99/100"),
        ("bytes=100-", 416, (0, 0), "bytes */100"),
    ],
)
def test_a_range_of_a_file(
    world: World, asked: str | None, status: int, span: tuple[int, int], said: str | None
) -> None:
    content = bytes(range(100))
    (world.root / BASE / "merges.txt").write_bytes(content)
    headers = {"Range": asked} if asked else {}
    answer = requests.get(f"{world.url}/{BASE}/resolve/main/merges.txt", headers=headers, timeout=5)
    assert (answer.status_code, answer.content) == (status, content[slice(*span)])
    assert answer.headers.get("Content-Range") == said


def test_the_headers_that_the_client_needs(world: World) -> None:
    shard = requests.head(f"{world.url}/{BASE}/resolve/main/{SHARDS[0]}", timeout=5).headers
    own = of_bytes((world.root / BASE / SHARDS[0]).read_bytes())
    assert shard["X-Repo-Commit"] == world.revision(BASE)
    assert shard["ETag"] == shard["X-Linked-ETag"] == f'"{own.sha256}"'
    assert shard["Content-Length"] == shard["X-Linked-Size"] == str(own.size)
    small = requests.head(f"{world.url}/{BASE}/resolve/main/README.md", timeout=5).headers
    assert small["ETag"] == f'"{of_bytes((world.root / BASE / "README.md").read_bytes()).git_sha1}"'
    assert "X-Linked-ETag" not in small


def test_a_large_file_is_large_file_storage_whatever_its_name(world: World) -> None:
    content = bytes(64 << 10)
    (world.root / OVERLAY / "tokenizer.json").write_bytes(content)
    tree = requests.get(f"{world.url}/api/models/{OVERLAY}/tree/main", timeout=5).json()
    entry = next(entry for entry in tree if entry["path"] == "tokenizer.json")
    assert entry == {
        "type": "file",
        "path": "tokenizer.json",
        "size": 65536,
        "oid": of_bytes(content).git_sha1,
        "lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": 65536, "pointerSize": 134},
    }


@pytest.mark.parametrize(
    ("path", "token", "status", "code"),
    [
        ("/api/models/org/none", "", 401, "RepoNotFound"),
        ("/api/models/org/none", "any", 404, "RepoNotFound"),
        ("/api/models/../..", "", 401, "RepoNotFound"),
        (f"/api/models/{BASE}/revision/none", "", 404, "RevisionNotFound"),
        (f"/api/models/{OVERLAY}", "", 401, "RepoNotFound"),
        (f"/api/models/{OVERLAY}", "wrong", 401, None),
        (f"/api/models/{OVERLAY}", "secret", 200, None),
        (f"/{BASE}/resolve/main/none", "", 404, "EntryNotFound"),
        (f"/{BASE}/resolve/main/..%2F..%2F{BASE.replace('/', '%2F')}%2FREADME.md", "", 404, "EntryNotFound"),
        ("/api/agent-harnesses", "", 404, None),
        ("/healthz", "", 200, None),
    ],
)
def test_who_may_see_what(world: World, path: str, token: str, status: int, code: str | None) -> None:
    world.server.private[OVERLAY] = "secret"
    with requests.Session() as session:
        request = requests.Request("GET", world.url, headers={"Authorization": f"Bearer {token}"} if token else {})
        prepared = session.prepare_request(request)
        prepared.url = world.url + path
        answer = session.send(prepared, timeout=5)
    assert (answer.status_code, answer.headers.get("X-Error-Code")) == (status, code)


def test_the_verb_serves_until_sigterm(tmp_path: Path) -> None:
    """In a process of its own, as in a container; its log has a line for each request but the health checks."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "dsv4_stack.guest", "demo-hub", "--port", "0", "--private", f"{seed.OVERLAY}=key"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        assert wait_until(lambda: b"\n" in log.read_bytes(), timeout_s=20)
        url = log.read_text().split()[-1]
        (root,) = [path for path in tmp_path.iterdir() if path.is_dir()]
        config = f"/{seed.BASE}/resolve/main/config.json"
        assert requests.get(f"{url}/healthz", timeout=5).json() == {"status": "ok"}
        assert requests.get(f"{url}{config}", headers={"Range": "bytes=0-0"}, timeout=5).content == b"{"
        assert requests.head(f"{url}/api/models/{seed.OVERLAY}", timeout=5).status_code == 401
        assert wait_until(lambda: b'"HEAD"' in log.read_bytes(), timeout_s=20)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    first, *entries = log.read_text().splitlines()
    assert first == f"hub: serves {root} at {url}"
    assert [json.loads(entry) for entry in entries] == [
        {"method": "GET", "path": config, "status": 206, "range": "bytes=0-0"},
        {"method": "HEAD", "path": f"/api/models/{seed.OVERLAY}", "status": 401, "range": None},
    ]
    assert list(tmp_path.iterdir()) == [log]


def test_the_verb_says_what_is_wrong(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    port = world.url.rpartition(":")[2]
    assert dsv4("demo-hub", "--private", "org/base") == 2
    assert dsv4("demo-hub", "--port", port) == 2
    assert capsys.readouterr().err == (
        "error: --private takes ORG/NAME=TOKEN\n  next: for example --private demo/tiny-counter=secret\n"
        f"error: 127.0.0.1:{port} cannot be listened on: Address already in use\n  next: choose another --port\n"
    )
