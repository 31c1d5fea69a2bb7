"""Our own Hub as benchmarks use it: told over HTTP what to do wrong, asked what it did, and believed about hashes."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, fields
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from helpers.hub import BASE, SHARDS, World, dsv4, write
from helpers.raw import ask, connected, part
from helpers.serving import serving
from helpers.wait import wait_until

from dsv4_stack.errors import UsageError
from dsv4_stack.guest.demo.faults import Faults, Redirect, Refusal, parse
from dsv4_stack.guest.demo.repo import Repos, Stored
from dsv4_stack.guest.demo.server import DemoHub
from dsv4_stack.guest.digests import of_bytes

pytest_plugins = ["helpers.hub_fixtures"]

FILE = f"{BASE}/{SHARDS[0]}"
PATH = f"/{BASE}/resolve/main/{SHARDS[0]}"
LARGE = "org/large/model.safetensors"
SPARSE_BYTES = 159 << 30
ALL = Faults(
    flip={FILE},
    flip_times={FILE: 1},
    hide={"*"},
    gone={BASE},
    cut={FILE},
    cut_times={"*": 2},
    stall={FILE: 100},
    stall_times={FILE: 3},
    refuse={FILE: Refusal(status=503, code="Busy", message="Later", retry_after="1", times=2)},
    redirect=Redirect(lifetime_s=1.5, uses=3),
    redirect_host="localhost",
    drip={FILE: 10.0},
    rate=1e6,
    latency_s=0.05,
    silent=True,
    no_ranges=True,
    wrong_range={FILE},
    page={"*"},
    xet={FILE: "f" * 64},
    xet_only={FILE},
    cas="http://127.0.0.1:9",
)


def as_json(faults: Faults) -> dict[str, Any]:
    """What a benchmark would send."""
    values = {each.name: getattr(faults, each.name) for each in fields(faults) if each.init}
    values |= {"refuse": {key: asdict(refusal) for key, refusal in faults.refuse.items()}}
    values |= {"redirect": faults.redirect and asdict(faults.redirect)}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}


@pytest.mark.parametrize("faults", [ALL, Faults()], ids=["all", "none"])
def test_faults_from_json(faults: Faults) -> None:
    assert parse(json.loads(json.dumps(as_json(faults)))) == faults


def test_all_has_every_fault() -> None:
    names = [each.name for each in fields(Faults) if each.init]
    assert [name for name in names if getattr(ALL, name) == getattr(Faults(), name)] == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "faults are no JSON object"),
        ({"cut": [], "tear": 1, "burn": 1}, "no faults: burn, tear"),
        ({"_lock": 1}, "no faults: _lock"),
        ({"refuse": [1]}, "faults are not as they should be: 'list' object has no attribute 'items'"),
        ({"cut": 1}, "faults are not as they should be: 'int' object is not iterable"),
        ({"redirect": {"uses": 1, "ends": 2}}, None),
        ({"refuse": {"*": {}}}, None),
    ],
)
def test_what_is_no_fault(document: object, message: str | None) -> None:
    with pytest.raises(UsageError) as raised:
        parse(document)
    assert message is None or raised.value.message == message


def test_control_over_http(world: World) -> None:
    size = (world.root / FILE).stat().st_size
    world.server.control = True
    assert ask(world.server, "/__faults", method="POST", body='{"cut_times": {"*": 1}}').status == 200
    assert ask(world.server, PATH, headers=part(0, 100)).is_cut
    assert ask(world.server, PATH).status == 200
    assert wait_until(lambda: world.server.open_connections == 0, timeout_s=5, interval_s=0.001)
    assert json.loads(ask(world.server, "/__stats").body) == {
        "sent": {FILE: 50 + size},
        "requests": [f"GET {PATH}"] * 2,
        "connections": 4,
        "peak": world.server.peak,
        "authorized_cdn": 0,
    }
    assert ask(world.server, "/__stats", method="POST", body="{}").status == 200
    assert (world.server.sent, world.server.requests) == ({}, [])
    assert ask(world.server, "/__faults", method="POST", body='{"rate": 5}').body == b"{}"
    assert world.server.faults == Faults(rate=5)
    assert ask(world.server, "/__faults", method="POST", body="{}").body == b"{}"
    assert world.server.faults == Faults()


def test_control_reaches_a_silent_hub(world: World) -> None:
    world.server.control = True
    world.server.faults.silent = True
    assert ask(world.server, "/__faults", method="POST", body="{}").status == 200
    assert ask(world.server, PATH).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/__faults", "{", 400),
        ("POST", "/__faults", '{"tear": 1}', 400),
        ("GET", "/__faults", None, 404),
        ("POST", "/__other", "{}", 404),
    ],
)
def test_what_control_does_not_understand(world: World, method: str, path: str, body: str | None, status: int) -> None:
    world.server.control = True
    world.server.faults.latency_s = 0.001
    assert ask(world.server, path, method=method, body=body).status == status
    assert world.server.faults == Faults(latency_s=0.001)


@pytest.mark.parametrize(("method", "path"), [("GET", "/__stats"), ("POST", "/__stats"), ("POST", "/__faults")])
def test_without_control_there_is_none(world: World, method: str, path: str) -> None:
    assert ask(world.server, path, method=method, body='{"silent": true}').status == 404
    assert world.server.faults == Faults()


def test_connections_are_counted(world: World) -> None:
    with connected(world.server) as one, connected(world.server) as other:
        for _ in range(2):
            for connection in (one, other):
                connection.request("GET", "/healthz")
                connection.getresponse().read()
    assert (world.server.connections, world.server.peak) == (2, 2)
    assert wait_until(lambda: world.server.open_connections == 0, timeout_s=5, interval_s=0.001)
    world.server.forget()
    ask(world.server, "/healthz")
    assert (world.server.connections, world.server.peak) == (1, 1)


def test_a_large_files_hash_is_believed_without_reading_it(tmp_path: Path) -> None:
    """159 GiB of holes would take minutes."""
    write(tmp_path / "org/large", {"model.safetensors": b"", "config.json": b"{}"})
    os.truncate(tmp_path / LARGE, SPARSE_BYTES)
    known = {LARGE: "a" * 64, "org/large/config.json": "b" * 64}
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize {SPARSE_BYTES}\n"
    config, large = Repos(tmp_path, known).files("org/large")
    assert large == Stored(
        path="model.safetensors",
        size=SPARSE_BYTES,
        oid=of_bytes(pointer.encode()).git_sha1,
        sha256="a" * 64,
        is_lfs=True,
    )
    assert config.sha256 == of_bytes(b"{}").sha256


def test_the_verb_serves_a_folder_with_control(tmp_path: Path) -> None:
    root, known, log = tmp_path / "hub", tmp_path / "known.json", tmp_path / "log"
    write(root / "org/large", {"model.safetensors": b""})
    os.truncate(root / LARGE, SPARSE_BYTES)
    known.write_text(json.dumps({LARGE: "a" * 64}))
    command = [sys.executable, "-m", "dsv4_stack.guest", "demo-hub", str(root), "--port", "0", "--control"]
    with log.open("wb") as stderr:
        process = subprocess.Popen([*command, "--known", str(known)], stderr=stderr)
    try:
        assert wait_until(lambda: b"\n" in log.read_bytes(), timeout_s=20, interval_s=0.01)
        connection = HTTPConnection("127.0.0.1", int(log.read_text().rpartition(":")[2]), timeout=5)
        connection.request("GET", "/api/models/org/large?blobs=true")
        (sibling,) = json.loads(connection.getresponse().read())["siblings"]
        connection.request("GET", "/__stats")
        stats = json.loads(connection.getresponse().read())
        connection.close()
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert sibling["lfs"] == {"sha256": "a" * 64, "size": SPARSE_BYTES, "pointerSize": 134}
    assert stats["requests"] == ["GET /api/models/org/large?blobs=true"]
    assert [json.loads(line)["path"] for line in log.read_text().splitlines()[1:]] == [
        "/api/models/org/large?blobs=true"
    ]


def test_the_verb_names_what_it_cannot_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = tmp_path / "known.json"
    known.write_text("[]")
    assert dsv4("demo-hub", str(tmp_path / "none")) == 2
    assert dsv4("demo-hub", "--known", str(known)) == 2
    assert dsv4("demo-hub", "--known", str(tmp_path / "none")) == 4
    assert capsys.readouterr().err == (
        f"error: there is no folder {tmp_path}/none\n  next: name one that holds org/name/files\n"
        f'error: {known} is no JSON object\n  next: write {{"ORG/NAME/PATH": "sha256 in hex"}}\n'
        f"error: there is no {tmp_path}/none\n  next: check the path\n"
    )


def test_a_hub_that_closes_ends_whatever_it_was_doing(world: World) -> None:
    with serving(DemoHub(world.root, "127.0.0.1", 0)) as hub:
        hub.faults.stall["*"] = 10
        waiting = [HTTPConnection("127.0.0.1", hub.server_address[1], timeout=5) for _ in range(3)]
        for connection in waiting:
            connection.request("GET", PATH)
        bodies = [connection.getresponse() for connection in waiting]
        assert [body.read(10) for body in bodies] == [(world.root / FILE).read_bytes()[:10]] * 3
    assert hub.open_connections == 0
    assert [body.isclosed() or body.read1() for body in bodies] == [b""] * 3
    for connection in waiting:
        connection.close()
