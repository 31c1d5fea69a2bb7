"""Bring files into place: each is written apart, proven, looked into, and renamed when it is whole."""

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from dsv4_stack.errors import IntegrityError
from dsv4_stack.guest import digests, xet
from dsv4_stack.guest.checkpoint import directory, reuse, tensors
from dsv4_stack.guest.checkpoint.journal import Journal
from dsv4_stack.guest.checkpoint.progress import Progress
from dsv4_stack.guest.checkpoint.reuse import Needed
from dsv4_stack.guest.checkpoint.sources import refuse_offline
from dsv4_stack.guest.checkpoint.steps import PARTIAL, How, Step, made_at, partial_of
from dsv4_stack.guest.checkpoint.wanted import Content, Local, Remote, Wanted
from dsv4_stack.guest.clones import removed_on_failure
from dsv4_stack.guest.digests import Digests
from dsv4_stack.guest.download.crew import fetch_all
from dsv4_stack.guest.download.download import Download
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.download.partial import MARKS, Watch
from dsv4_stack.guest.files import count, make_folder, sync_folder, write_atomically, writing


class _StoppedError(Exception):
    """Another file failed, so this one need not go on."""


class Transfer:
    """Puts proven files into `folder` and writes each into the journal before it is in its place.

    `check` raises where the directory is another run's by now. `fetched` are the files that were to come from this
    machine, and did not.
    """

    def __init__(
        self, folder: Path, journal: Journal, limits: Limits, progress: Progress, check: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._limits = limits
        self._progress = progress
        self._check = check
        self.fetched: set[str] = set()
        self._stop = threading.Event()

    def bring_all(self, steps: Sequence[Step]) -> None:
        """The first failure ends it and is raised. What is in place stays, and so does what came of the others."""
        with self._progress.following({step.file.path: step.file.size for step in steps}):
            left = self._bring_local([step for step in steps if step.how is not How.FETCH])
            self._fetch([*[step.file for step in steps if step.how is How.FETCH], *left])
        self._check()
        clear_partial(self._folder)

    def _bring_local(self, steps: Sequence[Step]) -> list[Wanted]:
        """The files that have to be fetched after all, for what is on this machine is not what it is said to be."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            futures = {pool.submit(self._bring, step): step.file for step in sorted(steps, key=_largest_first)}
            try:
                return [futures[future] for future in as_completed(futures) if not future.result()]
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _bring(self, step: Step) -> bool:
        file, target = step.file, made_at(self._folder, step.file.path)
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
        if isinstance(file.supply, Content):
            write_atomically(target, file.supply.content)
            self._advance(file.path, file.size)
            self._place(file, target, digests.of_bytes(file.supply.content))
            return True
        needed = Needed(name=file.path, size=file.size, sha256=file.sha256, git_sha1=file.git_sha1)
        for candidate in step.candidates:
            found = reuse.take(
                candidate,
                needed,
                target,
                advance=partial(self._advance, file.path),
                reused=partial(self._progress.reuse, file.path),
            )
            if found:
                _look_into(file, target)
                self._place(file, target, found)
                self._forget_partial(file)
                return True
            self._progress.retreat(file.path)
            note = f"{candidate.path} is not what it is said to be, and not used"
            self._progress.say("note", note, path=file.path, candidate=str(candidate.path))
        if isinstance(file.supply, Local):
            raise IntegrityError(
                f"{file.supply.path} is not what its folder's manifest says",
                f"mend it; what is wrong there: dsv4 gate {file.supply.path.parent} --deep",
            )
        self.fetched.add(file.path)
        return False

    def _forget_partial(self, file: Wanted) -> None:
        """What came of it through the network is not needed any more, and the others may need its room."""
        partial = partial_of(self._folder, file.path)
        for left in (partial, partial.with_name(partial.name + MARKS)):
            with writing(left):
                left.unlink(missing_ok=True)

    def _fetch(self, files: Iterable[Wanted]) -> None:
        wanted = {file.path: file for file in files}
        if wanted:
            refuse_offline(f"{count(len(wanted))} to fetch, {next(iter(wanted))} first")
        downloads = [self._download(file) for file in sorted(wanted.values(), key=lambda file: -file.size)]
        fetch_all(
            downloads,
            self._limits,
            self._progress,
            lambda download, found: self._place(wanted[download.path], download.target, found),
        )

    def _download(self, file: Wanted) -> Download:
        assert isinstance(file.supply, Remote)  # noqa: S101 - others are not fetched
        source, remote = file.supply.source, file.supply.file
        target = partial_of(self._folder, file.path)
        return Download(
            path=file.path,
            address=source.address(remote),
            target=target,
            size=file.size,
            sha256=file.sha256,
            git_sha1=file.git_sha1,
            watch=_header_watch(file) if file.is_weights else None,
            otherwise=partial(_by_xet, file) if remote.sha256 else None,
            otherwise_there=xet.there(target, file.size) if remote.sha256 else 0,
        )

    def _advance(self, path: str, count: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        self._progress.advance(path, count)

    def _place(self, file: Wanted, partial: Path, found: Digests) -> None:
        """A proven file that is on the disk goes to where it belongs."""
        self._check()
        target = self._folder / file.path
        with writing(target):
            self._journal.add(file.path, directory.entry_of(file, found.sha256, partial.stat()))
            make_folder(target.parent)
            partial.replace(target)
            sync_folder(target.parent)
        self._progress.finished(file.path, file.size)


def clear_partial(folder: Path) -> None:
    """All is in its place: nothing of what was written apart is of use."""
    with writing(folder / PARTIAL):
        if (folder / PARTIAL).exists():
            shutil.rmtree(folder / PARTIAL)


def _largest_first(step: Step) -> int:
    return -step.file.size


def _header_watch(file: Wanted) -> Watch:
    """Looks at a shard's header as soon as it is there: forty gigabytes later would be late."""

    def watch(available: int, read: Callable[[int, int], bytes]) -> bool:
        if available < min(tensors.LENGTH_BYTES, file.size):
            return False
        length = tensors.header_length(read(0, tensors.LENGTH_BYTES), file.size, file.path)
        if available < tensors.LENGTH_BYTES + length:
            return False
        with tensors.LOOKING:
            tensors.check(read(tensors.LENGTH_BYTES, length), file.size, file.path, file.tensors)
        return True

    return watch


def _look_into(file: Wanted, target: Path) -> None:
    """As the watch does, at a whole file that came in another way; one that is no good does not stay."""
    if file.is_weights:
        with removed_on_failure(target):
            tensors.check_file(target, file.tensors, file.path)


def _by_xet(file: Wanted, target: Path, advance: Callable[[int], None]) -> None:
    assert isinstance(file.supply, Remote)  # noqa: S101 - others are not fetched
    snapshot = file.supply.source.snapshot
    xet.fetch(snapshot.repo, snapshot.revision, file.path, size=file.size, target=target, advance=advance)
    _look_into(file, target)
