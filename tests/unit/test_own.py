"""Folders are given away, and nothing that is somebody else's."""

import os
import stat
from argparse import Namespace
from pathlib import Path

import pytest

from dsv4_stack.errors import UsageError
from dsv4_stack.guest import own

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")

UID = 10001


def owner(path: Path) -> int:
    return path.lstat().st_uid


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    root = tmp_path / "weights"
    for name in ("model.safetensors", "sub/x.json", ".dsv4/manifest.json", ".dsv4/partial/y", ".dsv4/partial/linked"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (tmp_path / "elsewhere").write_text("x")
    (root / ".dsv4/link").symlink_to(tmp_path / "elsewhere")
    (root / "away").symlink_to(tmp_path)
    (root / ".dsv4/partial/linked").unlink()
    os.link(tmp_path / "elsewhere", root / ".dsv4/partial/linked")
    return root


def test_folders_and_records_are_given_weights_and_what_is_linked_are_not(weights: Path, tmp_path: Path) -> None:
    assert own.give(weights, UID, UID, files=False) == 6
    given = {str(path.relative_to(weights)) for path in weights.rglob("*") if owner(path) == UID}
    assert given == {"sub", ".dsv4", ".dsv4/manifest.json", ".dsv4/partial", ".dsv4/partial/y"}
    assert owner(weights) == UID
    assert owner(tmp_path / "elsewhere") == owner(tmp_path) == 0
    assert own.give(weights, UID, UID, files=False) == 0


@pytest.mark.parametrize("files", [False, True])
def test_what_fsck_keeps_for_root_stays_root_s(weights: Path, *, files: bool) -> None:
    (weights / "lost+found/#12").mkdir(parents=True, mode=0o700)
    own.give(weights, UID, UID, files=files)
    assert owner(weights / "lost+found") == owner(weights / "lost+found/#12") == 0


def test_a_tree_is_given_whole_but_for_what_is_linked(weights: Path) -> None:
    own.give(weights, UID, UID, files=True)
    kept = {
        str(path.relative_to(weights)) for path in weights.rglob("*") if owner(path) != UID and not path.is_symlink()
    }
    assert kept == {".dsv4/partial/linked"}


def test_folders_that_are_not_there_are_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = Namespace(
        uid=UID, gid=UID, enter=None, folders=[tmp_path / "a/b"], trees=[tmp_path / "cache", tmp_path / "cache/home"]
    )
    own.run(args)
    assert capsys.readouterr().out == "own: 3 given to 10001:10001\n"
    assert owner(tmp_path / "a/b") == owner(tmp_path / "cache/home") == UID
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o755
    assert owner(tmp_path / "a") == 0


@pytest.mark.parametrize(
    ("mode", "owners", "after"),
    [
        (0o700, (0, 0), 0o705),
        (0o755, (0, 0), 0o755),
        (0o700, (UID, 0), 0o700),
        (0o700, (0, UID), 0o750),
        (0o200, (UID, 0), 0o700),
    ],
)
def test_a_folder_on_the_way_is_opened_as_little_as_will_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, owners: tuple[int, int], after: int
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    os.chown(folder, *owners)
    folder.chmod(mode)
    own.run(Namespace(uid=UID, gid=UID, enter=folder, folders=[], trees=[]))
    assert stat.S_IMODE(folder.stat().st_mode) == after
    assert owner(folder) == owners[0]
    opened = f"own: {folder} may be entered by everybody who comes so far\n" if after != mode else ""
    assert capsys.readouterr().out == f"{opened}own: 0 given to 10001:10001\n"


def test_what_is_laid_over_a_stack_names_its_trees_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge/ca").write_text("x")
    monkeypatch.setenv("DSV4_OWN_EDGE", str(tmp_path / "edge"))
    own.run(Namespace(uid=UID, gid=UID, enter=None, folders=[], trees=[]))
    assert (owner(tmp_path / "edge"), owner(tmp_path / "edge/ca")) == (UID, UID)
    assert capsys.readouterr().out == "own: 2 given to 10001:10001\n"


def test_what_cannot_be_given_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError) as caught:
        own.run(Namespace(uid=UID, gid=UID, enter=None, folders=[tmp_path / "file/x"], trees=[]))
    assert str(caught.value) == (
        f"{tmp_path}/file/x cannot be given to user 10001: Not a directory\n"
        "  next: name a folder on a file system that knows owners: --weights DIR, or $DSV4_WEIGHTS_DIR"
    )
