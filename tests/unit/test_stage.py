"""All or none: what is staged is in place when the block ends, and after a failure or a kill the old is as it was."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_stack.errors import Dsv4Error
from dsv4_stack.guest import stage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    fill(root, {"both/a": "old", "both/mine": "old", "plain": "old", "turns/file": "old"})
    return root


NEW = {"both/a": "new", "both/b": "new", "fresh/deep/c": "new", "plain/inner": "new", "turns": "new"}
MERGED = NEW | {"both/mine": "old"}
# As `place`, and ends without a word before its n-th rename.
KILLED = """
import json, os, sys
from pathlib import Path
from dsv4_stack.guest import stage

left, real = int(sys.argv[2]), Path.rename

def rename(path, target):
    global left
    left -= 1
    return real(path, target) if left else os._exit(9)

Path.rename = rename
with stage.staged(Path(sys.argv[1])) as new:
    for name, text in json.loads(sys.argv[3]).items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_text(text)
"""


def fill(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def held(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


def place(folder: Path) -> None:
    with stage.staged(folder) as new:
        fill(new, NEW)


def failing_at(renames: int, error: BaseException) -> Callable[[Path, Path], Path]:
    """`Path.rename` that fails once, after so many."""
    done, real = [0], Path.rename

    def rename(path: Path, target: Path) -> Path:
        done[0] += 1
        if done[0] == renames:
            raise error
        return real(path, target)

    return rename


def test_what_is_new_lies_over_what_is_old(folder: Path) -> None:
    place(folder)
    assert held(folder) == MERGED


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    place(tmp_path / "nowhere")
    assert held(tmp_path / "nowhere") == NEW


def test_nothing_is_in_place_before_the_end_nor_after_a_failure(folder: Path) -> None:
    before = held(folder)

    def fail() -> None:
        with stage.staged(folder) as new:
            fill(new, NEW)
            assert before.items() < held(folder).items()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert held(folder) == before


@pytest.mark.parametrize("renames", range(1, 10))
def test_renames_that_went_well_are_undone_when_one_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    before = held(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing_at(renames, OSError(5, "Input/output error")))
        with pytest.raises(Dsv4Error, match="Input/output error"):
            place(folder)
    assert held(folder) == before


@pytest.mark.parametrize("renames", range(1, 10))
def test_a_kill_is_mended_by_the_next_one(folder: Path, renames: int) -> None:
    """Even amid the renames: what was replaced comes back, also where the next one fails."""
    before = held(folder)
    command = [sys.executable, "-c", KILLED, str(folder), str(renames), json.dumps(NEW)]
    assert subprocess.run(command, check=False).returncode == 9
    assert (folder / stage.NAME).exists()
    with pytest.raises(RuntimeError), stage.staged(folder):
        raise RuntimeError
    assert before.items() <= held(folder).items()
    assert not (folder / stage.NAME).exists()
    place(folder)
    assert held(folder) == MERGED
