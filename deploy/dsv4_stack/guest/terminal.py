"""A terminal's end: a few lines that are drawn over again, while what is said scrolls away above them."""

import os
import shutil
from collections.abc import Sequence
from typing import TextIO


def can_draw(stream: TextIO) -> bool:
    """Whether the stream is a terminal that understands where to move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def size(stream: TextIO) -> os.terminal_size:
    """Columns and rows of the stream's own terminal; stdout, which shutil asks, may be a pipe beside it."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return shutil.get_terminal_size()
    return found if found.columns and found.lines else shutil.get_terminal_size()


class Block:
    """Lines at the end of a terminal. Its cursor always rests at the start of the line below them.

    Each line should be shorter than the terminal is wide, and there should be fewer of them than it has rows.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: Sequence[str] = ()

    def draw(self, lines: Sequence[str]) -> None:
        """Put these lines in the place of those drawn before; no lines leave nothing behind."""
        self._write(f"{self._to_start}{_rows(lines)}\x1b[J")
        self._lines = lines

    def say(self, text: str) -> None:
        """Put a text above the lines, for good."""
        self._write(f"{self._to_start}\x1b[J{text}\n{_rows(self._lines)}")

    def leave(self) -> None:
        """Let the lines stand where they are."""
        self._lines = ()

    @property
    def _to_start(self) -> str:
        return f"\r\x1b[{len(self._lines)}A" if self._lines else "\r"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _rows(lines: Sequence[str]) -> str:
    return "".join(f"{line}\x1b[K\n" for line in lines)
