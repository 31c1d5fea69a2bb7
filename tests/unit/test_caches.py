"""Compiled kernels as an archive: what goes in comes out, and nothing else does."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import ConfigError, IntegrityError
from dsv4_stack.guest import caches

LABEL = "dsv4-cache-nightly-sm90, vLLM 0.23.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "cache"
    for name, text in {"triton/a/kernel.cubin": "1", "home/.humming/b.so": "22", "vllm/c.json": "333"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "triton/a/x.lock").write_text("")
    (root / "link").symlink_to("/etc/passwd")
    os.utime(root / "vllm/c.json", (1_700_000_000, 1_700_000_000))
    (root / "home/.humming/b.so").chmod(0o755)
    return root


def packed(folder: Path) -> bytes:
    out = io.BytesIO()
    assert caches.pack(folder, LABEL, out) == (3, 6)
    return out.getvalue()


def test_what_goes_in_comes_out_with_its_times_and_modes(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert caches.unpack(there, LABEL, io.BytesIO(packed(folder))) == (3, 6)
    files = {path.relative_to(there).as_posix(): path.read_text() for path in there.rglob("*") if path.is_file()}
    assert files == {"triton/a/kernel.cubin": "1", "home/.humming/b.so": "22", "vllm/c.json": "333"}
    assert (there / "vllm/c.json").stat().st_mtime == 1_700_000_000
    assert os.access(there / "home/.humming/b.so", os.X_OK)


def test_the_owner_stays_at_home(folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as archive:
        assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in archive} == {(0, 0, "", "")}


def test_an_empty_folder_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no compiled kernels"):
        caches.pack(tmp_path, LABEL, io.BytesIO())


def test_kernels_of_another_engine_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        caches.unpack(tmp_path / "there", "dsv4-cache-v0.23.0-sm90, vLLM 0.23.0", io.BytesIO(packed(folder)))
    assert str(caught.value) == (
        f"these kernels are for {LABEL}, and this stack is dsv4-cache-v0.23.0-sm90, vLLM 0.23.0\n"
        "  next: import those of its engine"
    )
    assert not (tmp_path / "there").exists()


def archive_with(*entries: tarfile.TarInfo) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        text = json.dumps({"schema": 1, "label": LABEL}).encode()
        label = tarfile.TarInfo(caches.LABEL)
        label.size = len(text)
        archive.addfile(label, io.BytesIO(text))
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
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
    ],
    ids=lambda bad: bad.name,
)
def test_nothing_comes_out_of_the_folder(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises(IntegrityError, match="which is no file of a cache"):
        caches.unpack(tmp_path / "there", LABEL, archive_with(bad))
    assert not (tmp_path / "outside").exists()


def test_a_folder_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/a").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="which is no file of a cache"):
        caches.unpack(tmp_path / "there", LABEL, archive_with(entry("a/outside")))
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9, 0.97])
def test_an_archive_that_was_cut_short_is_told(folder: Path, tmp_path: Path, share: float) -> None:
    (folder / "vllm/large").write_bytes(os.urandom(50_000))
    out = io.BytesIO()
    caches.pack(folder, LABEL, out)
    whole = out.getvalue()
    with pytest.raises(
        IntegrityError, match=r"this (is no archive of kernel caches|archive of kernel caches was cut short)"
    ):
        caches.unpack(tmp_path / "there", LABEL, io.BytesIO(whole[: int(len(whole) * share)]))


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    with pytest.raises(IntegrityError):
        caches.unpack(tmp_path_factory.mktemp("odd"), LABEL, io.BytesIO(data))
