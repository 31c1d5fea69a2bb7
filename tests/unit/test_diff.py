"""The unified-diff parser and applier, also against git and GNU patch."""

import difflib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4_stack.errors import PatchError
from dsv4_stack.guest.patching import diff
from dsv4_stack.guest.patching.diff import Applied, FileDiff, Hunk

REMAKE = "make the patch again with git diff --no-renames, of files that exist on both sides"

TWO_HUNKS = b"""\
diff --git a/d/f.py b/d/f.py
index 0123456..789abcd 100644
--- a/d/f.py
+++ b/d/f.py\t2026-07-07 00:00:00
@@ -1,3 +1,3 @@ def before():
 one
-two
+TWO
 three
@@ -10 +10,2 @@
 last
+more
\\ No newline at end of file
"""


def diff_of(old: list[str], new: list[str]) -> bytes:
    """What `diff -u` says; difflib leaves out the word about a missing newline."""
    lines = difflib.unified_diff(old, new, "a/f", "b/f")
    marked = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return "".join(marked).encode()


def parsed(old: list[str], new: list[str]) -> FileDiff:
    (only,) = diff.parse(diff_of(old, new))
    return only


def test_parses_every_part() -> None:
    first = Hunk(
        line=1, old=(b"one\n", b"two\n", b"three\n"), new=(b"one\n", b"TWO\n", b"three\n"), leading=1, trailing=1
    )
    second = Hunk(line=10, old=(b"last\n",), new=(b"last\n", b"more"), leading=1, trailing=0)
    assert diff.parse(TWO_HUNKS) == (FileDiff(path="d/f.py", hunks=(first, second)),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "holds no diff"),
        (
            b"diff --git a/f b/f\nnew file mode 100644\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+x\n",
            "line 2 of the diff: only changes to existing text files are understood, not 'new file mode 100644'",
        ),
        (
            b"--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n",
            "line 2 of the diff: '--- a/FILE' and '+++ b/FILE' should stand here, not '--- a/f' and '+++ /dev/null'",
        ),
        (
            b"diff --git a/f b/g\nsimilarity index 90%\nrename from f\nrename to g\n",
            "line 2 of the diff: only changes to existing text files are understood, not 'similarity index 90%'",
        ),
        (b"--- a/f\n+++ b/g\n@@ -1 +1 @@\n-x\n+y\n", "line 2 of the diff: the file is renamed from 'f' to 'g'"),
        (
            b"Binary files f differ\n",
            "line 1 of the diff: only changes to existing text files are understood, not 'Binary files f differ'",
        ),
        (
            b"--- a/../f\n+++ b/../f\n@@ -1 +1 @@\n-x\n+y\n",
            "line 2 of the diff: '../f' is no plain path below the tree",
        ),
        (b"--- a//etc/f\n+++ b//etc/f\n", "line 2 of the diff: '/etc/f' is no plain path below the tree"),
        (b"--- a/f\n+++ b/f\n", "line 3 of the diff: a hunk should follow the file's name"),
        (
            b"--- a/f\n+++ b/f\n@@ what @@\n",
            "line 3 of the diff: the hunk's header should read @@ -LINE,COUNT +LINE,COUNT @@",
        ),
        (
            b"--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n-x\n+y\n",
            "line 6 of the diff: a line of a hunk should begin with a space, - or +, not be ''",
        ),
        (
            b"--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n x\n\n-z\n+y\n",
            "line 5 of the diff: a line of a hunk should begin with a space, - or +, not be ''",
        ),
        (
            b"--- a/f\n+++ b/f\n@@ -1 +1,2 @@\n x\n z\n",
            "line 5 of the diff: the hunk's header counts 1 old and 2 new lines, its body differs",
        ),
        (b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n x\n", "line 4 of the diff: the hunk changes nothing"),
        (
            b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-x\n+y\n+z\n",
            "line 6 of the diff: only changes to existing text files are understood, not '+z'",
        ),
        (b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-x\n+y\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-y\n+z\n", "changes f in two places"),
    ],
)
def test_rejects(text: bytes, message: str) -> None:
    with pytest.raises(PatchError) as raised:
        diff.parse(text)
    assert raised.value.message == message


def test_reports_how_far_each_hunk_lay_away() -> None:
    numbered = [f"{number}\n" for number in range(30)]
    change = parsed(numbered, [*numbered[:5], "five\n", *numbered[6:25], "more\n", *numbered[25:]])
    moved = ["header\n", *numbered[:15], "between\n", *numbered[15:]]
    expected = ["header\n", *numbered[:5], "five\n", *numbered[6:15], "between\n", *numbered[15:25], "more\n"]
    assert diff.apply("".join(moved).encode(), change) == Applied(
        data="".join([*expected, *numbered[25:]]).encode(), offsets=(1, 2)
    )


def test_names_every_hunk_that_does_not_fit() -> None:
    numbered = [f"{number}\n" for number in range(30)]
    new = [*numbered[:5], "five\n", *numbered[6:25], "more\n", *numbered[25:]]
    other = [*numbered[:7], "seven\n", *numbered[8:], *numbered[20:]]
    with pytest.raises(PatchError) as raised:
        diff.apply("".join(other).encode(), parsed(numbered, new))
    assert str(raised.value) == (
        "f: hunk 1 of 2 (line 3): the lines that it changes do not occur; "
        "f: hunk 2 of 2 (line 23): the lines that it changes occur more than once, at lines 23, 33\n"
        "  next: make the patch again from this version's f"
    )


def test_no_context_after_the_change_means_the_end_of_the_file() -> None:
    append = parsed(["a\n", "b\n"], ["a\n", "b\n", "c\n"])
    assert diff.apply(b"x\na\nb\n", append).data == b"x\na\nb\nc\n"
    with pytest.raises(PatchError, match=r"^f: hunk 1 of 1 \(line 1\): the lines that it changes do not occur\n"):
        diff.apply(b"a\nb\nx\n", append)


def test_no_context_before_the_change_means_the_beginning_of_the_file() -> None:
    prepend = parsed(["a\n", "b\n"], ["0\n", "a\n", "b\n"])
    assert diff.apply(b"a\nb\nx\n", prepend).data == b"0\na\nb\nx\n"
    with pytest.raises(PatchError, match=r"^f: hunk 1 of 1 \(line 1\): the lines that it changes do not occur\n"):
        diff.apply(b"x\na\nb\n", prepend)


def test_fills_an_empty_file_only() -> None:
    (fill,) = diff.parse(b"--- a/f\n+++ b/f\n@@ -0,0 +1 @@\n+x\n")
    assert diff.apply(b"", fill) == Applied(data=b"x\n", offsets=(0,))
    with pytest.raises(PatchError, match=r"^f: hunk 1 of 1 \(line 1\): the lines that it changes do not occur\n"):
        diff.apply(b"y\n", fill)


def test_hunks_in_another_order_than_in_the_file_are_refused() -> None:
    (swapped,) = diff.parse(
        b"--- a/f\n+++ b/f\n@@ -5,3 +5,3 @@\n e\n-f\n+F\n g\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n",
    )
    with pytest.raises(PatchError) as raised:
        diff.apply(b"a\nb\nc\nd\ne\nf\ng\n", swapped)
    assert raised.value.message == "f: its hunks overlap or stand in another order than in the file"


def test_a_missing_newline_is_refused_before_the_end() -> None:
    (cut,) = diff.parse(b"--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n\\ No newline at end of file\n c\n")
    with pytest.raises(PatchError) as raised:
        diff.apply(b"a\nb\nc\n", cut)
    assert (raised.value.message, raised.value.next_step) == (
        "f: a line without newline would stand before the end of the file",
        REMAKE,
    )


LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=6)
FEW_LINES = st.lists(st.sampled_from(["a\n", "b\n", "\r\n", "a\r\n"]), max_size=12)


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """A file of distinct lines and an edit of it; either may lack the last newline, some lines end with CRLF."""
    old = draw(st.lists(LINE, unique=True, min_size=1, max_size=40))
    kept = draw(st.lists(st.integers(0, 9), min_size=len(old), max_size=len(old)))
    new: list[str] = []
    for number, (line, choice) in enumerate(zip(old, kept, strict=True)):
        new += {0: [], 1: [f"new {number}"], 2: [line, f"added {number}"]}.get(choice, [line])
    if new == old:
        new.append("the last line")
    return ended(draw, old), ended(draw, new)


def ended(draw: st.DrawFn, lines: list[str]) -> list[str]:
    whole = [f"{line}\n" for line in lines]
    return [*whole[:-1], lines[-1]] if lines and lines[-1] and draw(st.booleans()) else whole


def encoded(lines: list[str]) -> bytes:
    return "".join(lines).encode()


@given(edits())
def test_applies_any_edit_and_takes_it_back(edit: tuple[list[str], list[str]]) -> None:
    old, new = edit
    change = parsed(old, new)
    assert diff.apply(encoded(old), change) == Applied(data=encoded(new), offsets=(0,) * len(change.hunks))
    assert diff.apply(encoded(new), change.reversed()).data == encoded(old)


@given(FEW_LINES, FEW_LINES)
def test_never_guesses_among_equal_places(old: list[str], new: list[str]) -> None:
    if not diff_of(old, new):
        return
    change = parsed(old, new)
    try:
        applied = diff.apply(encoded(old), change)
    except PatchError as error:
        assert "the lines that it changes occur more than once" in error.message  # noqa: PT017
    else:
        assert applied == Applied(data=encoded(new), offsets=(0,) * len(change.hunks))


def by_git(directory: Path) -> None:
    subprocess.run(["git", "apply", "../f.patch"], cwd=directory, check=True, capture_output=True)


def by_patch(directory: Path) -> None:
    command = ["patch", "--batch", "--fuzz=0", "--binary", "-p1", "-i", "../f.patch"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)


@pytest.mark.parametrize("tool", [by_git, by_patch])
@settings(max_examples=25, deadline=None)
@given(edit=edits(), above=st.integers(0, 3))
def test_agrees_with_the_real_tools(
    tool: Callable[[Path], None],
    edit: tuple[list[str], list[str]],
    above: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    name = tool.__name__.removeprefix("by_")
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    old, new = edit
    change = parsed(old, new)
    # Lines on top move every hunk; but what stands at line 1, the tools find nowhere else.
    moved = [f"above {number}\n" for number in range(above if change.hunks[0].line > 1 else 0)]
    root = tmp_path_factory.mktemp(name)
    (root / "tree").mkdir()
    (root / "tree" / "f").write_bytes(encoded([*moved, *old]))
    (root / "f.patch").write_bytes(diff_of(old, new))
    tool(root / "tree")
    assert diff.apply(encoded([*moved, *old]), change).data == (root / "tree" / "f").read_bytes()
