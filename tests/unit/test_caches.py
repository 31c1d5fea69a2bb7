"""Compiled kernels as an archive: what goes in comes out, wholly or not at all, and nothing else does."""

import errno
import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import ConfigError, IntegrityError, NoSpaceError
from dsv4_stack.guest import caches, stage

LABEL = "dsv4-cache-nightly-sm90, vLLM 0.23.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "cache"
    for name, text in {"triton/a/kernel.cubin": "1", "home/.humming/b.so": "22", "vllm/c.json": "333"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "triton/a/x.lock").write_text("")
    (root / "link").symlink_to("/etc/passwd")
    os.utime(root / "triton/a/kernel.cubin", ns=(1_700_000_000_123_456_789,) * 2)
    (root / "home/.humming/b.so").chmod(0o755)
    return root


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The cache of a machine that has compiled before."""
    root = tmp_path / "old"
    for name in ("triton/a/kernel.cubin", "triton/mine/kernel.cubin"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("old")
    return root


def packed(folder: Path) -> bytes:
    out = io.BytesIO()
    assert caches.pack(folder, LABEL, out) == (3, 6)
    return out.getvalue()


def unpack(folder: Path, source: BinaryIO, label: str = LABEL) -> tuple[int, int]:
    return caches.unpack(folder, label, source, uid=os.getuid(), gid=os.getgid())


def held(folder: Path) -> dict[str, str]:
    """Whatever a folder holds, staged or not."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_goes_in_comes_out_with_its_times_and_modes(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert unpack(there, io.BytesIO(packed(folder))) == (3, 6)
    assert held(there) == {"triton/a/kernel.cubin": "1", "home/.humming/b.so": "22", "vllm/c.json": "333"}
    # To the nanosecond: ninja builds again what is another's by one.
    written = [(place / "triton/a/kernel.cubin").stat().st_mtime_ns for place in (folder, there)]
    assert written == [1_700_000_000_123_456_789] * 2
    assert os.access(there / "home/.humming/b.so", os.X_OK)


def test_the_owner_stays_at_home(folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as archive:
        assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in archive} == {(0, 0, "", "")}


def test_an_empty_folder_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no compiled kernels"):
        caches.pack(tmp_path, LABEL, io.BytesIO())


def test_kernels_of_another_engine_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        unpack(tmp_path / "there", io.BytesIO(packed(folder)), "dsv4-cache-v0.23.0-sm90, vLLM 0.23.0")
    assert str(caught.value) == (
        f"these kernels are for {LABEL}, and this stack is dsv4-cache-v0.23.0-sm90, vLLM 0.23.0\n"
        "  next: import those of its engine"
    )
    assert not (tmp_path / "there").exists()


X: str = hashlib.sha256(b"x").hexdigest()


def archive_with(*entries: tarfile.TarInfo, listing: object = None, schema: int = caches.FORMAT) -> io.BytesIO:
    """Of our own making, so that it may lie: each file holds an x, and so says the listing if it is not given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        caches._add_document(archive, caches.LABEL, {"schema": schema, "label": LABEL})
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
        listed = {entry.name: X for entry in entries} if listing is None else listing
        caches._add_document(archive, caches.END, {"sha256": listed})
    out.seek(0)
    return out


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    found.size = 1 if kind == tarfile.REGTYPE else 0
    return found


@pytest.mark.parametrize(
    "bad",
    [
        entry("../outside"),
        entry("/etc/outside"),
        entry("a/../../outside"),
        entry("link", tarfile.SYMTYPE, "/etc"),
        entry("hard", tarfile.LNKTYPE, "/etc/passwd"),
        entry("device", tarfile.CHRTYPE),
        entry("folder", tarfile.DIRTYPE),
        entry("./dot"),
        entry("double//slash"),
        entry(f"{stage.NAME}/new/x"),
        entry("a" * 300),
    ],
    ids=lambda bad: bad.name,
)
def test_nothing_comes_out_of_the_folder(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises(IntegrityError, match="which is no file of a cache"):
        unpack(tmp_path / "there", archive_with(entry("good"), bad))
    assert not (tmp_path / "outside").exists()
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("second", ["a", "a/b"])
def test_two_files_that_cannot_both_be_there_are_refused(tmp_path: Path, second: str) -> None:
    with pytest.raises(IntegrityError, match=f"the archive holds '{second}', which is no file of a cache"):
        unpack(tmp_path / "there", archive_with(entry("a"), entry(second)))


def test_a_folder_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/a").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="which is no file of a cache"):
        unpack(tmp_path / "there", archive_with(entry("a/outside")))
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9, 0.97])
def test_an_archive_that_was_cut_short_changes_nothing(folder: Path, old: Path, share: float) -> None:
    (folder / "vllm/large").write_bytes(os.urandom(50_000))
    out = io.BytesIO()
    caches.pack(folder, LABEL, out)
    whole, before = out.getvalue(), held(old)
    with pytest.raises(
        IntegrityError, match=r"this (is no archive of kernel caches|archive of kernel caches was cut short)"
    ):
        unpack(old, io.BytesIO(whole[: int(len(whole) * share)]))
    assert held(old) == before
    assert not (old / stage.NAME).exists()


@pytest.mark.parametrize(("cut", "after"), [(8, b""), (4, b""), (1, b""), (8, bytes(8)), (0, b"more")])
def test_the_checksum_of_the_whole_is_read(folder: Path, old: Path, cut: int, after: bytes) -> None:
    """It comes after the end that tarfile sees."""
    whole, before = packed(folder), held(old)
    with pytest.raises(IntegrityError, match="this is no archive of kernel caches: "):
        unpack(old, io.BytesIO(whole[: len(whole) - cut] + after))
    assert held(old) == before


def test_a_file_that_is_not_what_was_packed_changes_nothing(old: Path) -> None:
    before = held(old)
    with pytest.raises(IntegrityError) as caught:
        unpack(old, archive_with(entry("a"), entry("b"), listing={"a": X, "b": hashlib.sha256(b"y").hexdigest()}))
    assert caught.value.message == "'b' in this archive is not what was packed: its sha256 differs"
    assert held(old) == before


@pytest.mark.parametrize("listing", [{}, {"a": X, "b": X}, ["a"], 1, "a"])
def test_a_listing_of_other_files_is_refused(old: Path, listing: object) -> None:
    before = held(old)
    with pytest.raises(IntegrityError, match="this archive of kernel caches was cut short, after 1 file"):
        unpack(old, archive_with(entry("a"), listing=listing))
    assert held(old) == before


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_byte_comes_in(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    """Of what was gzipped, so that gzip's own checksum is right."""
    root = tmp_path_factory.mktemp("flipped")
    (root / "cache").mkdir()
    (root / "cache/kernel").write_bytes(bytes(range(256)) * 8)
    out = io.BytesIO()
    caches.pack(root / "cache", LABEL, out)
    plain = bytearray(gzip.decompress(out.getvalue()))
    plain[at % len(plain)] ^= flip
    try:
        unpack(root / "there", io.BytesIO(gzip.compress(bytes(plain), 1)))
    except IntegrityError:
        assert not (root / "there").exists() or list((root / "there").iterdir()) == []
    else:
        assert (root / "there/kernel").read_bytes() == bytes(range(256)) * 8


def test_an_archive_of_an_older_release_is_told(old: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        unpack(old, archive_with(entry("a"), schema=1))
    assert str(caught.value) == (
        "this archive of kernel caches has format 1, and format 2 is read here\n"
        "  next: export it again, with this release: dsv4 warm --export FILE"
    )


def test_a_full_disk_changes_nothing(folder: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = held(old)

    def full(_handle: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpaceError) as caught:
        unpack(old, io.BytesIO(packed(folder)))
    assert str(caught.value) == (
        f"there is no room for these kernels in {old}, and what it holds stays as it was\n"
        "  next: make room where Docker keeps its volumes, or delete the old kernels: dsv4 down --caches"
    )
    assert held(old) == before


def test_what_was_compiled_here_stays_beside_what_comes(folder: Path, old: Path) -> None:
    unpack(old, io.BytesIO(packed(folder)))
    assert held(old) == {
        "triton/a/kernel.cubin": "1",
        "triton/mine/kernel.cubin": "old",
        "home/.humming/b.so": "22",
        "vllm/c.json": "333",
    }


def test_a_file_with_two_names_comes_out_twice(folder: Path, tmp_path: Path) -> None:
    os.link(folder / "vllm/c.json", folder / "vllm/d.json")
    out = io.BytesIO()
    assert caches.pack(folder, LABEL, out)[0] == 4
    unpack(tmp_path / "there", io.BytesIO(out.getvalue()))
    assert (tmp_path / "there/vllm/d.json").read_text() == "333"


def test_the_stage_of_an_import_that_was_killed_is_not_exported(folder: Path) -> None:
    (folder / stage.NAME / "new").mkdir(parents=True)
    (folder / stage.NAME / "new/half").write_text("half")
    assert packed(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_all_that_comes_is_the_engines(folder: Path, old: Path) -> None:
    caches.unpack(old, LABEL, io.BytesIO(packed(folder)), uid=10001, gid=10002)
    came = [old, *(old / name for name in ("triton", "triton/a", "triton/a/kernel.cubin", "home", "home/.humming"))]
    found = [path.stat() for path in (*came, old / "home/.humming/b.so", old / "vllm/c.json")]
    assert {(each.st_uid, each.st_gid) for each in found} == {(10001, 10002)}


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    with pytest.raises(IntegrityError):
        unpack(tmp_path_factory.mktemp("odd"), io.BytesIO(data))
