"""JSON of megabytes read member by member, so that no more of it is in memory than its bytes."""

import re
from codecs import utf_8_decode
from collections.abc import Iterator
from typing import Any, Final

from dsv4_stack.guest.checkpoint.documents import DECODER

_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_PLAIN_TEXT: Final = re.compile(rb'"([^"\\\x00-\x1f]*+)"')
_TEXT_BYTES: Final = 1 << 20


class Reader:
    """Takes one value after the other. All methods raise ValueError where what comes next is something else."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0
        self._move(0)

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next, repeated ones too; take each one's value before the next key."""
        self._take(b"{")
        if self._took(b"}"):
            return
        while True:
            key = self.text()
            self._take(b":")
            yield key
            if self._took(b"}"):
                return
            self._take(b",")

    def text(self) -> str:
        """A string."""
        if match := _PLAIN_TEXT.match(self._content, self._at):
            self._move(match.end())
            return match[1].decode()
        if not self._content.startswith(b'"', self._at):
            raise ValueError(f"byte {self._at} should begin a string")
        return str(self.value(_TEXT_BYTES))

    def value(self, limit: int) -> Any:  # noqa: ANN401 - whatever JSON there is
        """Any value whose text has at most `limit` bytes, in Python's types."""
        window, _ = utf_8_decode(self._content[self._at : self._at + limit], "strict", False)  # noqa: FBT003
        try:
            value, end = DECODER.raw_decode(window)
        except (ValueError, RecursionError):
            raise ValueError(f"byte {self._at} should begin a JSON value of at most {limit} bytes") from None
        self._move(self._at + len(window[:end].encode()))
        return value

    def end(self) -> None:
        """Nothing comes but white space."""
        if self._at < len(self._content):
            raise ValueError(f"byte {self._at} should be the end")

    def _take(self, mark: bytes) -> None:
        if not self._took(mark):
            raise ValueError(f"byte {self._at} should be {mark.decode()}")

    def _took(self, mark: bytes) -> bool:
        took = self._content.startswith(mark, self._at)
        if took:
            self._move(self._at + 1)
        return took

    def _move(self, at: int) -> None:
        space = _SPACE.match(self._content, at)
        self._at = space.end() if space else at
