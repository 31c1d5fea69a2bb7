"""One run at a time works on a directory, also where hosts share it: the others wait, and say for whom.

A run writes a claim, and rewrites it every few seconds. A claim is dead when the kernel says so, or when it has not
changed for a while. The kernel is believed only about the very folder that its process had locked: elsewhere, or seen
through another mount, a lock that is free means nothing (`local_lock` of
https://man7.org/linux/man-pages/man5/nfs.5.html). No two hosts' clocks are ever compared.
"""

import fcntl
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from dsv4_stack.errors import Dsv4Error
from dsv4_stack.guest.checkpoint import claims
from dsv4_stack.guest.checkpoint.claims import Claim, Link
from dsv4_stack.guest.checkpoint.manifest import STATE
from dsv4_stack.guest.checkpoint.notices import Notices
from dsv4_stack.guest.checkpoint.progress import Progress
from dsv4_stack.guest.download.marks import boot_id
from dsv4_stack.guest.files import reading, writing


@dataclass(frozen=True, kw_only=True)
class Timing:
    """In seconds: how often a run shows that it lives, how long none may be silent, how often those who wait look."""

    beat_s: float = 5.0
    dead_s: float = 30.0
    poll_s: float = 0.5


DEFAULT: Final = Timing()


class Lease:
    """The right to work on `folder`.

    A process that is suspended for long loses it and cannot know: nothing that every file system has would stop its
    next write. So `check` before what must not befall another run, as the manifest. What a run without its lease still
    does before its next check is to put proven files in place; they are found touched then, and proven again.
    """

    def __init__(self, folder: Path, path: Path, claim: Claim, file: int, lock: int) -> None:
        self._folder = folder
        self._path = path
        self._claim = claim
        self._file = file
        self._lock = lock
        self._over = threading.Event()
        self._beating: threading.Thread | None = None

    def is_held(self) -> bool:
        """Raises Dsv4Error where that cannot be read."""
        return self._is_last(_chain(self._folder / STATE))

    def check(self) -> None:
        """Raise Dsv4Error when another run has taken the directory over. Looks at the disk, each time."""
        links = _chain(self._folder / STATE)
        if self._is_last(links):
            return
        whom = links[-1].claim or "another run" if links else "a run that has ended"
        raise Dsv4Error(
            f"{self._folder} is no longer this run's: it was silent for too long, and was taken over by {whom}",
            "run it again: it waits for others, and goes on where they stopped",
        )

    def begin(self, beat_s: float) -> None:
        """Show signs of life from now on, and be the only claim. Raises as `writing` does."""
        self._beating = threading.Thread(target=self._beat, args=(beat_s,), name="lease", daemon=True)
        self._beating.start()
        with writing(self._path):
            self._path = claims.settle(self._path, self._claim)

    def end(self) -> None:
        """Let the next one work. A claim that cannot be taken away will be found dead."""
        self._over.set()
        if self._beating:
            self._beating.join()
        # Before its file is removed: an NFS client would leave another in its place until this one is closed.
        os.close(self._file)
        try:
            with suppress(OSError, Dsv4Error):
                self._withdraw()
        finally:
            os.close(self._lock)

    def _withdraw(self) -> None:
        links = _chain(self._folder / STATE)
        if self._is_last(links):
            # The first one first: nothing follows from a claim that is not there.
            for link in links:
                link.path.unlink(missing_ok=True)
        elif self._path.name != claims.FIRST:
            self._path.unlink(missing_ok=True)

    def _is_last(self, links: list[Link]) -> bool:
        last = links[-1].claim if links else None
        return last is not None and last.nonce == self._claim.nonce

    def _beat(self, beat_s: float) -> None:
        for beat in itertools.count(1):
            if self._over.wait(beat_s):
                return
            # A file system that fails for a moment ends no run; where it takes too long, `check` tells.
            with suppress(OSError):
                claims.write(self._file, self._claim, beat=beat)


@contextmanager
def held(folder: Path, progress: Progress, *, timing: Timing = DEFAULT) -> Iterator[Lease]:
    """Make the folder, and work on it alone: a second run waits. What stays empty is taken away again.

    Raises as `writing` and `reading` do.
    """
    applicant = _Applicant(folder, progress, timing)
    try:
        lease = applicant.wait()
        try:
            yield lease
        finally:
            lease.end()
    finally:
        if applicant.made_folder:
            with suppress(OSError):
                (folder / STATE).rmdir()
                folder.rmdir()


class _Applicant:
    """Looks again and again whether it may work on `folder`."""

    def __init__(self, folder: Path, progress: Progress, timing: Timing) -> None:
        self.made_folder = False
        self._folder = folder
        self._state = folder / STATE
        self._notices = Notices(folder, progress)
        self._timing = timing
        self._seen: Link | None = None
        self._seen_at = 0.0

    def wait(self) -> Lease:
        while not (lease := self._look()):
            sleep(self._timing.poll_s)
        return lease

    def _look(self) -> Lease | None:
        with self._open_state() as lock:
            return self._apply(lock)

    @contextmanager
    def _open_state(self) -> Iterator[int]:
        with writing(self._state):
            try:
                handle = self._make_state()
            except FileNotFoundError:
                # A run that had made the folder, and ended with nothing, took it away at this very moment.
                handle = self._make_state()
        try:
            yield handle
        finally:
            os.close(handle)

    def _make_state(self) -> int:
        self.made_folder |= not self._folder.exists()
        self._state.mkdir(parents=True, exist_ok=True)
        return os.open(self._state, os.O_RDONLY | os.O_DIRECTORY)

    def _apply(self, lock: int) -> Lease | None:
        # The time before the look: who is suspended between the two must not think that the other was silent.
        now = monotonic()
        flock = _flock(lock)
        links = _chain(self._state)
        last = links[-1] if links else None
        death = self._death(last, flock, now)
        if last != self._seen:
            self._seen, self._seen_at = last, monotonic()
        if flock is None or (last and not death):
            self._notices.waits_for(last.claim if last else None)
            return None
        return self._take(last, death, flock, lock)

    def _death(self, last: Link | None, flock: str | None, now: float) -> str:
        """Why the claim does not count any more, or nothing."""
        if flock is None or not last:
            return ""
        if flock and last.claim and last.claim.flock == flock:
            return "its process has ended"
        if last == self._seen and now - self._seen_at >= self._timing.dead_s:
            return f"no sign of life for {self._timing.dead_s:g} s"
        return ""

    def _take(self, last: Link | None, death: str, flock: str, lock: int) -> Lease | None:
        path = last.heir if last else self._state / claims.FIRST
        claim = claims.mine(flock)
        with writing(path):
            file = claims.create(path, claim)
        if file is None:
            return None
        lease = Lease(self._folder, path, claim, file, os.dup(lock))
        try:
            # Who took a claim for the last one may have been late: it is one without effect then.
            if is_held := lease.is_held():
                lease.begin(self._timing.beat_s)
        except BaseException:
            lease.end()
            raise
        if not is_held:
            lease.end()
            return None
        if last:
            self._notices.takes_over(last.claim, death)
        return lease


def _chain(state: Path) -> list[Link]:
    with reading(state):
        return claims.chain(state)


def _flock(folder: int) -> str | None:
    """Lock an open folder. A name of this lock, "" where there is none to compare, None where another process has it.

    The kernel's folder is in the name, for the same files may be there twice: a second mount has locks of its own.
    """
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return ""
    status, boot = os.fstat(folder), boot_id()
    return f"{boot} {status.st_dev}:{status.st_ino}" if boot else ""
