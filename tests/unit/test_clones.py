"""Sharing and copying files: what becomes of the target, what the source keeps, and what stands in the way."""

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsv4_stack.errors import Dsv4Error, IntegrityError, NoSpaceError, NotFoundError, UsageError
from dsv4_stack.guest import clones, digests
from dsv4_stack.guest.clones import Way
from dsv4_stack.guest.digests import CHUNK, Digests

CONTENT = hashlib.shake_256(b"clones").digest(2 * CHUNK + 12345)
OLD_NS = 1_600_000_000_123_456_789
SHM = Path("/dev/shm")  # noqa: S108 - a mount of its own, if it is there


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "theirs" / "source"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    path.chmod(0o444)
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "ours").mkdir()
    return tmp_path / "ours" / "target"


@pytest.fixture
def no_reflink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", refused(errno.EOPNOTSUPP))


@pytest.fixture
def other_disk() -> Iterator[Path]:
    if not os.access(SHM, os.W_OK):
        pytest.skip(f"no {SHM} to write to")
    with tempfile.TemporaryDirectory(dir=SHM, prefix="dsv4-") as folder:
        yield Path(folder)


@pytest.fixture(params=["btrfs", "xfs"])
def cow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that knows reflinks."""
    mkfs = shutil.which(f"mkfs.{request.param}")
    if os.geteuid() != 0 or not mkfs:
        pytest.skip(f"needs root and mkfs.{request.param}")
    image, folder = tmp_path / "image", tmp_path / "cow"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    folder.mkdir()
    subprocess.run([mkfs, "-q", str(image)], check=True, capture_output=True)
    mount = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=False, capture_output=True)
    if mount.returncode:
        pytest.skip(f"cannot mount {request.param}: {mount.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def refused(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def looks(path: Path) -> tuple[bytes, int, int, int]:
    """Bytes, mtime, mode and owner."""
    there = path.stat()
    return path.read_bytes(), there.st_mtime_ns, there.st_mode, there.st_uid


def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that were fsynced, as it goes on."""
    inodes: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        inodes.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return inodes


@pytest.mark.usefixtures("no_reflink")
def test_a_hard_link_is_the_same_file(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, inodes = looks(source), synced(monkeypatch)
    assert clones.share(source, target) is Way.HARD_LINK
    assert source.samefile(target)
    assert inodes == [source.stat().st_ino]
    assert (looks(source), source.stat().st_nlink) == (before, 2)
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.usefixtures("no_reflink")
def test_a_link_leads_to_the_file_that_is_shared(source: Path, target: Path) -> None:
    link, second = source.with_name("link"), source.with_name("second")
    link.symlink_to("source")
    second.symlink_to(link)
    assert clones.share(second, target) is Way.HARD_LINK
    assert not target.is_symlink()
    assert target.samefile(source)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSPC])
@pytest.mark.usefixtures("no_reflink")
def test_what_cannot_be_linked_is_not_shared(
    source: Path, target: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = looks(source)
    monkeypatch.setattr(os, "link", refused(code))
    assert clones.share(source, target) is None
    assert list(target.parent.iterdir()) == []
    assert looks(source) == before


@pytest.mark.usefixtures("no_reflink")
def test_a_link_to_another_file_than_was_opened_is_taken_back(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = source.with_name("other")
    other.write_bytes(b"other")
    real = os.link

    def link(_source: Path, made: Path, **_: object) -> None:
        real(other, made)

    monkeypatch.setattr(os, "link", link)
    assert clones.share(source, target) is None
    assert list(target.parent.iterdir()) == []
    assert other.stat().st_nlink == 1


@pytest.mark.parametrize(
    ("mode", "way"), [(0o444, Way.HARD_LINK), (0o664, Way.HARD_LINK), (0o646, None), (0o400, None)]
)
@pytest.mark.usefixtures("no_reflink")
def test_a_mode_that_others_may_write_or_too_few_may_read_is_not_linked(
    source: Path, target: Path, mode: int, way: Way | None
) -> None:
    source.chmod(mode)
    umask = os.umask(0o022)
    try:
        assert clones.share(source, target) is way
    finally:
        os.umask(umask)
    assert source.stat().st_mode & 0o777 == mode


@pytest.mark.usefixtures("no_reflink")
def test_what_is_closed_to_others_is_linked_where_ours_is_too(source: Path, target: Path) -> None:
    source.chmod(0o600)
    umask = os.umask(0o077)
    try:
        assert clones.share(source, target) is Way.HARD_LINK
    finally:
        os.umask(umask)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.usefixtures("no_reflink")
def test_a_file_of_another_user_is_not_linked(source: Path, target: Path) -> None:
    os.chown(source, 12345, 12345)
    assert clones.share(source, target) is None
    assert list(target.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("mode", "way"), [(0o444, Way.HARD_LINK), (0o440, None)], ids=str)
@pytest.mark.usefixtures("no_reflink")
def test_a_file_of_another_group_is_linked_where_everybody_may_read_it(
    source: Path, target: Path, mode: int, way: Way | None
) -> None:
    os.chown(source, -1, 12345)
    source.chmod(mode)
    umask = os.umask(0o027)
    try:
        assert clones.share(source, target) is way
    finally:
        os.umask(umask)


def test_a_link_that_takes_the_file_s_place_is_not_followed(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = source.with_name("link")
    link.symlink_to(source)
    monkeypatch.setattr(os.path, "realpath", lambda path, **_: path)
    with pytest.raises(Dsv4Error) as raised:
        clones.share(link, target)
    assert raised.value.message == f"{link} cannot be read: Too many levels of symbolic links"
    assert list(target.parent.iterdir()) == []


def test_a_reflink_is_asked_of_the_target_about_the_source(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, inodes = [], synced(monkeypatch)

    def ficlone(made: int, request: int, origin: int) -> int:
        asked.append((os.fstat(made).st_ino, request, os.fstat(origin).st_ino))
        return os.write(made, os.pread(origin, len(CONTENT), 0))

    monkeypatch.setattr(fcntl, "ioctl", ficlone)
    before = looks(source)
    assert clones.share(source, target) is Way.REFLINK
    inode = target.stat().st_ino
    assert asked == [(inode, 0x40049409, source.stat().st_ino)]
    assert inodes == [inode]
    assert (target.read_bytes(), target.stat().st_nlink, looks(source)) == (CONTENT, 1, before)
    assert target.stat().st_mtime_ns != OLD_NS


def test_a_real_reflink_is_another_file_of_the_same_blocks(cow: Path) -> None:
    source, target = cow / "source", cow / "target"
    source.write_bytes(CONTENT)
    os.utime(source, ns=(OLD_NS, OLD_NS))
    os.sync()
    before, free = looks(source), shutil.disk_usage(cow).free
    assert clones.share(source, target) is Way.REFLINK
    assert free - shutil.disk_usage(cow).free < len(CONTENT) // 4
    assert (target.read_bytes(), looks(source)) == (CONTENT, before)
    assert not source.samefile(target)
    assert target.stat().st_mtime_ns != OLD_NS
    source.write_bytes(b"other")
    assert target.read_bytes() == CONTENT


def test_a_failed_sync_leaves_no_target(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refused(errno.EIO))
    with pytest.raises(Dsv4Error) as raised:
        clones.share(source, target)
    assert raised.value.message == f"{target} cannot be written: Input/output error"
    assert list(target.parent.iterdir()) == []
    assert source.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "bring", [clones.share, lambda source, target: clones.copy(source, target, advance=digests.ignore)]
)
class TestRefusals:
    """The same of a share and of a copy."""

    def test_a_target_that_is_there_stays(
        self, bring: Callable[[Path, Path], object], source: Path, target: Path
    ) -> None:
        target.write_bytes(b"mine")
        with pytest.raises(UsageError) as raised:
            bring(source, target)
        assert raised.value.message == f"{target} cannot be written: File exists"
        assert target.read_bytes() == b"mine"

    @pytest.mark.parametrize("lead_to", [None, "nowhere"])
    def test_a_source_that_is_not_there(
        self, bring: Callable[[Path, Path], object], tmp_path: Path, target: Path, lead_to: str | None
    ) -> None:
        source = tmp_path / "source"
        if lead_to:
            source.symlink_to(lead_to)
        with pytest.raises(NotFoundError) as raised:
            bring(source, target)
        assert raised.value.message == f"there is no {source}"
        assert list(target.parent.iterdir()) == []

    def test_links_in_a_circle(self, bring: Callable[[Path, Path], object], tmp_path: Path, target: Path) -> None:
        source = tmp_path / "source"
        source.symlink_to("source")
        with pytest.raises(Dsv4Error) as raised:
            bring(source, target)
        assert raised.value.message == f"{source} cannot be read: Too many levels of symbolic links"


def test_a_pipe_is_not_shared(tmp_path: Path, target: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert clones.share(tmp_path / "pipe", target) is None
    assert list(target.parent.iterdir()) == []


def test_another_disk_is_not_shared_but_copied(source: Path, other_disk: Path) -> None:
    if other_disk.stat().st_dev == source.stat().st_dev:
        pytest.skip(f"{SHM} is on the same disk")
    assert not clones.is_near(source, other_disk)
    assert clones.share(source, other_disk / "target") is None
    clones.copy(source, other_disk / "target", advance=digests.ignore)
    assert (other_disk / "target").read_bytes() == CONTENT


def test_near_is_what_is_on_one_mount(source: Path, tmp_path: Path) -> None:
    assert clones.is_near(source, tmp_path)
    assert not clones.is_near(source, Path("/proc"))
    assert not clones.is_near(tmp_path / "nothing", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_bind_mount_of_the_same_disk_is_not_near(source: Path, tmp_path: Path) -> None:
    bound = tmp_path / "bound"
    bound.mkdir()
    done = subprocess.run(["mount", "--bind", str(source.parent), str(bound)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    try:
        assert (bound / "source").samefile(source)
        assert not clones.is_near(bound / "source", tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", str(bound)], check=True)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=len)
@pytest.mark.parametrize("git", [False, True])
def test_a_copy_is_hashed_on_the_way_and_synced(
    source: Path, target: Path, content: bytes, *, git: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.chmod(0o644)
    source.write_bytes(content)
    os.utime(source, ns=(OLD_NS, OLD_NS))
    before, inodes = looks(source), synced(monkeypatch)
    advanced: list[int] = []
    found = clones.copy(source, target, advance=advanced.append, git=git)
    whole = digests.of_bytes(content)
    assert found == Digests(size=len(content), sha256=whole.sha256, git_sha1=whole.git_sha1 if git else "")
    assert (target.read_bytes(), sum(advanced), looks(source)) == (content, len(content), before)
    assert inodes == [target.stat().st_ino]
    assert not source.samefile(target)


@pytest.mark.parametrize("change", [b"longer", b""], ids=["grown", "cut"])
def test_a_source_that_changes_its_size_is_refused(source: Path, target: Path, change: bytes) -> None:
    source.chmod(0o644)

    def advance(_: int) -> None:
        if change:
            with source.open("ab") as file:
                file.write(change)
        else:
            os.truncate(source, CHUNK)

    with pytest.raises(IntegrityError) as raised:
        clones.copy(source, target, advance=advance)
    assert raised.value.message == f"{source} changed while it was copied"
    assert list(target.parent.iterdir()) == []


def test_a_source_that_is_written_in_place_is_refused(source: Path, target: Path) -> None:
    with pytest.raises(IntegrityError) as raised:
        clones.copy(source, target, advance=lambda _: os.utime(source, ns=(OLD_NS, OLD_NS + 1)))
    assert raised.value.message == f"{source} changed while it was copied"
    assert list(target.parent.iterdir()) == []


def test_a_copy_that_is_stopped_leaves_nothing(source: Path, target: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clones.copy(source, target, advance=stop)
    assert list(target.parent.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_no_space(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def opened(path: Path, mode: str = "r", *args: object, **options: object) -> object:
        if path == target:
            target.touch()
            return real(Path("/dev/full"), "wb")
        return real(path, mode, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(NoSpaceError) as raised:
        clones.copy(source, target, advance=digests.ignore)
    assert raised.value.message == f"{target}: No space left on device"
    assert list(target.parent.iterdir()) == []


def test_a_disk_that_cannot_be_read(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "readv", refused(errno.EIO))
    with pytest.raises(Dsv4Error) as raised:
        clones.copy(source, target, advance=digests.ignore)
    assert raised.value.message == f"{source} cannot be read: Input/output error"
    assert list(target.parent.iterdir()) == []
