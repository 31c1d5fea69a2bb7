"""Fetches files over as many connections as it takes, spread over the files that are not whole yet."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from dsv4_stack.errors import Dsv4Error, IntegrityError, NetworkError, NotAllowedError, NotFoundError
from dsv4_stack.guest import http
from dsv4_stack.guest.digests import Digests
from dsv4_stack.guest.download.courier import Courier, PlainRefusedError
from dsv4_stack.guest.download.download import Download, Listener
from dsv4_stack.guest.download.job import Job, open_job
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.download.partial import Partial, Piece, SupersededError
from dsv4_stack.guest.files import amount

Done = Callable[[Download, Digests], None]

_BROKEN_ON_THE_WAY: Final = "run it again; if it stays, the server or a proxy on the way is broken"
_GO_ON: Final = "what came is kept; check the network, then run it again: it goes on where it stopped"
_FLUSH_EVERY_S: Final = 0.5
_LOOK_EVERY_S: Final = 0.1
_END_S: Final = 2.0


class _StoppedError(Exception):
    """The run has ended, so this file need not go on."""


def fetch_all(downloads: Sequence[Download], limits: Limits, listener: Listener, done: Done) -> None:
    """Fetch and prove every file. `done` is called for each as soon as it is proven, from a thread of the crew.

    Raises the first error that trying again does not mend, and NetworkError where nothing moves for too long; what came
    is then left for the next run.
    """
    if downloads:
        crew = _Crew(downloads, limits, listener, done)
        try:
            crew.work()
        finally:
            crew.end()


class _Crew:
    """A thread for each connection, one that claims room, one that flushes, and the caller's, which watches it all."""

    def __init__(self, downloads: Sequence[Download], limits: Limits, listener: Listener, done: Done) -> None:
        self._limits = limits
        self._listener = listener
        self._done = done
        self._downloads = downloads
        self._change = threading.Condition()
        self._handing = threading.Lock()
        # The memory of the other way is capped for each file, so there is one at a time.
        self._other_way = threading.Lock()
        self._stop = threading.Event()
        self._courier = Courier(limits, listener, self._stop)
        self._error: BaseException | None = None
        self._finishing = 0
        self._jobs: list[Job] = []
        self._threads: list[threading.Thread] = []
        self._hands = 0
        self._looked, self._looked_at = time.monotonic(), 0

    def work(self) -> None:
        for download in self._downloads:
            job = open_job(download, self._limits)
            self._jobs.append(job)
            if job.partial.resumed:
                self._listener.reuse(download.path, job.partial.resumed)
        self._begin(self._flush, "flush")
        self._begin(self._claim, "claim")
        self._open_connections(self._limits.first_jobs)
        # Setbacks first: who sees one sees as well that nothing is there.
        moved, setbacks, most = time.monotonic(), self._setbacks, self._there
        while not self._is_done():
            self._open_more_connections()
            # What comes again and again is no progress, so it is not what is received that counts.
            seen, there = self._setbacks, self._there
            if self._finishing or there - most >= self._limits.progress or seen > setbacks:
                moved, setbacks, most = time.monotonic(), seen, there
            elif time.monotonic() - moved >= self._limits.patience_s:
                raise self._stalled()

    @property
    def _there(self) -> int:
        """Bytes."""
        return sum(job.there for job in self._jobs)

    @property
    def _setbacks(self) -> int:
        return sum(job.partial.setbacks for job in self._jobs)

    def _is_done(self) -> bool:
        """Wait a moment, or until something happens. Raises what a thread has raised."""
        with self._change:
            if self._error:
                raise self._error
            if all(job.is_over for job in self._jobs):
                return True
            self._change.wait(_LOOK_EVERY_S)
            return False

    def _open_more_connections(self) -> None:
        """As long as those that there are bring little each, and not because a server has too much to do."""
        now = time.monotonic()
        if self._hands < self._limits.jobs and now - self._looked >= _LOOK_EVERY_S:
            rate = (self._courier.received - self._looked_at) / (now - self._looked)
            if rate < self._limits.plenty * self._hands and self._courier.pauses.is_calm:
                self._open_connections(self._hands)
            self._looked, self._looked_at = now, self._courier.received

    def _open_connections(self, count: int) -> None:
        for _ in range(min(count, self._limits.jobs - self._hands)):
            self._begin(self._work, f"connection {self._hands}")
            self._hands += 1

    def _begin(self, task: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=self._guarded, args=(task,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def end(self) -> None:
        """Stop the threads, and leave what came so that the next run can use it."""
        self._stop.set()
        with self._change:
            self._change.notify_all()
        self._courier.connections.abort()
        deadline = time.monotonic() + _END_S
        for thread in self._threads:
            # One that still waits for a name or for an answer finds later that nothing of it is wanted.
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._handing:
            # Whoever called us may let go of the folder next, so nothing is put there from now on.
            left = [job.partial for job in self._jobs if not job.is_over]
        for partial in left:
            self._leave(partial)
        self._courier.connections.close()

    def _leave(self, partial: Partial) -> None:
        try:
            partial.flush()
        except Dsv4Error as error:
            # The disk is full or gone, and that has ended the run; the marks on it say what is there all the same.
            self._listener.say("note", error.message, message=error.message)
        partial.close()

    def _stalled(self) -> NetworkError:
        size = sum(job.download.size for job in self._jobs)
        trouble = f"; the last trouble was: {self._courier.trouble}" if self._courier.trouble else ""
        return NetworkError(
            f"no progress for {self._limits.patience_s:g} s, {amount(self._there)} of {amount(size)} came{trouble}",
            _GO_ON,
        )

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except (_StoppedError, SupersededError):
            pass
        except BaseException as error:  # it is raised again in the caller's thread
            with self._change:
                self._error = self._error or error
                self._stop.set()
                self._change.notify_all()

    def _claim(self) -> None:
        for job in self._jobs:
            if self._stop.is_set():
                return
            if not job.begun_otherwise:
                job.partial.claim()

    def _flush(self) -> None:
        while not self._stop.wait(_FLUSH_EVERY_S):
            for job in self._jobs:
                if not job.is_over:
                    job.partial.flush_if_due()

    def _work(self) -> None:
        while taken := self._next():
            job, piece = taken
            if piece is None or self._bring(job, piece):
                self._finish(job)

    def _next(self) -> tuple[Job, Piece | None] | None:
        """A piece of the file that the fewest connections bring; without a piece: a file that is whole already."""
        with self._change:
            while not self._stop.is_set():
                waiting = [job for job in self._jobs if not job.is_over]
                if not waiting:
                    return None
                for job in sorted(waiting, key=lambda job: job.connections):
                    piece = job.partial.take()
                    if piece or (job.connections == 0 and job.partial.is_whole):
                        job.connections += 1
                        return job, piece
                self._change.wait()
            return None

    def _bring(self, job: Job, piece: Piece) -> bool:
        """Fetch a piece. True: it was the last that was missing of its file."""
        if job.begun_otherwise:
            self._bring_otherwise(job, piece.generation, None)
        else:
            self._bring_plainly(job, piece)
        with self._change:
            is_last = job.partial.give_back(piece)
            if not is_last:
                job.connections -= 1
            self._change.notify_all()
        return is_last

    def _bring_plainly(self, job: Job, piece: Piece) -> None:
        try:
            self._courier.bring(job.download, job.partial, piece)
        except SupersededError:
            pass
        except PlainRefusedError as plain:
            self._bring_otherwise(job, piece.generation, plain.refusal)
        except IntegrityError as error:
            self._start_again(job, error, piece.generation)

    def _finish(self, job: Job) -> None:
        """Prove a file that is whole, and hand it over or fetch it again."""
        generation = job.partial.generation
        with self._busy():
            found = job.partial.finish()
            if problem := job.download.problem(found):
                self._start_again(job, self._wrong(job.download, problem), generation)
            else:
                self._hand_over(job, found)
        with self._change:
            job.connections -= 1
            self._change.notify_all()

    def _hand_over(self, job: Job, found: Digests) -> None:
        with self._handing:
            if self._stop.is_set():
                raise _StoppedError
            # In this order: marks of a file that is in its place are litter, a whole file without marks is lost.
            self._done(job.download, found)
            job.partial.forget()
            job.is_over = True

    def _start_again(self, job: Job, error: IntegrityError, generation: int) -> None:
        """Once: what went wrong may be a part that an earlier run left, or a passing trouble on the way."""
        if generation != job.partial.generation:
            return
        if job.failures:
            job.partial.remove()
            raise error
        if job.partial.start_again(generation):
            job.failures += 1
            self._listener.retreat(job.download.path)
            self._listener.say("note", f"{error.message}; it is fetched again", message=error.message)

    def _bring_otherwise(self, job: Job, generation: int, refusal: Dsv4Error | None) -> None:
        """`refusal` is plain HTTP's; without one it has not been asked yet."""
        download = job.download
        if not job.partial.step_aside(generation):
            return
        why = "plain HTTP is refused, so it is asked for by xet" if refusal else "it goes on by xet"
        self._listener.say("note", f"{download.path}: {why}", path=download.path)
        if refusal:
            self._courier.trouble = refusal.message
        try:
            with self._other_way:
                job.go_the_other_way(
                    lambda count: self._advance(download.path, count), lambda: self._listener.retreat(download.path)
                )
        except (NotAllowedError, NotFoundError) as error:
            if refusal or job.comes_otherwise:
                raise refusal or error from None
            job.begun_otherwise = False
            job.partial.come_back()
            job.partial.claim()
            return
        except NetworkError as error:
            if refusal:
                raise
            step = f"{error.next_step}; or set HF_HUB_DISABLE_XET=1, and it is asked for by plain HTTP"
            raise NetworkError(error.message, step) from None
        with self._busy():
            found = job.digests_on_disk()
            if problem := download.problem(found):
                download.target.unlink()
                raise self._wrong(download, problem)
            self._hand_over(job, found)

    def _wrong(self, download: Download, problem: str) -> IntegrityError:
        return IntegrityError(f"{http.shown(download.address.url)}: {problem}", _BROKEN_ON_THE_WAY)

    def _advance(self, path: str, count: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        self._courier.advance(path, count)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Hashing and flushing the end of a large file is progress that the network does not show."""
        with self._change:
            self._finishing += 1
        try:
            yield
        finally:
            with self._change:
                self._finishing -= 1
