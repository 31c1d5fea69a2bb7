"""The journal of an unfinished run, and files that are whole or not there."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.guest import files
from dsv4_stack.guest.checkpoint import journal
from dsv4_stack.guest.checkpoint.journal import Journal
from dsv4_stack.guest.checkpoint.manifest import Entry, Origin

ENTRIES = {
    f"{name}.json": Entry(size=number, sha256=str(number) * 64, mtime_ns=number, origin=Origin.BASE)
    for number, name in enumerate("abcd")
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".dsv4").mkdir()
    (tmp_path / ".dsv4" / "manifest.json").write_bytes(b"{}")
    return tmp_path


def test_a_journal_replaces_the_manifest_and_grows(folder: Path) -> None:
    opened = Journal(folder, {"a.json": ENTRIES["a.json"]})
    assert [path.name for path in (folder / ".dsv4").iterdir()] == ["journal.jsonl"]
    opened.add("b.json", ENTRIES["b.json"])
    opened.add("a.json", ENTRIES["d.json"])
    expected = {"a.json": ENTRIES["d.json"], "b.json": ENTRIES["b.json"]}
    assert (journal.read(folder), opened.entries) == (expected, expected)
    journal.forget(folder)
    assert list((folder / ".dsv4").iterdir()) == []
    assert journal.read(folder) == {}


@given(st.integers(0, 600), st.binary(max_size=20))
def test_a_torn_journal_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "torn"
    (folder / ".dsv4").mkdir(parents=True, exist_ok=True)
    Journal(folder, ENTRIES)
    path = folder / ".dsv4" / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + garbage.replace(b"\n", b""))
    lines = whole[:cut].count(b"\n")
    left = journal.read(folder)
    assert list(left.items())[:lines] == list(ENTRIES.items())[:lines]
    assert len(left) <= lines + 1


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (170_724_407_214, "159.0 GiB")],
)
def test_amounts(size: int, text: str) -> None:
    assert files.amount(size) == text


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"old")

    def fail(_handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
