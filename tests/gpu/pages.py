"""The page cache of some files: what of them it holds, and how to fill it or to empty it."""

import ctypes
import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

_CHUNK: Final = 16 << 20
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


def resident(files: Sequence[Path]) -> float:
    """The part of their pages that is in memory, from 0 to 1."""
    found = [_resident(file) for file in files]
    return sum(held for held, _ in found) / sum(pages for _, pages in found)


def _resident(file: Path) -> tuple[int, int]:
    size = file.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    answer = ctypes.create_string_buffer(pages)
    with file.open("rb") as opened:
        address = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, opened.fileno(), 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap", str(file))
    try:
        if _LIBC.mincore(address, size, answer):
            raise OSError(ctypes.get_errno(), "mincore", str(file))
    finally:
        _LIBC.munmap(address, size)
    # Of each byte the lowest bit alone means something.
    return sum(map(answer.raw.count, (bytes([odd]) for odd in range(1, 256, 2)))), pages


def evict(files: Sequence[Path]) -> None:
    """Written pages go to the disk first, or they would stay."""
    os.sync()
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fill(files: Sequence[Path]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_read, files))


def _read(file: Path) -> None:
    buffer = bytearray(_CHUNK)
    with file.open("rb", buffering=0) as opened:
        while opened.readinto(buffer):
            pass
