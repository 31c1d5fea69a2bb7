"""How far a partial file has come: what a killed run leaves, and what of it counts."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.guest.download import marks
from dsv4_stack.guest.download.marks import Marks

IDENTITY = "a" * 64


def left(path: Path, done: list[int], size: int = 100, segment: int = 40) -> Path:
    made = Marks.fresh(path, IDENTITY, size, segment)
    for number, count in enumerate(done):
        made.note(number, count)
    made.close()
    return path


def resumed(path: Path, identity: str = IDENTITY, size: int = 100, segment: int = 40) -> list[int] | None:
    found = Marks.resumed(path, identity, size, segment)
    if found is None:
        return None
    found.close()
    return found.done


def test_what_a_killed_run_noted_counts(tmp_path: Path) -> None:
    path = left(tmp_path / "m", [40, 7, 0])
    assert marks.written(path, IDENTITY, 100) == 47
    assert resumed(path) == [40, 7, 0]
    assert resumed(path) == [40, 7, 0]


def test_after_a_reboot_only_what_was_flushed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Marks.fresh(tmp_path / "m", IDENTITY, 100, 40)
    made.note(0, 30)
    made.note_flushed(list(made.done))
    made.note(0, 40)
    made.note(1, 5)
    made.close()
    monkeypatch.setattr(marks, "boot_id", lambda: "another")
    assert resumed(tmp_path / "m") == [30, 0, 0]
    assert resumed(tmp_path / "m") == [30, 0, 0]


def test_where_nobody_knows_of_boots_only_what_was_flushed_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "boot_id", lambda: "")
    assert resumed(left(tmp_path / "m", [40, 7])) == [0, 0, 0]


@pytest.mark.parametrize(("identity", "size"), [("b" * 64, 100), (IDENTITY, 99)])
def test_another_file_is_not_gone_on_with(tmp_path: Path, identity: str, size: int) -> None:
    path = left(tmp_path / "m", [40])
    assert marks.written(path, identity, size) == 0
    assert resumed(path, identity, size) is None


@given(content=st.binary(max_size=700))
def test_anything_may_be_in_the_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("marks") / "m"
    path.write_bytes(content)
    assert marks.written(path, IDENTITY, 100) == 0
    assert resumed(path) is None


@given(numbers=st.lists(st.integers(0, 2**64 - 1), max_size=8), segment=st.integers(-3, 200))
def test_numbers_that_cannot_be_are_not_believed(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], segment: int
) -> None:
    path = tmp_path_factory.mktemp("marks") / "m"
    header = {"identity": IDENTITY, "size": 100, "segment": segment, "boot": marks.boot_id()}
    path.write_bytes(json.dumps(header).encode().ljust(511) + b"\n" + struct.pack(f"<{len(numbers)}Q", *numbers))
    found = resumed(path)
    assert found is None or all(0 <= have <= whole for have, whole in zip(found, [40, 40, 20], strict=True))


@given(data=st.data(), size=st.integers(1, 200), before=st.integers(1, 80), after=st.integers(1, 80))
def test_other_segments_count_no_byte_that_was_not_there(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: int, before: int, after: int
) -> None:
    wholes = [min(before, size - start) for start in range(0, size, before)]
    done = [data.draw(st.integers(0, whole)) for whole in wholes]
    there = {number * before + byte for number, have in enumerate(done) for byte in range(have)}
    path = left(tmp_path_factory.mktemp("marks") / "m", done, size, before)
    found = resumed(path, IDENTITY, size, after)
    assert found is not None
    for number, have in enumerate(found):
        start, end = number * after, min(number * after + after, size)
        assert set(range(start, start + have)) <= there
        assert start + have == end or start + have not in there
