"""Unified diffs of existing text files: parsed strictly, applied without fuzz.

Everything is bytes; a line ends with \\n, so CRLF files keep theirs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dsv4_stack.errors import PatchError

_RANGES: Final = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_SKIPPED: Final = (b"diff --git ", b"index ")
_NO_NEWLINE: Final = b"\\ "  # git and diff translate the words that follow
_REMAKE: Final = "make the patch again with git diff --no-renames, of files that exist on both sides"


@dataclass(frozen=True, kw_only=True)
class Hunk:
    """`old` and `new` are whole lines; `leading` and `trailing` count the context at either end."""

    line: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]
    leading: int
    trailing: int

    def reversed(self) -> "Hunk":
        return Hunk(line=self.line, old=self.new, new=self.old, leading=self.leading, trailing=self.trailing)


@dataclass(frozen=True, kw_only=True)
class FileDiff:
    """What happens to one file; `path` is relative, without the a/ and b/."""

    path: str
    hunks: tuple[Hunk, ...]

    def reversed(self) -> "FileDiff":
        return FileDiff(path=self.path, hunks=tuple(hunk.reversed() for hunk in self.hunks))


@dataclass(frozen=True, kw_only=True)
class Applied:
    """A file's new bytes, and by how many lines each hunk lay away from where its header says."""

    data: bytes
    offsets: tuple[int, ...]


def parse(data: bytes) -> tuple[FileDiff, ...]:
    """The files of a diff. Raises PatchError for anything but changes to the lines of existing files."""
    lines = _Lines(split(data))
    diffs = tuple(_files(lines))
    if not diffs:
        raise PatchError("holds no diff", _REMAKE)
    paths = [diff.path for diff in diffs]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise PatchError(f"changes {twice[0]} in two places", "join them under one pair of --- and +++ lines")
    return diffs


def apply(data: bytes, diff: FileDiff) -> Applied:
    """Change `data` as `diff` says. The old lines of every hunk must occur in it exactly once, in order.

    Raises PatchError that names the file and every hunk that does not fit.
    """
    lines = split(data)
    places: list[int] = []
    problems: list[str] = []
    for number, hunk in enumerate(diff.hunks, 1):
        found = _places(lines, hunk)
        if len(found) == 1:
            places.append(found[0])
        else:
            problems.append(f"{diff.path}: hunk {number} of {len(diff.hunks)} (line {hunk.line}): {_misfit(found)}")
    if problems:
        raise PatchError("; ".join(problems), f"make the patch again from this version's {diff.path}")
    return _splice(lines, diff, places)


def split(data: bytes) -> list[bytes]:
    """Lines with their \\n; the last one may lack it. (bytes.splitlines would also split at a lone \\r.)"""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


class _Lines:
    """The lines of a patch with the place of the next one."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines
        self.at = 0

    def peek(self) -> bytes:
        return self.lines[self.at] if self.at < len(self.lines) else b""

    def take(self) -> bytes:
        line = self.peek()
        self.at += 1
        return line

    def error(self, message: str) -> PatchError:
        return PatchError(f"line {self.at} of the diff: {message}", _REMAKE)


def _files(lines: _Lines) -> Iterator[FileDiff]:
    while line := lines.take():
        if line.startswith(b"--- "):
            path = _path(lines, line, lines.take())
            yield FileDiff(path=path, hunks=tuple(_hunks(lines)))
        elif not line.startswith(_SKIPPED):
            raise lines.error(f"only changes to existing text files are understood, not {_shown(line)}")


def _path(lines: _Lines, old_line: bytes, new_line: bytes) -> str:
    old, new = (line.rstrip(b"\r\n").partition(b"\t")[0][4:] for line in (old_line, new_line))
    if not new_line.startswith(b"+++ ") or not old.startswith(b"a/") or not new.startswith(b"b/"):
        shown = f"{_shown(old_line)} and {_shown(new_line)}"
        raise lines.error(f"'--- a/FILE' and '+++ b/FILE' should stand here, not {shown}")
    if old[2:] != new[2:]:
        raise lines.error(f"the file is renamed from {_shown(old[2:])} to {_shown(new[2:])}")
    path = new[2:].decode(errors="replace")
    if not path or {"", ".", ".."} & set(path.split("/")):
        raise lines.error(f"{path!r} is no plain path below the tree")
    return path


def _hunks(lines: _Lines) -> Iterator[Hunk]:
    if not lines.peek().startswith(b"@@ "):
        lines.take()
        raise lines.error("a hunk should follow the file's name")
    while lines.peek().startswith(b"@@ "):
        yield _hunk(lines)


def _hunk(lines: _Lines) -> Hunk:
    header = _RANGES.match(lines.take())
    if not header:
        raise lines.error("the hunk's header should read @@ -LINE,COUNT +LINE,COUNT @@")
    line, old_count, _, new_count = (1 if number is None else int(number) for number in header.groups())
    old: list[bytes] = []
    new: list[bytes] = []
    kinds = ""
    while len(old) < old_count or len(new) < new_count:
        kind, text = _marked_line(lines)
        kinds += kind
        if kind != "+":
            old.append(text)
        if kind != "-":
            new.append(text)
    if (len(old), len(new)) != (old_count, new_count):
        raise lines.error(f"the hunk's header counts {old_count} old and {new_count} new lines, its body differs")
    leading = len(kinds) - len(kinds.lstrip(" "))
    trailing = len(kinds) - len(kinds.rstrip(" "))
    if leading == len(kinds):
        raise lines.error("the hunk changes nothing")
    return Hunk(line=line + (old_count == 0), old=tuple(old), new=tuple(new), leading=leading, trailing=trailing)


def _marked_line(lines: _Lines) -> tuple[str, bytes]:
    line = lines.take()
    kind, text = line[:1].decode("latin-1"), line[1:]
    if kind not in {" ", "-", "+"}:
        raise lines.error(f"a line of a hunk should begin with a space, - or +, not be {_shown(line)}")
    if lines.peek().startswith(_NO_NEWLINE):
        lines.take()
        text = text.removesuffix(b"\n")
    return kind, text


def _places(lines: Sequence[bytes], hunk: Hunk) -> list[int]:
    """Where the hunk fits. As in git, no context before (after) the change means the file's begin (end)."""
    old = list(hunk.old)
    last = len(lines) - len(old)
    starts: Sequence[int] = range(last + 1)
    if hunk.trailing == 0:
        starts = [last] if last >= 0 else []
    if hunk.leading == 0:
        starts = [0] if 0 in starts else []
    return [start for start in starts if lines[start : start + len(old)] == old]


def _misfit(found: list[int]) -> str:
    if not found:
        return "the lines that it changes do not occur"
    return "the lines that it changes occur more than once, at lines " + ", ".join(str(start + 1) for start in found)


def _splice(lines: list[bytes], diff: FileDiff, places: list[int]) -> Applied:
    result: list[bytes] = []
    done = 0
    for place, hunk in zip(places, diff.hunks, strict=True):
        if place < done:
            raise PatchError(f"{diff.path}: its hunks overlap or stand in another order than in the file", _REMAKE)
        result += [*lines[done:place], *hunk.new]
        done = place + len(hunk.old)
    result += lines[done:]
    if any(not line.endswith(b"\n") for line in result[:-1]):
        raise PatchError(f"{diff.path}: a line without newline would stand before the end of the file", _REMAKE)
    offsets = tuple(place + 1 - hunk.line for place, hunk in zip(places, diff.hunks, strict=True))
    return Applied(data=b"".join(result), offsets=offsets)


def _shown(line: bytes) -> str:
    return repr(line.decode(errors="replace").rstrip("\r\n"))
