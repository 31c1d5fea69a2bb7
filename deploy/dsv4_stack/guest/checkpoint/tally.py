"""How far a run is: bytes counted by many threads, and the rate at which they come."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

WINDOW_S: Final = 30.0
STALLED_S: Final = 15.0
_LEAST_RATE: Final = 1 / 3600


@dataclass(frozen=True, kw_only=True)
class Moving:
    """A file that is neither untouched nor finished. Sizes in bytes, rate in bytes per second."""

    path: str
    done: int
    size: int
    rate: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A moment of a run: bytes, bytes per second, seconds. `reused` is a part of `done`.

    `stalled_s` is how long no byte has come while some are missing, and 0 as long as that may be chance.
    """

    files: int
    all_files: int
    done: int
    size: int
    reused: int
    rate: float
    stalled_s: float
    elapsed_s: float
    moving: tuple[Moving, ...] = ()

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end at this rate, None while there is none to speak of: below a byte an hour."""
        if self.done >= self.size:
            return 0.0
        return (self.size - self.done) / self.rate if self.rate > _LEAST_RATE and not self.stalled_s else None


@dataclass(kw_only=True, slots=True)
class _File:
    size: int
    came: int = 0
    reused: int = 0

    @property
    def done(self) -> int:
        return min(self.came + self.reused, self.size)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """What had come by a time, in all and of each file that was moving."""

    at: float
    arrived: int
    came: Mapping[str, int]


class Tally:
    """Counts the bytes of the files in `sizes` (bytes by path), and of no others; safe to call from every thread."""

    def __init__(self, sizes: Mapping[str, int], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open = {path: _File(size=size) for path, size in sizes.items()}
        self._all_files, self._size = len(sizes), sum(sizes.values())
        # Of finished files; `_arrived` is what came in all, also what was thrown away.
        self._files = self._done = self._reused = self._arrived = 0
        self._began = self._moved = clock()
        self._samples = deque([_Sample(at=self._began, arrived=0, came={})])

    def advance(self, path: str, count: int) -> None:
        with self._lock:
            if file := self._open.get(path):
                file.came += count
                self._arrived += count
                self._moved = self._clock()

    def reuse(self, path: str, count: int) -> None:
        with self._lock:
            if file := self._open.get(path):
                file.reused += count

    def retreat(self, path: str) -> None:
        with self._lock:
            if file := self._open.get(path):
                file.came = file.reused = 0

    def finish(self, path: str) -> None:
        with self._lock:
            if file := self._open.pop(path, None):
                self._files += 1
                self._done += file.size
                self._reused += min(file.reused, file.size)

    def snapshot(self) -> Snapshot:
        """This moment, with the rates of the last half minute. What it sees is what later rates are measured from."""
        with self._lock:
            now = self._clock()
            moving = {path: file for path, file in self._open.items() if file.done}
            came = {path: file.came for path, file in moving.items()}
            self._samples.append(_Sample(at=now, arrived=self._arrived, came=came))
            while self._samples[1].at <= now - WINDOW_S:
                self._samples.popleft()
            done = self._done + sum(file.done for file in moving.values())
            idle_s = now - self._moved
            return Snapshot(
                files=self._files,
                all_files=self._all_files,
                done=done,
                size=self._size,
                reused=self._reused + sum(min(file.reused, file.size) for file in moving.values()),
                rate=_rate([(sample.at, sample.arrived) for sample in self._samples]),
                stalled_s=idle_s if idle_s >= STALLED_S and done < self._size else 0.0,
                elapsed_s=now - self._began,
                moving=tuple(
                    Moving(path=path, done=file.done, size=file.size, rate=self._rate_of(path))
                    for path, file in moving.items()
                ),
            )

    def summary(self) -> Snapshot:
        """As `snapshot`, with the rate of the whole run."""
        last = self.snapshot()
        return replace(last, rate=self._arrived / last.elapsed_s if last.elapsed_s else 0.0)

    def _rate_of(self, path: str) -> float:
        return _rate([(sample.at, sample.came[path]) for sample in self._samples if path in sample.came])


def _rate(counts: Sequence[tuple[float, int]]) -> float:
    """Bytes per second from the first to the last of these times, 0 where they are one."""
    (first_at, first), (last_at, last) = counts[0], counts[-1]
    return max(last - first, 0) / (last_at - first_at) if last_at > first_at else 0.0
