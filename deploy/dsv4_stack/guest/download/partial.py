"""A file that is being written by several threads at once, and hashed in order by whoever is at hand."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack.errors import Dsv4Error
from dsv4_stack.guest.digests import Digests, Hasher
from dsv4_stack.guest.download import space
from dsv4_stack.guest.download.limits import MIB, Limits
from dsv4_stack.guest.download.marks import Marks
from dsv4_stack.guest.files import writing

MARKS: Final = ".marks"
"""The suffix of the file next to a partial one that says how far it has come."""
_CATCH_UP: Final = 8 * MIB

Watch = Callable[[int, Callable[[int, int], bytes]], bool]
"""Looks at a file's first bytes as soon as they are there: is told how many there are, and given a way to read some
of them (offset, length). True: it has seen enough. Raises what makes the rest not worth fetching."""


class SupersededError(Exception):
    """The file has started again, or has come otherwise, so this piece of it is no longer wanted."""


@dataclass(kw_only=True)
class Piece:
    """A part of a file that one connection brings: `done` bytes of `start` up to `end` are there."""

    number: int
    start: int
    end: int
    done: int
    generation: int

    @property
    def is_done(self) -> bool:
        return self.start + self.done == self.end


class Partial:
    """`resumed` are the bytes that an earlier run left. Methods raise as `files.writing` does.

    `setbacks` counts how often all that came was given up for a reason that does not come again without end.
    A generation is one attempt at the file; what is left over of an earlier one finds that it no longer counts.
    """

    def __init__(
        self, path: Path, identity: str, size: int, *, by_git: bool, limits: Limits, watch: Watch | None
    ) -> None:
        self.path = path
        self.size = size
        self._identity = identity
        self._by_git = by_git
        self._limits = limits
        self._watch = watch
        self._claiming = threading.Lock()
        self._is_settled = False
        # Taken in this order, after that one. Buffered writes to one file wait for each other in the kernel anyway.
        self._hashing = threading.Lock()
        self._writing = threading.Lock()
        self._sharing = threading.Lock()
        self._generation = 0
        self.setbacks = 0
        self._is_open = True
        self._is_closing = False
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            self._begin(self._left(), limits.segment_of(size))
        except BaseException:
            os.close(self._file)
            raise
        self.resumed = sum(self._marks.done)

    def _left(self) -> Marks:
        """How far an earlier run has come."""
        with writing(self.path):
            is_left = os.fstat(self._file).st_size == self.size
            os.ftruncate(self._file, self.size)
        asked = self._marks_path, self._identity, self.size, self._limits.segment_of(self.size)
        return (Marks.resumed(*asked) if is_left else None) or Marks.fresh(*asked)

    def _begin(self, marks: Marks, segment: int) -> None:
        self._marks = marks
        self._segment = segment
        self._hasher = Hasher(git_size=self.size if self._by_git else None)
        self._is_watched = self._watch is None
        self._verdict: Dsv4Error | None = None
        self._unflushed = 0
        pieces = [
            Piece(
                number=number,
                start=start,
                end=min(start + segment, self.size),
                done=marks.done[number],
                generation=self._generation,
            )
            for number, start in enumerate(range(0, self.size, segment))
        ]
        self._waiting = [piece for piece in reversed(pieces) if not piece.is_done]
        self._lacking = len(self._waiting)

    @property
    def _marks_path(self) -> Path:
        return self.path.with_name(self.path.name + MARKS)

    @property
    def is_whole(self) -> bool:
        return self._lacking == 0

    @property
    def missing(self) -> int:
        """Bytes."""
        return self.size - sum(self._marks.done)

    def take(self) -> Piece | None:
        """The next piece that nobody brings yet, in the file's order."""
        with self._sharing:
            return self._waiting.pop() if self._waiting else None

    def give_back(self, piece: Piece) -> bool:
        """A connection is through with a piece, or gives up on it. True: it was the last that the file lacked."""
        with self._sharing:
            if piece.generation != self._generation:
                return False
            if not piece.is_done:
                self._waiting.append(piece)
                return False
            self._lacking -= 1
            return self._lacking == 0

    def write(self, piece: Piece, block: bytes) -> int:
        """Put what came next of a piece in its place; what goes beyond its end is dropped. The bytes written.

        Raises SupersededError, and what the watch raises.
        """
        with self._writing, writing(self.path):
            if piece.generation != self._generation:
                raise SupersededError
            offset = piece.start + piece.done
            view = memoryview(block)[: piece.end - offset]
            put = 0
            while put < len(view):
                put += os.pwrite(self._file, view[put:], offset + put)
            piece.done += put
            self._marks.note(piece.number, piece.done)
            self._unflushed += put
        self._hash(piece.generation, offset, view)
        return put

    def claim(self) -> None:
        """Have room for all of it. Not done on opening: a file system in memory takes a second for some gigabytes."""
        with self._claiming:
            with self._writing:
                if not self._is_open or self._is_settled:
                    return
                twin = os.dup(self._file)
            try:
                with writing(self.path):
                    space.claim(twin, self.size)
            finally:
                os.close(twin)

    def flush_if_due(self) -> None:
        """Have what was written outlive a power cut, once there is enough of it."""
        if self._unflushed >= self._limits.sync:
            self.flush()

    def flush(self) -> None:
        """Have what was written so far outlive a power cut."""
        with self._writing:
            if not self._is_open:
                return
            generation, done = self._generation, list(self._marks.done)
            self._unflushed = 0
            # The disk may take long, and others should write meanwhile, or close the file.
            twin = os.dup(self._file)
        try:
            self._sync(os.fdatasync, twin)
        finally:
            os.close(twin)
        with self._writing, writing(self.path):
            if self._is_open and generation == self._generation:
                self._marks.note_flushed(done)

    def start_again(self, generation: int, *, in_one: bool = False) -> bool:
        """Nothing that came in this generation counts; `in_one` piece, for a server that does not send parts.

        False: it has started again since.
        """
        with self._hashing, self._writing, self._sharing:
            if generation != self._generation:
                return False
            self._generation += 1
            is_setback = not (in_one and self._segment >= self.size)
            self._marks.close()
            segment = max(self.size, 1) if in_one else self._limits.segment_of(self.size)
            self._begin(Marks.fresh(self._marks_path, self._identity, self.size, segment), segment)
            # Last: whoever sees it sees as well that nothing is there.
            self.setbacks += is_setback
            return True

    def finish(self) -> Digests:
        """Hash what is not hashed yet, bring all to the disk, and say what the file is.

        Raises SupersededError if the file is closed meanwhile.
        """
        with self._claiming:
            # Room that is claimed later would change the time of a file that is proven, and perhaps in its place.
            self._is_settled = True
        with self._hashing:
            while not self._is_closing and self._catch_up():
                pass
            if self._is_closing:
                raise SupersededError
            self._look()
            self._sync(os.fsync, self._file)
            return self._hasher.digests()

    def close(self) -> None:
        """Leave it for the next run."""
        self._is_closing = True
        with self._hashing, self._writing:
            self._generation += 1
            if self._is_open:
                self._is_open = False
                os.close(self._file)
                self._marks.close()

    def forget(self) -> None:
        """It is proven and in its place, so there is nothing to go on with."""
        self.close()
        self._marks.remove()

    def remove(self) -> None:
        """Nothing of it is of use."""
        self.forget()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def step_aside(self, generation: int) -> bool:
        """Another way is tried, so no piece is brought any more; what came stays. False: it was so already."""
        with self._sharing:
            if generation != self._generation:
                return False
            self._generation += 1
            self._waiting, self._lacking = [], -1
            return True

    def come_back(self) -> None:
        """There is no other way, so the pieces are to be brought from where they were."""
        with self._hashing, self._writing, self._sharing:
            self._generation += 1
            self._begin(self._marks, self._segment)

    def give_way(self) -> None:
        """The other way brings the file: what came takes room for nothing. What has its name by now stays."""
        with self._claiming:
            self._is_settled = True
        with self._writing, writing(self.path):
            if self._is_open:
                os.ftruncate(self._file, 0)
                self._marks.done = [0] * len(self._marks.done)
                self.setbacks += 1
        self.forget()

    @property
    def generation(self) -> int:
        return self._generation

    def _sync(self, sync: Callable[[int], None], file: int) -> None:
        try:
            with writing(self.path):
                sync(file)
        except Dsv4Error:
            with self._writing, suppress(OSError):
                self._marks.distrust()
            raise

    def _hash(self, generation: int, offset: int, view: memoryview) -> None:
        """Nobody waits to hash: who finds it being done leaves the bytes to that one, or to `finish`."""
        if not self._hashing.acquire(blocking=False):
            return
        try:
            if generation != self._generation:
                return
            if offset == self._hasher.size:
                self._hasher.update(view)
            caught = 0
            while caught < _CATCH_UP and (count := self._catch_up()):
                caught += count
            self._look()
        finally:
            self._hashing.release()

    def _catch_up(self) -> int:
        """Hash a block of what others wrote behind the hashed part: it is still in the page cache. Its bytes."""
        start = self._hasher.size
        if start == self.size:
            return 0
        number = start // self._segment
        available = number * self._segment + self._marks.done[number] - start
        if available <= 0:
            return 0
        block = self._read(start, min(available, self._limits.least_block))
        self._hasher.update(block)
        return len(block)

    def _look(self) -> None:
        if self._verdict:
            raise self._verdict
        if not self._is_watched and self._watch:
            try:
                self._is_watched = self._watch(self._hasher.size, self._read)
            except Dsv4Error as error:
                self._verdict = error
                raise

    def _read(self, offset: int, length: int) -> bytes:
        with writing(self.path):
            return os.pread(self._file, length, offset)
