"""`dsv4 materialize --lock`: the lock's commit, and its word on every byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.hub import BASE, OVERLAY, World, contents

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.checkpoint import locked, manifest
from dsv4_stack.guest.digests import of_bytes

pytest_plugins = ["helpers.hub_fixtures"]


def lock_of(world: World, *repos: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "engines": {},
        "repos": {
            repo: {
                "requested": "main",
                "revision": world.revision(repo),
                "files": {
                    path: {"size": len(content), "sha256": of_bytes(content).sha256}
                    for path, content in contents(world.root / repo).items()
                },
            }
            for repo in repos
        },
    }


@pytest.fixture
def lock(world: World) -> Path:
    path = world.root.parent / "dsv4.lock"
    path.write_text(json.dumps(lock_of(world, BASE, OVERLAY)))
    return path


def test_the_locked_commit_is_used_and_the_branch_not_looked_up(world: World, lock: Path) -> None:
    base, overlay = world.revision(BASE), world.revision(OVERLAY)
    assert world.materialize("--base", BASE, "--overlay", OVERLAY, "--lock", str(lock)) == 0
    listings = [request for request in world.server.requests if request.startswith("GET /api/")]
    assert listings == [
        f"GET /api/models/{BASE}/revision/{base}?blobs=true",
        f"GET /api/models/{OVERLAY}/revision/{overlay}?blobs=true",
    ]
    made = manifest.load(world.dest)
    assert made.base == manifest.HubRecord(repo=BASE, requested="main", revision=base)
    assert made.checked_against == "lock"


def test_a_commit_is_held_against_the_lock_too(world: World, lock: Path) -> None:
    assert world.materialize("--base", f"{BASE}@{world.revision(BASE)}", "--lock", str(lock)) == 0
    assert manifest.load(world.dest).checked_against == "lock"


def test_a_lock_of_another_revision_does_not_count(world: World, lock: Path) -> None:
    document = json.loads(lock.read_bytes())
    document["repos"][BASE]["requested"] = "v1"
    document["repos"][BASE]["revision"] = "0" * 40
    lock.write_text(json.dumps(document))
    assert world.materialize("--base", BASE, "--overlay", OVERLAY, "--lock", str(lock)) == 0
    assert manifest.load(world.dest).checked_against == "hub"


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_lock_locks_nothing(world: World, content: str) -> None:
    path = world.root.parent / "empty.lock"
    path.write_text(content)
    assert world.materialize("--base", BASE, "--lock", str(path)) == 0
    assert manifest.load(world.dest).checked_against == "hub"


def test_a_listing_that_does_not_agree_is_refused(world: World, lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(lock.read_bytes())
    files = document["repos"][BASE]["files"]
    files["gone.json"] = files.pop("LICENSE")
    files["model-00001-of-00004.safetensors"]["sha256"] = "0" * 64
    files["tokenizer.json"]["size"] += 1
    lock.write_text(json.dumps(document))
    assert world.materialize("--base", BASE, "--lock", str(lock)) == 6
    assert capsys.readouterr().err == (
        f"error: {BASE}@{world.revision(BASE)} is not as in the lock:\n"
        "  gone.json: in the lock, not in the listing\n"
        "  LICENSE: in the listing, not in the lock\n"
        "  model-00001-of-00004.safetensors: another size or sha256 than in the lock\n"
        "  tokenizer.json: another size or sha256 than in the lock\n"
        "  next: see what moved: dsv4 lock --check\n"
    )
    assert not world.dest.exists()


def test_a_small_file_is_held_against_the_locks_sha256(
    world: World, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(lock.read_bytes())
    document["repos"][BASE]["files"]["tokenizer.json"]["sha256"] = "0" * 64
    lock.write_text(json.dumps(document))
    assert world.materialize("--base", BASE, "--lock", str(lock), "--jobs", "1") == 6
    url = f"{world.url}/{BASE}/resolve/{world.revision(BASE)}/tokenizer.json"
    found = world.sha256(BASE, "tokenizer.json")
    assert f"error: {url}: sha256 is {found}, {'0' * 64} was promised\n" in capsys.readouterr().err


def test_a_lock_that_disagrees_with_a_finished_directory_is_not_passed_over(world: World, lock: Path) -> None:
    arguments = ("--base", BASE, "--overlay", OVERLAY, "--lock", str(lock))
    assert world.materialize(*arguments) == 0
    world.forget_requests()
    assert world.materialize(*arguments) == 0
    assert world.server.requests == []
    for repo, path in ((BASE, "model-00001-of-00004.safetensors"), (OVERLAY, "config.json")):
        document = lock_of(world, BASE, OVERLAY)
        document["repos"][repo]["files"][path]["sha256"] = "0" * 64
        lock.write_text(json.dumps(document))
        assert world.materialize(*arguments) == 6


def test_a_new_lock_moves_a_finished_directory_on(world: World, lock: Path) -> None:
    assert world.materialize("--base", BASE, "--lock", str(lock)) == 0
    (world.root / BASE / "tokenizer.json").write_bytes(b"[]\n")
    lock.write_text(json.dumps(lock_of(world, BASE)))
    assert world.materialize("--base", BASE, "--lock", str(lock)) == 0
    assert (world.dest / "tokenizer.json").read_bytes() == b"[]\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "TypeError: list indices must be integers or slices, not str"),
        ("{}", "KeyError: 'schema'"),
        ('{"schema": 2}', "ValueError: schema 2, expected 1"),
        (
            '{"schema": 1, "repos": {"a/b": {"requested": "main", "revision": "x", "files": {}}}}',
            "ValueError: no size, sha256 or commit of the repository",
        ),
        (
            '{"schema": 1, "repos": {"a/b": {"revision": "x", "files": {"f": {"size": 1, "sha256": "y"}}}}}',
            "ValueError: no size, sha256 or commit of f",
        ),
    ],
)
def test_what_is_no_lock_is_named(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "dsv4.lock"
    path.write_text(content)
    with pytest.raises(ConfigError) as raised:
        locked.load(path)
    assert str(raised.value) == f"{path} is not a lock: {problem}\n  next: run: dsv4 lock"


def test_a_folder_where_a_lock_should_be_mounted_locks_nothing(tmp_path: Path) -> None:
    assert locked.load(tmp_path) == {}
