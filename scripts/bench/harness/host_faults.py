"""Faults of the machine: names that do not resolve, hosts that are gone, disks that are full or closed."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from harness import disk
from harness.contenders import hooked
from harness.processes import Process
from harness.resume import wait_for
from harness.scenarios import LIMIT_S, Scenario, SkippedError
from harness.stage import Stage

_NETWORK: Final = frozenset({8})
_NO_SPACE: Final = frozenset({7})
_CLOSED: Final = frozenset({2})
_ROOM: Final = 2 << 30
_NOBODY: Final = 65534
# The rights by which root may write where the permission bits say no.
_WITHOUT_RIGHTS: Final = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all")


def all_of_them() -> list[Scenario]:
    return [
        Scenario(name="a host name that does not resolve", exits=_NETWORK, fault=_unknown_host),
        Scenario(name="a black hole: connections are never accepted", exits=_NETWORK, fault=_black_hole),
        Scenario(name="the disk is too small", exits=_NO_SPACE, fault=_small_disk),
        Scenario(
            name="the disk fills up at 30 %", exits=frozenset({0}), fault=_disk_that_fills, during=_fill_at_a_third
        ),
        Scenario(
            name="the disk fills up at 30 %, and no room could be claimed",
            exits=_NO_SPACE,
            fault=_disk_that_fills_unclaimed,
            during=_fill_at_a_third,
        ),
        Scenario(name="the volume is read-only", exits=_CLOSED, fault=_read_only),
        Scenario(name="no permission to write", exits=_CLOSED, fault=_forbidden),
    ]


@contextmanager
def _unknown_host(stage: Stage) -> Iterator[None]:
    right, stage.endpoint = stage.endpoint, "http://hub.invalid"
    yield
    stage.endpoint = right


@contextmanager
def _black_hole(stage: Stage) -> Iterator[None]:
    """A listener whose queue is full: the kernel drops every further SYN."""
    right = stage.endpoint
    with ExitStack() as closing:
        listener = closing.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = closing.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        stage.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield
    stage.endpoint = right


@contextmanager
def _small_disk(stage: Stage) -> Iterator[None]:
    volume = _mounted(stage, int(0.6 * stage.wanted.size))
    yield
    _remount(volume, f"size={_ROOM}")


@contextmanager
def _disk_that_fills(stage: Stage) -> Iterator[None]:
    volume = _mounted(stage, 2 * stage.wanted.size)
    yield
    (volume / "filler").unlink()


@contextmanager
def _disk_that_fills_unclaimed(stage: Stage) -> Iterator[None]:
    """As NFS before 4.2 is: what is written last finds out."""
    with _disk_that_fills(stage):
        stage.env = hooked("no-fallocate")
        yield
        stage.env = {}


def _fill_at_a_third(stage: Stage, process: Process) -> str:
    """Take all the room that is left as soon as 30 % are written."""
    wait_for(process, stage.hub, 0.3 * stage.wanted.size)
    _fill(stage.dest.parent / "filler")
    process.end(LIMIT_S)
    return "" if disk.written(stage.dest) < stage.wanted.size else "it had claimed its room before"


def _fill(path: Path) -> None:
    """Take what is free, in ever smaller pieces, as others write at the same time."""
    taken, piece = 0, 64 << 20
    with path.open("wb") as filler:
        while piece >= os.sysconf("SC_PAGE_SIZE"):
            try:
                os.posix_fallocate(filler.fileno(), taken, piece)
                taken += piece
            except OSError:  # ENOSPC
                piece //= 2


@contextmanager
def _read_only(stage: Stage) -> Iterator[None]:
    volume = _mounted(stage, _ROOM)
    _remount(volume, "ro")
    yield
    _remount(volume, "rw")


@contextmanager
def _forbidden(stage: Stage) -> Iterator[None]:
    """A folder of another user's; root runs without the right to write there all the same."""
    parent = stage.folder / "closed"
    parent.mkdir(mode=0o555)
    stage.dest = parent / "dest"
    if os.geteuid() == 0:
        if not shutil.which(_WITHOUT_RIGHTS[0]):
            raise SkippedError("as root, without setpriv")
        os.chown(parent, _NOBODY, _NOBODY)
        stage.prefix = _WITHOUT_RIGHTS
    yield
    stage.prefix = ()
    parent.chmod(0o755)


def _mounted(stage: Stage, size: int) -> Path:
    """A tmpfs of `size` bytes that holds the destination, until the stage closes. Raises SkippedError."""
    volume = stage.folder / "volume"
    volume.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(volume))
    except (OSError, subprocess.CalledProcessError) as error:
        raise SkippedError(f"a tmpfs cannot be mounted here: {error}") from None
    stage.closing.callback(subprocess.run, ["umount", str(volume)], check=True)
    stage.dest = volume / "dest"
    return volume


def _remount(volume: Path, option: str) -> None:
    _mount("-o", f"remount,{option}", str(volume))


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)
