"""How far each segment of a partial file has come, in a small file next to it that a killed run leaves behind.

A first line of JSON says what the file will be, then come two numbers for each segment: the bytes that were written,
and of those the bytes that were on the disk when it was last flushed. After a kill the first still hold, for the
kernel has them; after a reboot only the second do. Neither is proof: whoever goes on hashes all bytes of the file.
"""

import json
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from dsv4_stack.guest.files import write_atomically, writing

_HEADER: Final = 512
_NUMBER: Final = struct.Struct("<Q")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The same until this machine's kernel starts again, on every machine another; "" where nobody says."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def written(path: Path, identity: str, size: int) -> int:
    """The bytes that an earlier run left of this file, as its marks have it; 0 where there are none. For estimates."""
    left = _left(path, identity, size)
    return sum(left.done) if left else 0


class Marks:
    """Those of one partial file of `size` bytes in segments of `segment` bytes. `identity` tells its versions apart."""

    def __init__(
        self, path: Path, identity: str, size: int, segment: int, done: Sequence[int], *, flushed: Sequence[int]
    ) -> None:
        self.done = list(done)
        self._flushed = flushed
        self._is_trusted = True
        self._path = path
        self._sizes = _sizes(size, segment)
        header = {"identity": identity, "size": size, "segment": segment, "boot": boot_id()}
        text = json.dumps(header).encode().ljust(_HEADER - 1) + b"\n"
        write_atomically(path, text + _packed(done) + _packed(flushed))
        with writing(path):
            self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    @classmethod
    def fresh(cls, path: Path, identity: str, size: int, segment: int) -> Self:
        none = [0] * len(_sizes(size, segment))
        return cls(path, identity, size, segment, none, flushed=none)

    @classmethod
    def resumed(cls, path: Path, identity: str, size: int, segment: int) -> Self | None:
        """What an earlier run left, or None where there is nothing of this identity that can be read."""
        left = _left(path, identity, size)
        if not left:
            return None
        done, flushed = (_recut(numbers, left.segment, size, segment) for numbers in (left.done, left.flushed))
        return cls(path, identity, size, segment, done, flushed=flushed)

    def note(self, number: int, done: int) -> None:
        """Segment `number` has come to `done` bytes."""
        self.done[number] = done
        if self._is_trusted:
            os.pwrite(self._file, _NUMBER.pack(done), _HEADER + _NUMBER.size * number)

    def note_flushed(self, done: Sequence[int]) -> None:
        """`done` of each segment were on the disk at some time since they were read from `self.done`."""
        if self._is_trusted:
            self._flushed = done
            os.pwrite(self._file, _packed(done), _HEADER + _NUMBER.size * len(done))
            os.fdatasync(self._file)

    def distrust(self) -> None:
        """A flush has failed: of what was written since the last one nobody knows whether it ever reaches the disk.

        Not even another flush does: https://lwn.net/Articles/752063/
        """
        self._is_trusted = False
        os.pwrite(self._file, _packed(self._flushed), _HEADER)

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def remove(self) -> None:
        """After `close`."""
        with suppress(FileNotFoundError):
            self._path.unlink()


def _sizes(size: int, segment: int) -> list[int]:
    return [min(segment, size - start) for start in range(0, size, segment)]


def _packed(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


class _Left(NamedTuple):
    """The segments' size and how far each has come."""

    segment: int
    done: list[int]
    flushed: list[int]


def _left(path: Path, identity: str, size: int) -> _Left | None:
    """What there is of a file of this identity; None where none can be made out."""
    try:
        header, done, flushed = _read(path)
        segment = header["segment"]
        if not boot_id() or header["boot"] != boot_id():
            done = flushed
        is_it = (header["identity"], header["size"]) == (identity, size)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not is_it or type(segment) is not int or segment < 1:
        return None
    if not (_are_possible(done, size, segment) and _are_possible(flushed, size, segment)):
        return None
    return _Left(segment, done, flushed)


def _read(path: Path) -> tuple[dict[str, object], list[int], list[int]]:
    """Header, done, flushed. Raises OSError, ValueError."""
    content = path.read_bytes()
    header = json.loads(content[:_HEADER])
    if not isinstance(header, dict):
        raise ValueError("no object")  # noqa: TRY004 - of the file's content
    body = content[_HEADER:]
    if len(body) % (2 * _NUMBER.size):
        raise ValueError("torn")
    numbers = list(struct.unpack(f"<{len(body) // _NUMBER.size}Q", body))
    half = len(numbers) // 2
    return header, numbers[:half], numbers[half:]


def _are_possible(done: list[int], size: int, segment: int) -> bool:
    if len(done) != -(-size // segment):
        return False
    sizes = _sizes(size, segment)
    return all(have <= whole for have, whole in zip(done, sizes, strict=True))


def _recut(done: list[int], left: int, size: int, segment: int) -> list[int]:
    """What counts of it in segments of another size: the bytes from a segment's start on without a gap."""
    if left == segment:
        return done
    spans = [(number * left, number * left + have) for number, have in enumerate(done) if have]
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [
        _covered(start, whole, joined)
        for start, whole in zip(range(0, size, segment), _sizes(size, segment), strict=True)
    ]


def _covered(start: int, whole: int, joined: list[tuple[int, int]]) -> int:
    return next((min(whole, end - start) for begin, end in joined if begin <= start < end), 0)
