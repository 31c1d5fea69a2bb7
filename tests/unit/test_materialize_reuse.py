"""Bytes that this machine has already are linked instead of fetched; what would be done is said; offline is offline."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from helpers.hub import BASE, OVERLAY, SHARDS, WANTED, World, contents, dsv4, write

from dsv4_stack.guest.checkpoint import manifest, reuse
from dsv4_stack.guest.clones import Way, share

pytest_plugins = ["helpers.hub_fixtures"]

SHARD = SHARDS[0]


def fetched(world: World) -> list[str]:
    """The shards that were asked for since the requests were forgotten."""
    return sorted({shard for shard in SHARDS for request in world.server.requests if request.endswith(shard)})


def can_clone(folder: Path) -> bool:
    """Whether this file system makes reflinks, which have a number of their own."""
    (folder / "probe").write_bytes(b"x")
    try:
        return share(folder / "probe", folder / "twin") is Way.REFLINK
    finally:
        (folder / "probe").unlink()
        (folder / "twin").unlink()


def lock(world: World, tmp_path: Path) -> Path:
    """What `dsv4 lock` would have written of the base."""
    stored = {
        path: {"size": (world.root / BASE / path).stat().st_size, "sha256": world.sha256(BASE, path)}
        for path in (file.path for file in world.server.visible(BASE))
    }
    path = tmp_path / "dsv4.lock"
    repo = {"requested": "main", "revision": world.revision(BASE), "files": stored}
    path.write_text(json.dumps({"schema": 1, "repos": {BASE: repo}}))
    return path


def test_two_variants_of_the_same_shards_share_their_bytes(world: World) -> None:
    w4a16 = world.dest.with_name("w4a16")
    assert dsv4("materialize", "--base", BASE, "--dest", str(w4a16)) == 0
    before = {shard: (w4a16 / shard).stat() for shard in SHARDS}
    world.forget_requests()
    assert world.materialize("--base", BASE, "--overlay", OVERLAY) == 0
    assert fetched(world) == []
    clones = can_clone(world.dest.parent)
    for shard in SHARDS:
        there, shared = (w4a16 / shard).stat(), (world.dest / shard).stat()
        assert (there.st_mtime_ns, there.st_mode, there.st_size) == (
            before[shard].st_mtime_ns,
            before[shard].st_mode,
            before[shard].st_size,
        )
        assert shared.st_ino == there.st_ino or clones
    assert (world.dest / "config.json").read_bytes() != (w4a16 / "config.json").read_bytes()
    assert dsv4("gate", str(world.dest), "--deep") == dsv4("gate", str(w4a16), "--deep") == 0
    made = manifest.load(world.dest)
    assert made.files[SHARD].inode == (world.dest / SHARD).stat().st_ino


def test_a_spoilt_neighbour_is_not_believed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    neighbour = world.dest.with_name("neighbour")
    assert dsv4("materialize", "--base", BASE, "--dest", str(neighbour)) == 0
    content = bytearray((neighbour / SHARD).read_bytes())
    content[-1] ^= 1
    (neighbour / SHARD).write_bytes(content)
    world.forget_requests()
    capsys.readouterr()
    assert world.materialize("--base", BASE) == 0
    assert fetched(world) == [SHARD]
    said = f"materialize: {neighbour / SHARD} is not what it is said to be, and not used"
    assert said in capsys.readouterr().err.splitlines()
    assert contents(world.dest)[SHARD] == (world.root / BASE / SHARD).read_bytes()


def test_a_folder_that_is_named_is_looked_through(world: World, tmp_path: Path) -> None:
    somewhere = tmp_path / "else" / "where"
    write(somewhere, {path: (world.root / BASE / path).read_bytes() for path in SHARDS[:3]})
    assert world.materialize("--base", BASE, "--reuse", str(somewhere)) == 0
    assert fetched(world) == SHARDS[3:]


def test_the_cache_of_the_hubs_own_tools_is_used(world: World) -> None:
    cache = Path(os.environ["HF_HOME"]) / "hub"
    huggingface_hub.snapshot_download(BASE, cache_dir=cache, endpoint=world.url, allow_patterns=[*SHARDS[:2]])
    world.forget_requests()
    assert world.materialize("--base", BASE) == 0
    assert fetched(world) == SHARDS[2:]
    assert not (world.dest / SHARD).is_symlink()


def test_a_local_folder_is_linked_and_not_altered(world: World, tmp_path: Path) -> None:
    source = tmp_path / "source" / "checkpoint"
    write(source, {path: (world.root / BASE / path).read_bytes() for path in WANTED})
    before = {path: path.stat() for path in source.rglob("*")}
    assert world.materialize("--base", str(source), "--config", "convert") == 0
    assert world.server.requests == []
    for path, stat in before.items():
        there = path.stat()
        assert (there.st_mtime_ns, there.st_mode, there.st_ino) == (stat.st_mtime_ns, stat.st_mode, stat.st_ino)
    assert (world.dest / SHARD).stat().st_ino == (source / SHARD).stat().st_ino or can_clone(tmp_path)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.materialize("--base", BASE, "--dry-run") == 0
    sizes = {path: (world.root / BASE / path).stat().st_size for path in WANTED}
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == (
        "materialize: 10 files to fetch, 16.7 KiB; 1 file to write, 6.7 KiB; 0 are there; nothing was done"
    )
    assert sorted(line.split()[1].rstrip(",") for line in out[:-1]) == WANTED
    assert {line.split()[0] for line in out[:-1]} == {"fetch", "write"}
    assert not world.dest.exists()
    assert world.materialize("--base", BASE) == 0
    capsys.readouterr()
    assert world.materialize("--base", BASE, "--dry-run") == 0
    assert capsys.readouterr().out == f"materialize: nothing to do, {world.dest} is as asked for\n"
    (world.dest / SHARD).unlink()
    assert world.materialize("--base", BASE, "--dry-run", "--json") == 0
    *_, plan = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert plan == {
        "event": "plan",
        "dest": str(world.dest),
        "bring": [{"path": SHARD, "how": "fetch", "size": sizes[SHARD], "there": 0}],
        "keep": [path for path in WANTED if path != SHARD],
        "remove": [],
    }
    assert not (world.dest / SHARD).exists()


def test_offline_a_complete_directory_is_enough(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.materialize("--base", BASE) == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    world.forget_requests()
    assert world.materialize("--base", BASE) == 0
    (world.dest / SHARD).unlink()
    capsys.readouterr()
    assert world.materialize("--base", BASE) == 8
    assert f"{BASE}@main: HF_HUB_OFFLINE is set, so nobody is asked" in capsys.readouterr().err
    assert world.server.requests == []


def test_offline_the_lock_and_what_is_here_are_enough(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = lock(world, tmp_path)
    elsewhere = tmp_path / "copy"
    write(elsewhere, {path: (world.root / BASE / path).read_bytes() for path in WANTED})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = ["--base", BASE, "--lock", str(locked), "--reuse", str(elsewhere)]
    assert world.materialize(*arguments, "--dry-run") == 0
    assert world.materialize(*arguments) == 0
    assert world.server.requests == []
    assert sorted(contents(world.dest)) == WANTED
    assert manifest.load(world.dest).checked_against == "lock"


def test_code_is_taken_only_where_it_is_allowed_by_name(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.materialize("--base", BASE) == 0
    assert "modeling_deepseek.py" not in contents(world.dest)
    assert world.materialize("--base", BASE, "--allow", "*.py") == 0
    assert contents(world.dest)["modeling_deepseek.py"] == b"raise SystemExit\n"
    assert manifest.load(world.dest).allow == ("*.py",)
    assert world.materialize("--base", BASE) == 0
    assert "modeling_deepseek.py" not in contents(world.dest)
    capsys.readouterr()
    assert world.materialize("--base", BASE, "--allow", "*") == 2
    assert capsys.readouterr().err.startswith("error: --allow '*' should ")


@pytest.mark.parametrize("fault", ["length", "tensor"])
def test_a_shard_with_a_wrong_header_ends_it(world: World, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    path = world.root / BASE / SHARD
    content = path.read_bytes()
    if fault == "length":
        path.write_bytes(struct.pack("<Q", len(content)) + content[8:])
    else:
        path.write_bytes(content.replace(b'"layer.0"', b'"layer.9"'))
    assert world.materialize("--base", BASE) == 6
    message = capsys.readouterr().err
    assert f"error: {SHARD} is no whole safetensors file: " in message
    assert not (world.dest / SHARD).exists()
    path.write_bytes(content)
    assert world.materialize("--base", BASE) == 0


def test_a_wrong_header_of_a_file_that_is_there_already_ends_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """As another tool left it, the Hub's own bytes: nobody has looked into it yet."""
    right, path = (world.root / BASE / SHARD).read_bytes(), world.root / BASE / SHARD
    path.write_bytes(right.replace(b'"layer.0"', b'"layer.9"'))
    write(world.dest, {SHARD: path.read_bytes()})
    assert world.materialize("--base", BASE) == 6
    assert capsys.readouterr().err == (
        f"error: {SHARD} is no whole safetensors file: lacks tensors that the index puts there: layer.0\n"
        "  next: take it from a revision or a folder where it is whole\n"
    )
    assert sorted(contents(world.dest)) == [SHARD]


def test_another_file_in_ones_place_is_named_and_proven_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.materialize("--base", BASE) == 0
    there = (world.dest / SHARD).stat()
    content = bytearray((world.dest / SHARD).read_bytes())
    content[-1] ^= 1
    (world.dest / "other").write_bytes(content)
    (world.dest / "other").replace(world.dest / SHARD)
    os.utime(world.dest / SHARD, ns=(there.st_atime_ns, there.st_mtime_ns))
    assert dsv4("gate", str(world.dest)) == 6
    said = f"  {SHARD}: another file has taken its place since it was proven"
    assert said in capsys.readouterr().err.splitlines()
    world.forget_requests()
    assert world.materialize("--base", BASE) == 0
    assert fetched(world) == [SHARD]
    assert dsv4("gate", str(world.dest), "--deep") == 0


def test_a_directory_that_was_copied_with_its_times_passes(world: World, tmp_path: Path) -> None:
    assert world.materialize("--base", BASE) == 0
    copy = tmp_path / "moved"
    for path in world.dest.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(world.dest)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            os.utime(target, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert dsv4("gate", str(copy)) == 0


def flip_last(path: Path) -> None:
    """Another byte, and the same times: only a hash can tell."""
    there = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns))


def test_a_deep_repair_believes_no_neighbour(world: World) -> None:
    neighbour = world.dest.with_name("neighbour")
    assert dsv4("materialize", "--base", BASE, "--dest", str(neighbour)) == 0
    assert world.materialize("--base", BASE) == 0
    flip_last(world.dest / SHARD)
    assert world.materialize("--base", BASE) == 0
    assert world.materialize("--base", BASE, "--deep") == 0
    assert contents(world.dest)[SHARD] == (world.root / BASE / SHARD).read_bytes()
    assert dsv4("gate", str(world.dest), "--deep") == 0


def test_a_deep_check_of_a_touched_file_leaves_nothing_to_stumble_over(world: World) -> None:
    assert world.materialize("--base", BASE) == 0
    os.utime(world.dest / SHARD, ns=(1, 1))
    world.forget_requests()
    assert world.materialize("--base", BASE, "--deep") == 0
    assert fetched(world) == []
    assert dsv4("gate", str(world.dest)) == 0


def test_what_came_of_a_file_is_worth_more_than_what_may_be_it(world: World, tmp_path: Path) -> None:
    world.server.faults.stall[f"{BASE}/{SHARD}"] = 2048
    assert world.materialize("--base", BASE, "--stall-timeout", "10", "--stall-limit", "1.5") == 8
    world.server.faults.stall.clear()
    wrong = tmp_path / "wrong"
    write(wrong, {SHARD: bytes((world.root / BASE / SHARD).stat().st_size)})
    world.server.sent.clear()
    assert world.materialize("--base", BASE, "--reuse", str(wrong)) == 0
    assert 0 < world.server.sent[f"{BASE}/{SHARD}"] <= (world.root / BASE / SHARD).stat().st_size
    assert contents(world.dest)[SHARD] == (world.root / BASE / SHARD).read_bytes()


def test_what_came_of_a_file_stays_until_a_link_took_its_place(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = 2 << 20
    header = json.dumps({"layer.0": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    (world.root / BASE / SHARD).write_bytes(struct.pack("<Q", len(header)) + header + os.urandom(size))
    world.server.faults.stall[f"{BASE}/{SHARD}"] = size
    assert world.materialize("--base", BASE, "--stall-timeout", "10", "--stall-limit", "1.5") == 8
    world.server.faults.stall.clear()
    neighbour = world.dest.with_name("neighbour")
    assert dsv4("materialize", "--base", BASE, "--dest", str(neighbour)) == 0
    capsys.readouterr()
    world.server.sent.clear()
    # The neighbour vouches for it as long as nobody looks, and is gone when it is to be linked.
    plain = reuse.take

    def too_late(candidate: reuse.Candidate, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as take
        (neighbour / SHARD).unlink(missing_ok=True)
        return plain(candidate, *args, **kwargs)

    monkeypatch.setattr(reuse, "take", too_late)
    assert world.materialize("--base", BASE) == 0
    assert "materialize: 1 file to link, 2.0 MiB; 10 are there" in capsys.readouterr().err.splitlines()
    assert list(world.server.sent) == [f"{BASE}/{SHARD}"]
    assert world.server.sent[f"{BASE}/{SHARD}"] <= size / 2
    assert contents(world.dest)[SHARD] == (world.root / BASE / SHARD).read_bytes()
    assert [path.name for path in (world.dest / ".dsv4").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("change", ["content", "more", "less"])
def test_a_local_source_that_changes_is_looked_into_again(world: World, tmp_path: Path, change: str) -> None:
    source = tmp_path / "source" / "checkpoint"
    write(source, {path: (world.root / BASE / path).read_bytes() for path in WANTED})
    assert world.materialize("--base", str(source)) == 0
    if change == "content":
        (source / "generation_config.json").unlink()
        write(source, {"generation_config.json": b'{"do_sample":false}\n'})
    elif change == "more":
        write(source, {"more.json": b"{}\n"})
    else:
        (source / "chat_template.jinja").unlink()
    assert world.materialize("--base", str(source)) == 0
    assert contents(world.dest) == contents(source)


def test_offline_the_lock_and_the_directories_own_files_are_enough(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = lock(world, tmp_path)
    assert world.materialize("--base", BASE, "--lock", str(locked)) == 0
    os.utime(world.dest / SHARD, ns=(1, 1))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    world.forget_requests()
    assert world.materialize("--base", BASE, "--lock", str(locked)) == 0
    assert world.server.requests == []


def test_a_lock_that_is_not_there_or_of_something_else_is_said(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.materialize("--base", BASE, "--lock", str(tmp_path / "typo.lock")) == 4
    other = json.loads(lock(world, tmp_path).read_bytes())
    other["repos"]["org/other"] = other["repos"].pop(BASE)
    (tmp_path / "dsv4.lock").write_text(json.dumps(other))
    capsys.readouterr()
    assert world.materialize("--base", BASE, "--lock", str(tmp_path / "dsv4.lock")) == 0
    said = f"materialize: the lock has no {BASE}@main, so the Hub alone says what it is"
    assert said in capsys.readouterr().err.splitlines()


def test_without_an_index_the_shards_own_numbers_count(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.faults.hide |= {f"{BASE}/model.safetensors.index.json", f"{BASE}/{SHARDS[1]}"}
    assert world.materialize("--base", BASE) == 4
    assert f"lacks shards that the others' names count:\n  {SHARDS[1]}\n" in capsys.readouterr().err


def test_a_file_that_goes_away_meanwhile_ends_it(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsv4_stack.guest.checkpoint.transfer import Transfer

    assert world.materialize("--base", BASE) == 0
    plain = Transfer.bring_all

    def meanwhile(transfer: Transfer, *args: object) -> None:
        plain(transfer, *args)  # type: ignore[arg-type]
        (world.dest / SHARD).unlink()

    monkeypatch.setattr(Transfer, "bring_all", meanwhile)
    capsys.readouterr()
    assert world.materialize("--base", BASE, "--config", "convert") == 6
    assert f"{world.dest} was changed while it was made:\n  {SHARD}: missing\n" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", world.url)
    assert world.materialize("--base", BASE, "--config", "convert") == 0


def test_an_odd_name_that_nobody_wants_refuses_nothing(world: World) -> None:
    write(world.root / BASE, {"figures/a:b.png": b"png", "readme.md": b"# base\n"})
    assert world.materialize("--base", BASE) == 0
