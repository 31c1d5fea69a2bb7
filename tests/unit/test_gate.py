"""The gate: everything that is not as in the manifest is named, all at once, without reading a shard."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from helpers.hub import dsv4
from helpers.opens import record_opens

from dsv4_stack.errors import IntegrityError
from dsv4_stack.guest import gate
from dsv4_stack.guest.checkpoint import manifest
from dsv4_stack.guest.checkpoint.manifest import CheckedAgainst, ConfigKind, Entry, HubRecord, Manifest, Origin

REPAIR = "run the same dsv4 materialize again, it fetches what is wrong; a foreign file has to be moved away first"
COMMIT = "c" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of four files with its manifest."""
    folder = tmp_path / "weights"
    (folder / "sub").mkdir(parents=True)
    (folder / ".dsv4").mkdir()
    files = {}
    for path in ("a.safetensors", "b.safetensors", "config.json", "sub/vocab.json"):
        (folder / path).write_bytes(path.encode() * 100)
        stat = (folder / path).stat()
        sha256 = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        files[path] = Entry(size=stat.st_size, sha256=sha256, mtime_ns=stat.st_mtime_ns, origin=Origin.BASE)
    base = HubRecord(repo="org/name", requested="main", revision=COMMIT)
    store = Manifest(
        tool="test",
        base=base,
        overlay=None,
        config=ConfigKind.CONVERT,
        conversion="w4a8",
        checked_against=CheckedAgainst.HUB,
        files=files,
    )
    manifest.store(folder, store)
    return folder


def flip(path: Path, *, keep_mtime: bool) -> str:
    """Change a byte, not the size; returns the new sha256."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    mtime_ns = stat.st_mtime_ns if keep_mtime else stat.st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(stat.st_atime_ns, mtime_ns))
    return hashlib.sha256(content).hexdigest()


def test_a_good_directory_passes_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "gate: 4 files, 5.0 KiB, as in the manifest (w4a8 from org/name@cccccccccccc…)\n"
    assert dsv4("gate", str(folder)) == 0
    assert dsv4("gate", "--deep", str(folder)) == 0
    assert capsys.readouterr() == (line * 2, "")


@pytest.mark.parametrize("deep", [False, True])
def test_json_is_one_object_of_what_was_checked(
    folder: Path, capsys: pytest.CaptureFixture[str], *, deep: bool
) -> None:
    assert dsv4("gate", str(folder), "--json", *["--deep"] * deep) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out), out.count("\n"), err) == (
        {
            "directory": str(folder),
            "deep": deep,
            "files": 4,
            "bytes": 5100,
            "manifest": {
                "tool": "test",
                "base": {"repo": "org/name", "requested": "main", "revision": COMMIT},
                "overlay": None,
                "config": "convert",
                "conversion": "w4a8",
                "checked_against": "hub",
                "allow": [],
                "examined_for": "",
            },
        },
        1,
        "",
    )


def test_with_json_too_the_problems_are_the_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.safetensors").unlink()
    assert dsv4("gate", str(folder), "--json") == 6
    assert capsys.readouterr() == (
        "",
        f"error: {folder} is not as its manifest says:\n  a.safetensors: missing\n  next: {REPAIR}\n",
    )


def test_everything_wrong_is_named_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.safetensors").unlink()
    with (folder / "b.safetensors").open("ab") as file:
        file.write(b"x")
    flip(folder / "config.json", keep_mtime=False)
    (folder / "sub" / "vocab.json").rename(folder / "elsewhere.json")
    (folder / "sub" / "vocab.json").symlink_to("../elsewhere.json")
    expected = (
        f"error: {folder} is not as its manifest says:\n"
        "  a.safetensors: missing\n"
        "  b.safetensors: has 1301 bytes, the manifest says 1300\n"
        "  config.json: touched since it was proven\n"
        "  elsewhere.json: foreign, the manifest does not know it\n"
        "  sub/vocab.json: no regular file\n"
        f"  next: {REPAIR}\n"
    )
    assert dsv4("gate", str(folder)) == 6
    assert capsys.readouterr() == ("", expected)


def test_only_the_deep_gate_sees_a_flipped_byte(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = manifest.load(folder).files["a.safetensors"].sha256
    after = flip(folder / "a.safetensors", keep_mtime=True)
    assert dsv4("gate", str(folder)) == 0
    capsys.readouterr()
    assert dsv4("gate", "--deep", str(folder)) == 6
    assert capsys.readouterr().err == (
        f"error: {folder} is not as its manifest says:\n"
        f"  a.safetensors: sha256 is {after}, the manifest says {before}\n"
        f"  next: {REPAIR}\n"
    )


def test_the_deep_gate_believes_bytes_not_mtimes(folder: Path) -> None:
    os.utime(folder / "a.safetensors")
    with pytest.raises(IntegrityError):
        gate.check_fast(folder)
    assert dsv4("gate", "--deep", str(folder)) == 0


def test_no_directory_and_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dsv4("gate", str(tmp_path / "no")) == 4
    assert dsv4("gate", str(tmp_path)) == 4
    assert capsys.readouterr().err == (
        f"error: there is no folder {tmp_path}/no\n  next: run: dsv4 materialize\n"
        f"error: {tmp_path} has no manifest, so it is not materialized\n"
        "  next: run: dsv4 materialize, which writes it\n"
    )


def test_the_fast_gate_opens_the_manifest_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = record_opens(monkeypatch)
    assert len(gate.check_fast(folder).files) == 4
    assert opened == [str(folder / ".dsv4" / "manifest.json")]


def test_hashing_stops_when_it_is_told_to(folder: Path) -> None:
    """A shard of fifty gigabytes takes half a minute, and whoever stops a container waits for ten seconds."""

    def interrupt(_path: str, _count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gate.problems(folder, manifest.load(folder), deep=True, hashed=interrupt)
