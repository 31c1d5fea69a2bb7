"""A terminal of a test's own: what a program wrote to it, as its user would see it."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

TOKEN = re.compile(r"\x1b\[(\d*)([A-Z])|(\r)|(\n)|([^\x1b\r\n])")


def shown(text: str, columns: int, rows: int) -> tuple[list[str], tuple[int, int]]:
    """All lines that a terminal of this size has shown, and its cursor's line and column, counted from 0.

    Knows the sequences that this project writes, and fails on any other.
    """
    lines, row, column, at = [""], 0, 0, 0
    while at < len(text):
        token = TOKEN.match(text, at)
        assert token, f"not understood: {text[at : at + 8]!r}"
        at = token.end()
        number, command, carriage_return, line_feed, letter = token.groups()
        if letter:
            if column == columns:
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            lines[row] = lines[row].ljust(column)[:column] + letter + lines[row][column + 1 :]
            column += 1
        elif carriage_return:
            column = 0
        elif line_feed:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif command == "A":
            row = max(row - int(number or 1), len(lines) - rows, 0)
        elif command == "K":
            lines[row] = lines[row][:column]
        else:
            assert (number, command) == ("", "J"), f"not understood: {token[0]!r}"
            lines[row] = lines[row][:column]
            # What is erased stays a part of the screen, so that the cursor's reach does not change.
            lines[row + 1 :] = [""] * (len(lines) - row - 1)
    return [line.rstrip() for line in lines], (row, column)


class Terminal:
    """`stream` is what a program writes to; what arrives is read by a thread, as a terminal window does."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._window, device = pty.openpty()
        fcntl.ioctl(device, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.stream: TextIO = os.fdopen(device, "w", encoding="ascii", errors="strict")
        self._written = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while block := os.read(self._window, 4096):
                self._written += block
        except OSError:
            pass  # closed at the other end

    def close(self) -> None:
        """Wait until everything is read."""
        self.stream.close()
        self._reader.join()
        os.close(self._window)

    @property
    def written(self) -> str:
        return self._written.decode("ascii")

    def lines(self) -> list[str]:
        """What is shown, without empty lines at the end."""
        lines, _ = shown(self.written, self.columns, self.rows)
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def cursor(self) -> tuple[int, int]:
        return shown(self.written, self.columns, self.rows)[1]


@contextmanager
def terminal(columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    opened = Terminal(columns, rows)
    try:
        yield opened
    finally:
        if not opened.stream.closed:
            opened.close()
