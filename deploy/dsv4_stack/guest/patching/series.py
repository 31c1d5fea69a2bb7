"""The patch series: files of a header and diffs, in the order in which they are applied.

A patch file is the one place that says for which releases it is made: `Since` is the first, `First-release` the first
that needs it no more, or "none". Where upstream moved the code, the diff stands once per layout, below a line
`Layout: RELEASE` that names the first release of that layout; the last one reaches to the patch's end.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError, NotFoundError, PatchError
from dsv4_stack.guest.patching import diff, releases
from dsv4_stack.guest.patching.diff import FileDiff
from dsv4_stack.guest.patching.effects import Effect
from dsv4_stack.guest.patching.releases import Release, Span

SUFFIX: Final = ".patch"
_FIELDS: Final = ("Subject", "Fails-without", "Upstream", "Since", "First-release", "Drop-when", "Effect")
_LAYOUT: Final = re.compile(rb"^Layout: (.*)\n", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What happens to the files of these releases; `text` is the diff as written."""

    span: Span
    files: tuple[FileDiff, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One patch file. `span` are the releases that need it; its layouts follow each other without a gap."""

    name: str
    subject: str
    fails_without: str
    upstream: str
    span: Span
    drop_when: str
    effect: Effect
    layouts: tuple[Layout, ...]

    @property
    def first_release(self) -> str:
        """The first release that needs no patch, or "none"."""
        return str(self.span.before or "none")

    def layout(self, release: Release) -> Layout:
        """What the patch does in this release. Raises PatchError where it is not made for it."""
        for layout in self.layouts:
            if release in layout.span:
                return layout
        raise PatchError(f"{self.name}: is made for {self.span}, not for {release}", "leave it out for this release")


def needed(patches: Sequence[Patch], release: Release) -> tuple[Patch, ...]:
    """The patches that are made for this release."""
    return tuple(patch for patch in patches if release in patch.span)


def load(directory: Path, names: Sequence[str] = ()) -> tuple[Patch, ...]:
    """The patches with these names, in this order; without names all *.patch of the directory, sorted.

    Raises NotFoundError for a missing directory or patch, PatchError with every malformed one.
    """
    if not directory.is_dir():
        raise NotFoundError(f"there is no patch series at {directory}", "give its directory with --series")
    paths = [directory / f"{name.removesuffix(SUFFIX)}{SUFFIX}" for name in names]
    if missing := [path.name for path in paths if not path.is_file()]:
        there = ", ".join(path.stem for path in _all(directory)) or "none"
        raise NotFoundError(f"{directory} holds no {', '.join(missing)}", f"choose from: {there}")
    patches, problems = [], []
    for path in paths or _all(directory):
        try:
            patches.append(parse(path.stem, path.read_bytes()))
        except PatchError as error:
            problems.append(error)
    if problems:
        raise PatchError("\n".join(error.message for error in problems), problems[0].next_step)
    return tuple(patches)


def parse(name: str, data: bytes) -> Patch:
    """A patch file: header fields with indented continuation lines, `---`, a unified diff. Raises PatchError."""
    header, separator, body = data.partition(b"\n---\n")
    if not separator:
        raise PatchError(f"{name}: no line '---' ends its header", f"let it begin with {', '.join(_FIELDS)} and ---")
    fields = _header(name, header.decode(errors="replace"))
    try:
        span = _span(fields["Since"], fields["First-release"])
        layouts = tuple(_layouts(span, body))
    except (PatchError, ConfigError) as error:
        raise PatchError(f"{name}: {error.message}", error.next_step) from None
    return Patch(
        name=name,
        subject=fields["Subject"],
        fails_without=fields["Fails-without"],
        upstream=fields["Upstream"],
        span=span,
        drop_when=fields["Drop-when"],
        effect=_effect(name, fields["Effect"]),
        layouts=layouts,
    )


def _span(since: str, first_release: str) -> Span:
    span = Span(
        since=releases.parse(since),
        before=None if first_release == "none" else releases.parse(first_release),
    )
    if span.since not in span:
        raise PatchError(f"Since: {since} is not before First-release: {first_release}", "mend its header")
    return span


def _layouts(span: Span, body: bytes) -> Iterator[Layout]:
    """The whole body is one layout, or each `Layout:` line begins the next."""
    before, *marked = _LAYOUT.split(body)
    if not marked:
        yield _layout(span, body)
        return
    starts = [releases.parse(text.decode(errors="replace").strip()) for text in marked[::2]]
    ends = [*starts[1:], span.before]
    if before or starts[0] != span.since or any(start not in span for start in starts) or starts != sorted(set(starts)):
        raise PatchError(
            f"its layouts do not go through {span} in order",
            "begin with the layout of Since, and name the first release of each",
        )
    for start, end, text in zip(starts, ends, marked[1::2], strict=True):
        yield _layout(Span(since=start, before=end), text)


def _layout(span: Span, text: bytes) -> Layout:
    return Layout(span=span, files=diff.parse(text), text=text.decode(errors="replace"))


def _all(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{SUFFIX}"))


def _header(name: str, text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for key, value in _unfolded(name, text):
        if key not in _FIELDS or key in fields:
            raise PatchError(
                f"{name}: {key}: unknown or repeated in its header", f"use once each: {', '.join(_FIELDS)}"
            )
        fields[key] = value
    if missing := [key for key in _FIELDS if not fields.get(key)]:
        raise PatchError(
            f"{name}: its header lacks {', '.join(missing)}", "say it there: the header is what is reviewed"
        )
    return fields


def _unfolded(name: str, text: str) -> Iterator[tuple[str, str]]:
    lines: list[str] = []
    for line in text.split("\n"):
        if line[:1].isspace() and lines:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon:
            raise PatchError(
                f"{name}: {line!r} is no header field", "write 'Field: text', and indent what continues it"
            )
        yield key, value.strip()


def _effect(name: str, value: str) -> Effect:
    try:
        return Effect(value)
    except ValueError:
        raise PatchError(f"{name}: there is no effect {value!r}", f"name one of: {', '.join(Effect)}") from None
