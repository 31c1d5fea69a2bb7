"""Room on the disk is claimed before it is needed, or found to be missing before the first byte."""

import ctypes
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4_stack.errors import NoSpaceError
from dsv4_stack.guest.download import space
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.download.partial import Partial
from dsv4_stack.guest.files import writing

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    handle = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    yield handle
    os.close(handle)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def refusing(monkeypatch: pytest.MonkeyPatch, *codes: int) -> list[int]:
    """The C library's fallocate fails with each of these in turn, then no more; the sizes that it was asked for."""
    asked: list[int] = []
    left = list(codes)

    def fallocate(_file: int, _mode: int, offset: int, size: int) -> int:
        asked.append(offset + size)
        if left:
            ctypes.set_errno(left.pop(0))
            return -1
        return 0

    monkeypatch.setattr(space, "_fallocate", lambda: fallocate)
    return asked


def test_what_is_claimed_is_allocated_and_reads_as_nothing(file: int) -> None:
    assert space.claim(file, 3 * MIB) is True
    found = os.fstat(file)
    assert found.st_size == 3 * MIB
    assert found.st_blocks * 512 >= 3 * MIB
    assert os.pread(file, 10, 2 * MIB) == bytes(10)


def test_what_is_there_stays_as_it_is(file: int) -> None:
    os.pwrite(file, b"there", 100)
    assert space.claim(file, MIB) is True
    assert space.claim(file, MIB) is True
    assert os.pread(file, 5, 100) == b"there"
    assert os.fstat(file).st_size == MIB


def test_nothing_needs_no_room(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = refusing(monkeypatch, errno.ENOSPC)
    assert space.claim(file, 0) is False
    monkeypatch.setattr(space.sys, "platform", "darwin")
    assert space.claim(file, MIB) is False
    assert asked == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_a_file_system_that_cannot_is_left_to_writing(file: int, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert refusing(monkeypatch, code) == []
    assert space.claim(file, MIB) is False


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_what_the_disk_refuses_is_raised(file: int, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    refusing(monkeypatch, code)
    with pytest.raises(OSError, match=r".") as caught:
        space.claim(file, MIB)
    assert (caught.value.errno, caught.value.strerror) == (code, os.strerror(code))


def test_a_signal_is_no_refusal(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = refusing(monkeypatch, errno.EINTR, errno.EINTR)
    assert space.claim(file, MIB) is True
    assert asked == [MIB] * 3


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(small: Path) -> None:
    path = small / "f"
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(NoSpaceError) as caught, writing(path):
            space.claim(handle, 2 * MIB)
    finally:
        os.close(handle)
    assert str(caught.value) == f"{path}: No space left on device\n  next: make room there; see: df -h {small}"
    file = Partial(path, "a" * 64, 2 * MIB, by_git=False, limits=Limits(), watch=None)
    with pytest.raises(NoSpaceError):
        file.claim()
    file.remove()
    # Nothing was taken for good: what fits still does.
    file = Partial(path, "a" * 64, MIB // 2, by_git=False, limits=Limits(), watch=None)
    file.claim()
    assert file.missing == MIB // 2
    file.remove()
    assert list(small.iterdir()) == []
