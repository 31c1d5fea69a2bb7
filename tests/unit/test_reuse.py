"""Where the bytes of a wanted file may be already, who vouches for them, and what is taken of what is offered."""

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from helpers.hub import BASE, SHARDS, World, write
from huggingface_hub import constants
from hypothesis import example, given
from hypothesis import strategies as st

from dsv4_stack.errors import Dsv4Error, IntegrityError, NoSpaceError
from dsv4_stack.guest import clones, digests
from dsv4_stack.guest.checkpoint import manifest, reuse
from dsv4_stack.guest.checkpoint.manifest import CheckedAgainst, ConfigKind, Entry, HubRecord, Manifest, Origin
from dsv4_stack.guest.checkpoint.reuse import Candidate, Needed, Reuse
from dsv4_stack.guest.digests import Digests

pytest_plugins = ["helpers.hub_fixtures"]

NAME = "model-00001-of-00002.safetensors"
CONTENT = hashlib.shake_256(b"reuse").digest(digests.CHUNK + 4321)
WRONG = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
WHOLE = digests.of_bytes(CONTENT)
NEEDED = Needed(name=NAME, size=len(CONTENT), sha256=WHOLE.sha256, git_sha1=None)
SMALL = replace(NEEDED, sha256=None, git_sha1=WHOLE.git_sha1)
VARIABLES = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"]


@pytest.fixture(autouse=True)
def no_reflink(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that sharing is seen by the inode, whatever the disk can."""
    monkeypatch.setattr(fcntl, "ioctl", refused(errno.EOPNOTSUPP))


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "volume" / "dest"


@pytest.fixture
def target(dest: Path) -> Path:
    (dest / ".dsv4" / "partial").mkdir(parents=True)
    return dest / ".dsv4" / "partial" / NAME


class Account:
    """What `take` tells of its bytes."""

    def __init__(self) -> None:
        self.advanced = self.reused = 0

    def advance(self, count: int) -> None:
        self.advanced += count

    def reuse(self, count: int) -> None:
        self.reused += count


def refused(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def materialized(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A folder that a run of ours has finished."""
    write(folder, dict(files))
    (folder / ".dsv4").mkdir()
    record(folder, {path: entry(folder / path) for path in files})
    return folder.resolve()


def record(folder: Path, entries: dict[str, Entry]) -> None:
    source = HubRecord(repo=BASE, requested="main", revision="0" * 40)
    manifest.store(
        folder,
        Manifest(
            tool="tests",
            base=source,
            overlay=None,
            config=ConfigKind.BASE,
            conversion=None,
            checked_against=CheckedAgainst.HUB,
            files=entries,
        ),
    )


def entry(path: Path) -> Entry:
    there = path.stat()
    sha256 = digests.of_file(path).sha256
    return Entry(size=there.st_size, sha256=sha256, mtime_ns=there.st_mtime_ns, origin=Origin.BASE, inode=there.st_ino)


def vouched(path: Path) -> Candidate:
    return Candidate(path=path, sha256=WHOLE.sha256, mtime_ns=path.stat().st_mtime_ns)


def unproven(path: Path) -> Candidate:
    return Candidate(path=path, sha256=None)


def found(known: Reuse, needed: Needed = NEEDED, repo: str | None = None) -> list[Candidate]:
    return list(known.candidates(needed, repo))


def taken(candidate: Candidate, target: Path, needed: Needed = NEEDED) -> tuple[Digests | None, int, int]:
    """What came of it, bytes copied, bytes shared."""
    account = Account()
    result = reuse.take(candidate, needed, target, advance=account.advance, reused=account.reuse)
    return result, account.advanced, account.reused


def test_the_folders_beside_dest_that_are_materialized(dest: Path, tmp_path: Path) -> None:
    for name in ("b", "a", "dest"):
        materialized(dest.parent / name, {"x": b"x"})
    (dest.parent / "plain").mkdir()
    (dest.parent / "link").symlink_to("a")
    extra = [tmp_path / "extra"]
    assert reuse.places(dest, extra) == [dest.parent / "a", dest.parent / "b", *extra]
    assert reuse.places(tmp_path / "nowhere" / "dest", []) == []


def test_only_so_many_folders_are_looked_into(dest: Path) -> None:
    for number in range(70):
        write(dest.parent / f"{number:02}" / ".dsv4", {"manifest.json": b""})
    assert reuse.places(dest, []) == [dest.parent / f"{number:02}" for number in range(64)]


def test_a_sibling_s_manifest_vouches_under_any_name(dest: Path) -> None:
    sibling = materialized(dest.parent / "w4a16", {"sub/other.safetensors": CONTENT, NAME: WRONG, "config.json": b"{}"})
    assert found(Reuse(dest)) == [vouched(sibling / "sub/other.safetensors"), unproven(sibling / NAME)]


def test_the_vouched_come_first_and_each_file_once(dest: Path, tmp_path: Path) -> None:
    touched = materialized(dest.parent / "a", {NAME: CONTENT})
    os.utime(touched / NAME, ns=(1, 1))
    sound = materialized(dest.parent / "b", {NAME: CONTENT})
    plain = (tmp_path / "plain").resolve()
    plain.mkdir()
    os.link(sound / NAME, plain / NAME)
    known = Reuse(dest, extra=[plain, touched])
    assert found(known) == [vouched(sound / NAME), unproven(touched / NAME)]


def test_each_manifest_is_read_once(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sibling = materialized(dest.parent / "a", {NAME: CONTENT})
    read: list[Path] = []
    real = manifest.load

    def load(folder: Path) -> Manifest:
        read.append(folder)
        return real(folder)

    monkeypatch.setattr(manifest, "load", load)
    known = Reuse(dest)
    assert read == []
    assert found(known) == found(known) == [vouched(sibling / NAME)]
    assert read == [sibling]


def touch(folder: Path) -> None:
    os.utime(folder / NAME, ns=(1, 1))


def swap(folder: Path) -> None:
    """Another file of the same size and mtime."""
    there = (folder / NAME).stat()
    (folder / "new").write_bytes(WRONG)
    os.utime(folder / "new", ns=(there.st_atime_ns, there.st_mtime_ns))
    (folder / "new").replace(folder / NAME)


def world_may_write(path: str) -> Callable[[Path], None]:
    def open_up(folder: Path) -> None:
        (folder / path).chmod((folder / path).stat().st_mode | 0o002)

    return open_up


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(touch, id="touched"),
        pytest.param(swap, id="swapped"),
        pytest.param(world_may_write("."), id="open-folder"),
        pytest.param(world_may_write(".dsv4"), id="open-records"),
        pytest.param(world_may_write(manifest.NAME), id="open-manifest"),
        pytest.param(world_may_write(NAME), id="open-file"),
    ],
)
def test_what_may_have_changed_since_has_to_be_hashed(dest: Path, harm: Callable[[Path], None]) -> None:
    sibling = materialized(dest.parent / "a", {NAME: CONTENT})
    harm(sibling)
    assert found(Reuse(dest)) == [unproven(sibling / NAME)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("path", [".", ".dsv4", manifest.NAME, NAME])
def test_another_user_vouches_for_nothing_but_in_a_folder_of_theirs(dest: Path, path: str) -> None:
    sibling = materialized(dest.parent / "a", {NAME: CONTENT})
    os.chown(sibling / path, 12345, 12345)
    assert found(Reuse(dest)) == [unproven(sibling / NAME)]
    os.chown(dest.parent, 12345, 12345)
    assert found(Reuse(dest)) == [vouched(sibling / NAME)]


def test_a_link_in_a_materialized_folder_is_not_vouched_for(dest: Path, tmp_path: Path) -> None:
    sibling = materialized(dest.parent / "a", {f"sub/{NAME}": CONTENT})
    moved = (tmp_path / "moved").resolve()
    (sibling / "sub").rename(moved)
    (sibling / "sub").symlink_to(moved)
    assert found(Reuse(dest)) == [unproven(moved / NAME)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 2}', b"\xff", b"[" * 100_000])
def test_an_invalid_manifest_vouches_for_nothing(dest: Path, content: bytes) -> None:
    sibling = materialized(dest.parent / "a", {NAME: CONTENT})
    (sibling / manifest.NAME).write_bytes(content)
    assert found(Reuse(dest)) == [unproven(sibling / NAME)]


def test_an_unreadable_manifest_vouches_for_nothing(dest: Path) -> None:
    sibling = materialized(dest.parent / "a", {NAME: CONTENT})
    (sibling / manifest.NAME).unlink()
    (sibling / manifest.NAME).mkdir()
    assert found(Reuse(dest)) == [unproven(sibling / NAME)]


def test_a_git_hash_is_found_by_name_and_has_to_be_computed(dest: Path) -> None:
    sibling = materialized(dest.parent / "a", {NAME: CONTENT, "other": CONTENT})
    assert found(Reuse(dest), SMALL) == [unproven(sibling / NAME)]


def test_what_is_not_promised_cannot_be_found(dest: Path) -> None:
    materialized(dest.parent / "a", {NAME: CONTENT})
    assert found(Reuse(dest), replace(NEEDED, sha256=None)) == []


def test_nothing_below_dest_is_offered(dest: Path, tmp_path: Path) -> None:
    materialized(dest, {NAME: CONTENT})
    link = tmp_path / "link"
    link.mkdir()
    (link / NAME).symlink_to(dest / NAME)
    assert found(Reuse(dest, extra=[dest, link, dest / ".dsv4" / ".."])) == []


def test_plain_folders_have_links_pipes_and_files_of_other_sizes(dest: Path, tmp_path: Path) -> None:
    folders = [(tmp_path / name).resolve() for name in ("file", "link", "pipe", "short", "loop", "folder", "nothing")]
    for folder in folders[:-1]:
        folder.mkdir()
    (folders[0] / NAME).write_bytes(WRONG)
    (tmp_path / "blob").write_bytes(CONTENT)
    (folders[1] / NAME).symlink_to(tmp_path / "blob")
    os.mkfifo(folders[2] / NAME)
    (folders[3] / NAME).write_bytes(CONTENT[1:])
    (folders[4] / NAME).symlink_to(NAME)
    (folders[5] / NAME).mkdir()
    blob = tmp_path.resolve() / "blob"
    assert found(Reuse(dest, extra=folders)) == [unproven(folders[0] / NAME), unproven(blob)]


PARTS = st.sampled_from(["..", ".", "", "a", "b", "secret", "\0", ".dsv4", "*"])


@given(
    parts=st.lists(PARTS, min_size=1, max_size=5),
    size=st.integers(0, 4),
    etag=st.sampled_from(["../../../secret", "/secret", "a" * 40, "a" * 64, "0" * 64]),
    repo=st.sampled_from([None, "a/b", "../..", "/"]),
)
@example(parts=["..", "secret"], size=2, etag="0" * 64, repo="a/b")
@example(parts=["a"], size=2, etag="../../../secret", repo="a/b")
def test_no_name_leads_out_of_the_folders_or_to_another_size(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], size: int, etag: str, repo: str | None
) -> None:
    root = tmp_path_factory.getbasetemp().resolve() / "names"
    inside, cache = root / "extra", root / "cache"
    homes = (inside, cache / "models--a--b" / "blobs", cache / "models--a--b" / "snapshots" / "1")
    if not root.exists():
        blobs = {"a" * length: b"aa" for length in (40, 64)}
        for home, files in zip(homes, ({"b/a": b"bbb", "secret": b""}, blobs, {"b/secret": b"s"}), strict=True):
            write(home, {"a": b"aa", **files})
            for folder in (home.parent, *home.parent.parents):
                if folder.is_relative_to(root):
                    write(folder, {"secret": b"ss"})
    needed = Needed(name="/".join(parts), size=size, sha256=etag, git_sha1=etag)
    offered = found(Reuse(root / "dest", extra=[inside], hub_cache=cache), needed, repo)
    assert [one for one in offered if not any(one.path.is_relative_to(home) for home in homes)] == []
    assert [one for one in offered if one.path.stat().st_size != size] == []
    if parts == ["a"] and size == 2:
        assert unproven(inside / "a") in offered


@pytest.mark.parametrize("kind", [os.mkdir, os.mkfifo])
def test_only_regular_files_are_offered(dest: Path, tmp_path: Path, kind: Callable[[Path], None]) -> None:
    kind(tmp_path / NAME)
    needed = replace(NEEDED, size=(tmp_path / NAME).stat().st_size)
    assert found(Reuse(dest, extra=[tmp_path]), needed) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "HOME/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/xdg", "HF_HOME": "~/hf"}, "HOME/hf/hub"),
        ({"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "$HOME/new"}, "HOME/new"),
        ({"HF_HOME": "", "HF_HUB_CACHE": ""}, "HOME/.cache/huggingface/hub"),
    ],
)
def test_the_hub_s_cache_is_where_its_own_tools_look(
    environment: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**environment, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert reuse.hub_cache() == Path(expected.replace("HOME", str(tmp_path)))


@pytest.fixture
def cache(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What huggingface_hub itself leaves."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    folder = (tmp_path / "cache").resolve()
    huggingface_hub.snapshot_download(BASE, cache_dir=folder, endpoint=world.url, token=False, max_workers=2)
    return folder


def test_shards_and_small_files_are_found_in_a_real_cache(world: World, cache: Path, target: Path, dest: Path) -> None:
    known = Reuse(dest, hub_cache=cache)
    blobs = cache / "models--org--base" / "blobs"
    shard, config = (world.root / BASE / name for name in (SHARDS[0], "config.json"))
    promised = {
        SHARDS[0]: replace(NEEDED, name=SHARDS[0], size=shard.stat().st_size, sha256=digests.of_file(shard).sha256),
        "config.json": replace(
            SMALL, name="config.json", size=config.stat().st_size, git_sha1=digests.of_file(config, git=True).git_sha1
        ),
    }
    for name, needed in promised.items():
        blob = blobs / (needed.sha256 or needed.git_sha1 or "")
        assert found(known, needed, BASE) == [unproven(blob)]
        assert found(known, needed, "org/other") == []
        before = blob.stat()
        result = digests.of_file(blob, git=needed.needs_git)
        assert taken(unproven(blob), target, needed) == (result, 0, needed.size)
        assert target.read_bytes() == (world.root / BASE / name).read_bytes()
        assert target.samefile(blob)
        assert not target.is_symlink()
        assert (before.st_mtime_ns, before.st_mode) == (blob.stat().st_mtime_ns, blob.stat().st_mode)
        target.unlink()


def test_with_the_lock_alone_a_small_file_is_found_by_its_name(world: World, cache: Path, dest: Path) -> None:
    config = world.root / BASE / "config.json"
    whole = digests.of_file(config, git=True)
    needed = Needed(name="config.json", size=whole.size, sha256=whole.sha256, git_sha1=None)
    blob = cache / "models--org--base" / "blobs" / whole.git_sha1
    assert found(Reuse(dest, hub_cache=cache), needed, BASE) == [unproven(blob)]
    assert found(Reuse(dest, hub_cache=cache), replace(needed, name="../config.json"), BASE) == []


def test_a_corrupt_blob_is_not_used(world: World, cache: Path, dest: Path, target: Path) -> None:
    shard = world.root / BASE / SHARDS[0]
    needed = replace(NEEDED, name=SHARDS[0], size=shard.stat().st_size, sha256=digests.of_file(shard).sha256)
    [candidate] = found(Reuse(dest, hub_cache=cache), needed, BASE)
    with candidate.path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0" if shard.read_bytes()[-1] else b"\1")
    harmed = candidate.path.read_bytes()
    assert taken(candidate, target, needed) == (None, 0, needed.size)
    assert list(target.parent.iterdir()) == []
    assert candidate.path.read_bytes() == harmed


def test_a_blob_of_the_store_that_all_repositories_share(dest: Path, tmp_path: Path) -> None:
    cache = (tmp_path / "cache").resolve()
    store = cache / "blobs" / "ab" / ("ab" * 32)
    write(store.parent, {store.name: CONTENT})
    blob = cache / "models--org--base" / "blobs" / WHOLE.sha256
    blob.parent.mkdir(parents=True)
    blob.symlink_to(Path("../../blobs/ab") / store.name)
    assert found(Reuse(dest, hub_cache=cache), repo=BASE) == [unproven(store)]


def test_the_vouched_is_linked_and_not_read(dest: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sibling = materialized(dest.parent / "a", {NAME: CONTENT})
    [candidate] = found(Reuse(dest))
    monkeypatch.setattr(digests, "of_file", refused(errno.EIO))
    proven = Digests(size=len(CONTENT), sha256=WHOLE.sha256)
    assert taken(candidate, target) == (proven, 0, len(CONTENT))
    assert target.samefile(sibling / NAME)


@pytest.mark.parametrize("content", [CONTENT, WRONG], ids=["the-same", "other-bytes"])
def test_what_is_written_after_it_was_vouched_for_is_hashed(dest: Path, target: Path, content: bytes) -> None:
    sibling = materialized(dest.parent / "a", {NAME: CONTENT})
    [candidate] = found(Reuse(dest))
    (sibling / NAME).write_bytes(content)
    os.utime(sibling / NAME, ns=(1, 1))
    result = Digests(size=len(CONTENT), sha256=WHOLE.sha256) if content is CONTENT else None
    assert taken(candidate, target) == (result, 0, len(CONTENT))
    assert target.exists() == (content is CONTENT)
    assert (sibling / NAME).read_bytes() == content


@pytest.mark.parametrize("needed", [NEEDED, SMALL], ids=["sha256", "git"])
@pytest.mark.parametrize("can_share", [True, False], ids=["linked", "copied"])
@pytest.mark.parametrize("content", [CONTENT, WRONG, CONTENT[1:]], ids=["right", "wrong", "short"])
def test_the_unproven_is_hashed(
    target: Path, tmp_path: Path, needed: Needed, *, can_share: bool, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    if not can_share:
        monkeypatch.setattr(os, "link", refused(errno.EXDEV))
    is_right = content is CONTENT
    git_sha1 = WHOLE.git_sha1 if needed.needs_git else ""
    result = Digests(size=len(CONTENT), sha256=WHOLE.sha256, git_sha1=git_sha1) if is_right else None
    moved = (0, len(content)) if can_share else (len(content), 0)
    assert taken(unproven(source), target, needed) == (result, *moved)
    assert list(target.parent.iterdir()) == ([target] if is_right else [])
    assert (source.read_bytes(), source.stat().st_nlink) == (content, 2 if can_share and is_right else 1)


def test_a_wrong_claim_is_never_believed_in_a_copy(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(WRONG)
    monkeypatch.setattr(os, "link", refused(errno.EPERM))
    assert taken(vouched(source), target) == (None, len(WRONG), 0)


def test_a_claim_of_other_bytes_is_hashed(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    claim = replace(vouched(source), sha256="0" * 64)
    assert taken(claim, target) == (Digests(size=len(CONTENT), sha256=WHOLE.sha256), 0, len(CONTENT))


def test_another_disk_is_copied(target: Path) -> None:
    shm = Path("/dev/shm")  # noqa: S108 - a mount of its own, if it is there
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == target.parent.stat().st_dev:
        pytest.skip(f"{shm} is no other disk to write to")
    with tempfile.TemporaryDirectory(dir=shm, prefix="dsv4-") as folder:
        source = Path(folder, NAME)
        source.write_bytes(CONTENT)
        result = Digests(size=len(CONTENT), sha256=WHOLE.sha256)
        assert taken(unproven(source), target) == (result, len(CONTENT), 0)
        assert target.read_bytes() == source.read_bytes() == CONTENT


def test_what_nobody_promised_is_taken_as_it_is(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(WRONG)
    promised = replace(NEEDED, sha256=None)
    wrong = Digests(size=len(WRONG), sha256=hashlib.sha256(WRONG).hexdigest())
    assert taken(unproven(source), target, promised) == (wrong, 0, len(WRONG))


def test_what_is_gone_is_none_where_there_are_other_places_and_an_error_where_there_are_not(
    target: Path, tmp_path: Path
) -> None:
    gone = unproven(tmp_path / "gone")
    assert taken(gone, target) == (None, 0, 0)
    with pytest.raises(Dsv4Error) as raised:
        taken(gone, target, replace(NEEDED, sha256=None))
    assert raised.value.message == f"there is no {gone.path}"


def test_a_linked_file_that_is_written_while_it_is_hashed_is_not_used(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)

    def write_on(_: int) -> None:
        os.utime(source, ns=(1, 1))

    assert reuse.take(unproven(source), NEEDED, target, advance=digests.ignore, reused=write_on) is None
    assert list(target.parent.iterdir()) == []
    source.touch()
    with pytest.raises(IntegrityError) as raised:
        reuse.take(unproven(source), replace(NEEDED, sha256=None), target, advance=digests.ignore, reused=write_on)
    assert raised.value.message == f"{source} changed while it was read"


def test_a_full_disk_ends_it(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    monkeypatch.setattr(os, "link", refused(errno.EXDEV))
    monkeypatch.setattr(os, "fsync", refused(errno.ENOSPC))
    with pytest.raises(NoSpaceError) as raised:
        taken(unproven(source), target)
    assert raised.value.message == f"{target}: No space left on device"
    assert list(target.parent.iterdir()) == []


def test_hashing_what_is_linked_can_be_stopped(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reuse.take(unproven(source), NEEDED, target, advance=stop, reused=digests.ignore)
    assert list(target.parent.iterdir()) == []
    assert clones.share(source, target) is clones.Way.HARD_LINK
