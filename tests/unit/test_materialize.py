"""`dsv4 materialize` from a Hub: what is there afterwards, and what a second run does."""

import json
import os
from pathlib import Path

import pytest
from helpers.hub import BASE, CONFIG_BASE, OVERLAY, SHARDS, WANTED, World, contents, write
from helpers.opens import record_opens

from dsv4_stack.guest import convert
from dsv4_stack.guest.checkpoint import manifest
from dsv4_stack.guest.checkpoint.found import Found
from dsv4_stack.guest.checkpoint.locked import Lock
from dsv4_stack.guest.checkpoint.manifest import Manifest
from dsv4_stack.guest.checkpoint.specs import Request

pytest_plugins = ["helpers.hub_fixtures"]

INDEX = "model.safetensors.index.json"


def expected(world: World, config: bytes) -> dict[str, bytes]:
    base = contents(world.root / BASE)
    return {path: config if path == "config.json" else base[path] for path in WANTED}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Equal for a file that was not written again; a freed inode number alone may come back."""
    stats = {path: (folder / path).stat() for path in contents(folder)}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def test_the_overlays_config_joins_the_bases_bytes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.materialize("--base", BASE, "--overlay", OVERLAY) == 0
    assert contents(world.dest) == expected(world, (world.root / OVERLAY / "config.json").read_bytes())
    output = capsys.readouterr()
    revision = world.revision(BASE)
    assert output.out == (
        f"materialize: brought 11 files, {world.dest} holds 11 files, 25.0 KiB (w4a8 from org/base@{revision[:12]}…)\n"
    )
    first, *others = output.err.splitlines()
    assert first == "materialize: 10 files to fetch, 16.7 KiB; 1 file to write, 8.3 KiB; 0 are there"
    assert sorted(line.split(",")[0] for line in others) == sorted(f"materialize: {path}" for path in WANTED)


def test_the_whole_manifest(world: World) -> None:
    revision = world.revision(OVERLAY)
    assert world.materialize("--base", f"{BASE}@main", "--overlay", f"{OVERLAY}@{revision}") == 0
    files = {}
    for path, content in contents(world.dest).items():
        origin = "overlay" if path == "config.json" else "base"
        there = (world.dest / path).stat()
        sha256 = world.sha256(OVERLAY if origin == "overlay" else BASE, path)
        files[path] = {
            "size": len(content),
            "sha256": sha256,
            "mtime_ns": there.st_mtime_ns,
            "origin": origin,
            "inode": there.st_ino,
        }
    assert json.loads((world.dest / ".dsv4" / "manifest.json").read_bytes()) == {
        "schema": 1,
        "tool": manifest.TOOL,
        "base": {"repo": BASE, "requested": "main", "revision": world.revision(BASE)},
        "overlay": {"repo": OVERLAY, "requested": revision, "revision": revision},
        "config": "overlay",
        "conversion": "w4a8",
        "checked_against": "hub",
        "allow": [],
        "examined_for": "",
        "files": files,
    }
    assert [path.name for path in (world.dest / ".dsv4").iterdir()] == ["manifest.json"]


def test_convert_and_base(world: World) -> None:
    assert world.materialize("--base", BASE, "--config", "convert") == 0
    _, converted = convert.convert(CONFIG_BASE.read_bytes(), "config.json")
    assert contents(world.dest) == expected(world, converted)
    made = manifest.load(world.dest)
    assert (made.config, made.conversion, made.overlay) == ("convert", "w4a8", None)
    assert world.materialize("--base", BASE) == 0
    assert contents(world.dest) == expected(world, CONFIG_BASE.read_bytes())
    made = manifest.load(world.dest)
    assert (made.config, made.conversion, made.overlay) == ("base", None, None)


FOR_THREE = """\
is none for vLLM 0.24.0 on 3 GPUs:
  moe_intermediate_size 2048 on 3 ranks is no multiple of 256 each
  next: take another engine, revision or kind of config
"""


def test_a_config_that_its_engine_would_load_wrongly_is_refused_before_the_first_shard(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--base", BASE, "--overlay", OVERLAY, "--for-release", "0.24.0", "--for-gpus")
    assert world.materialize(*words, "3") == 3
    assert capsys.readouterr().err == f"error: {OVERLAY}@{world.revision(OVERLAY)}/config.json {FOR_THREE}"
    assert contents(world.dest) == {}
    assert world.materialize("--base", BASE, *words[4:], "3") == 0
    assert world.materialize(*words, "2") == 0
    assert manifest.load(world.dest).examined_for == "vLLM 0.24.0 on 2 GPUs"


def test_what_is_there_is_examined_again_for_another_engine_alone(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--base", BASE, "--overlay", OVERLAY, "--for-release", "0.24.0", "--for-gpus")
    assert world.materialize(*words, "2") == 0
    before = identities(world.dest)
    world.forget_requests()
    capsys.readouterr()
    assert world.materialize(*words, "3") == 3
    assert capsys.readouterr().err == f"error: {world.dest}/config.json {FOR_THREE}"
    assert (identities(world.dest), world.server.requests) == (before, [])
    opened = record_opens(monkeypatch)
    assert world.materialize(*words, "2") == 0
    assert [path for path in opened if path.endswith("config.json")] == []
    assert world.materialize(*words, "4") == 0


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_run_that_waited_for_another_examines_what_that_one_made(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dry: tuple[str, ...]
) -> None:
    words = ("--base", BASE, "--overlay", OVERLAY, "--for-release", "0.24.0", "--for-gpus")
    assert world.materialize(*words, "2") == 0
    looks: list[Found] = []
    answer = Found.answer

    def answer_later(found: Found, request: Request, lock: Lock) -> Manifest | None:
        """At the first look the other one is still at work."""
        looks.append(found)
        return answer(found, request, lock) if len(looks) > 1 else None

    monkeypatch.setattr(Found, "answer", answer_later)
    capsys.readouterr()
    assert world.materialize(*words, "3", *dry) == 3
    assert capsys.readouterr().err.endswith(FOR_THREE)


def test_a_draft_that_would_be_loaded_wrongly_is_refused_where_it_is_used(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(CONFIG_BASE.read_bytes())
    ignore = config["quantization_config"]["ignore"]
    ignore.remove("re:.*\\.layers\\.43\\..*")
    ignore[ignore.index("re:.*mtp.*")] = "re:.*mtp\\..*"
    write(world.root / BASE, {"config.json": json.dumps(config).encode()})
    words = ("--base", BASE, "--for-release", "0.24.0", "--for-gpus", "2")
    assert world.materialize(*words, "--for-mtp") == 3
    said = capsys.readouterr().err
    assert "/config.json is none for vLLM 0.24.0 on 2 GPUs, with the MTP draft:\n" in said
    assert said.endswith("take another engine, revision or kind of config, or leave mtp off\n")
    assert world.materialize(*words) == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--for-release", "new"), 3, "'new' is no vLLM release"),
        (("--for-release", "0.24.0", "--for-gpus", "0"), 2, "--for-gpus should be at least 1"),
    ],
)
def test_an_engine_that_is_none(
    world: World, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    assert world.materialize("--base", BASE, *words) == code
    assert said in capsys.readouterr().err


def test_a_second_run_asks_nobody_and_opens_no_weights(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.materialize("--base", BASE, "--overlay", OVERLAY)
    capsys.readouterr()
    world.forget_requests()
    before = {path: path.stat() for path in world.dest.rglob("*")}
    opened = record_opens(monkeypatch)
    assert world.materialize("--base", BASE, "--overlay", OVERLAY) == 0
    revision = world.revision(BASE)
    assert capsys.readouterr() == (
        f"materialize: nothing to fetch, {world.dest} holds 11 files, 25.0 KiB (w4a8 from org/base@{revision[:12]}…)\n",
        "",
    )
    assert world.server.requests == []
    assert [path for path in opened if path.startswith(str(world.dest))] == [f"{world.dest}/.dsv4/manifest.json"]
    assert {path: path.stat().st_mtime_ns for path in world.dest.rglob("*")} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }


def test_json_lines_end_with_the_summary(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert world.materialize("--base", BASE, "--json") == 0
    output = capsys.readouterr()
    *events, again = [json.loads(line) for line in output.out.splitlines()]
    size = sum(map(len, contents(world.dest).values()))
    config = (world.dest / "config.json").stat().st_size
    start = {
        "event": "start",
        "fetch": 10,
        "fetch_bytes": size - config,
        "resume_bytes": 0,
        "link": 0,
        "copy": 0,
        "write": 1,
        "keep": 0,
        "remove": [],
    }
    summary = {
        "event": "done",
        "dest": str(world.dest),
        "fetched": [path for path in WANTED if path != "config.json"],
        "linked": [],
        "copied": [],
        "written": ["config.json"],
        "files": 11,
        "bytes": size,
        "tool": manifest.TOOL,
        "base": {"repo": BASE, "requested": "main", "revision": world.revision(BASE)},
        "overlay": None,
        "config": "base",
        "conversion": None,
        "checked_against": "hub",
        "allow": [],
        "examined_for": "",
    }
    assert (output.err, events[0], events[-1], again) == ("", start, summary, summary | {"fetched": [], "written": []})
    files = sorted(events[1:-1], key=lambda event: str(event["path"]))
    assert files == [{"event": "file", "path": path, "size": (world.dest / path).stat().st_size} for path in WANTED]


def test_another_config_kind_fetches_the_config_alone(world: World) -> None:
    world.materialize("--base", BASE, "--overlay", OVERLAY)
    before = identities(world.dest)
    world.forget_requests()
    assert world.materialize("--base", BASE) == 0
    after = identities(world.dest)
    assert [path for path in WANTED if before[path] != after[path]] == ["config.json"]
    resolved = sorted(request.rpartition("/")[2] for request in world.server.requests if "/resolve/" in request)
    assert resolved == ["config.json"]


def test_unchanged_shards_are_not_even_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.materialize("--base", BASE)
    (world.root / BASE / "generation_config.json").write_bytes(b'{"do_sample": false}\n')
    revision = world.revision(BASE)
    opened = record_opens(monkeypatch)
    assert world.materialize("--base", f"{BASE}@{revision}") == 0
    shards = {str(world.dest / shard) for shard in SHARDS}
    assert shards.isdisjoint(opened)
    assert (world.dest / "generation_config.json").read_bytes() == b'{"do_sample": false}\n'
    assert manifest.load(world.dest).base == manifest.HubRecord(repo=BASE, requested=revision, revision=revision)


def test_a_moved_branch_is_not_looked_up_until_it_is_asked_for(world: World) -> None:
    world.materialize("--base", BASE)
    old = world.revision(BASE)
    (world.root / BASE / "tokenizer.json").write_bytes(b'{"new": 1}\n')
    world.forget_requests()
    assert world.materialize("--base", BASE) == 0
    assert world.materialize("--base", f"{BASE}@{old}") == 0
    assert world.server.requests == []
    assert (world.dest / "tokenizer.json").read_bytes() == b"{}\n"


def test_what_is_no_longer_wanted_goes_with_its_folder(world: World) -> None:
    world.materialize("--base", BASE)
    (world.root / BASE / "encoding" / "vocabulary.json").unlink()
    assert world.materialize("--base", f"{BASE}@{world.revision(BASE)}") == 0
    assert sorted(contents(world.dest)) == [path for path in WANTED if not path.startswith("encoding/")]
    assert not (world.dest / "encoding").exists()


def test_files_that_someone_downloaded_already_are_proven_and_kept(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    base = contents(world.root / BASE)
    write(world.dest, {path: base[path] for path in (*SHARDS, INDEX)})
    before = identities(world.dest)
    assert world.materialize("--base", BASE) == 0
    said = capsys.readouterr().err.splitlines()[0]
    assert said == "materialize: 5 files to fetch, 45 bytes; 1 file to write, 6.7 KiB; 5 are there"
    assert {path: identities(world.dest)[path] for path in before} == before


@pytest.mark.parametrize("damage", ["missing", "short", "touched"])
def test_damage_is_repaired_by_fetching_what_is_wrong(world: World, damage: str) -> None:
    world.materialize("--base", BASE)
    before = identities(world.dest)
    shard = world.dest / SHARDS[1]
    content = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(content[:-1] if damage == "short" else content[:-1] + b"?")
        os.utime(shard, ns=(1, 1))
    assert world.materialize("--base", BASE) == 0
    assert contents(world.dest) == expected(world, CONFIG_BASE.read_bytes())
    after = identities(world.dest)
    assert [path for path in WANTED if path != SHARDS[1] and before[path] != after[path]] == []


def test_a_touched_file_that_is_right_is_kept(world: World) -> None:
    world.materialize("--base", BASE)
    os.utime(world.dest / SHARDS[1], ns=(1, 1))
    before = identities(world.dest)
    world.forget_requests()
    assert world.materialize("--base", BASE) == 0
    assert identities(world.dest) == before
    assert manifest.load(world.dest).files[SHARDS[1]].mtime_ns == 1
    assert not any(SHARDS[1] in request for request in world.server.requests)


def test_only_deep_finds_and_repairs_a_flipped_byte_with_an_old_mtime(world: World) -> None:
    world.materialize("--base", BASE)
    shard = world.dest / SHARDS[2]
    good, stat = shard.read_bytes(), shard.stat()
    bad = good[:-1] + bytes([good[-1] ^ 1])
    shard.write_bytes(bad)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert world.materialize("--base", BASE) == 0
    assert shard.read_bytes() == bad
    world.forget_requests()
    assert world.materialize("--base", BASE, "--deep") == 0
    assert shard.read_bytes() == good
    assert sum("safetensors" in request and INDEX not in request for request in world.server.requests) == 1
    world.forget_requests()
    assert world.materialize("--base", BASE, "--deep") == 0
    assert world.server.requests == []


def test_a_broken_manifest_is_said_and_made_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.materialize("--base", BASE)
    before = identities(world.dest)
    (world.dest / ".dsv4" / "manifest.json").write_bytes(b"{")
    capsys.readouterr()
    assert world.materialize("--base", BASE) == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        f"materialize: {world.dest}/.dsv4/manifest.json is no manifest: Expecting property name enclosed in double "
        "quotes: line 1 column 2 (char 1); every file is hashed again"
    )
    assert identities(world.dest) == before


def test_from_local_folders(world: World) -> None:
    sources = ("--base", str(world.root / BASE), "--overlay", str(world.root / OVERLAY))
    assert world.materialize(*sources) == 0
    assert contents(world.dest) == expected(world, (world.root / OVERLAY / "config.json").read_bytes())
    made = manifest.load(world.dest)
    assert made.base == manifest.FolderRecord(dir=str(world.root / BASE))
    assert made.checked_against == "none"
    before = identities(world.dest)
    assert world.materialize("--base", str(world.root / BASE)) == 0
    after = identities(world.dest)
    assert [path for path in WANTED if before[path] != after[path]] == ["config.json"]
    assert world.server.requests == []


def test_a_folder_may_be_named_from_here(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    assert world.materialize("--base", BASE, "--config", "convert") == 0
    assert manifest.load(world.dest).base == manifest.FolderRecord(dir=str(world.root / BASE))
    assert world.server.requests == []


def test_a_changed_local_file_of_the_same_size_is_taken(world: World) -> None:
    world.materialize("--base", str(world.root / BASE), "--config", "convert")
    (world.root / BASE / "tokenizer.json").write_bytes(b"[]\n")
    assert world.materialize("--base", str(world.root / BASE)) == 0
    assert (world.dest / "tokenizer.json").read_bytes() == b"[]\n"
